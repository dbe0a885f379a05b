"""A table whose columns are frozen takes everything that comes: what has no column is a property."""

from __future__ import annotations

import json
from typing import Any

import pytest

from leadboxer_source.sandbox import World
from tests.conftest import NOW_MS, Desk

FIELD, COLUMN = "organizationMoonPhase", "organization_moon_phase"


class Growing(World):
    """A dataset whose records carry fields that nobody has seen before."""

    new: dict[str, Any] | None = None

    def user_record(self, user_id: str, now_ms: int) -> dict[str, Any]:
        return {**super().user_record(user_id, now_ms), **(self.new or {})}

    def session_records(self, user_id: str) -> list[dict[str, Any]] | None:
        found = super().session_records(user_id)
        return None if found is None else [{**record, **(self.new or {})} for record in found]

    def event_records(self, session_id: str) -> list[dict[str, Any]] | None:
        found = super().event_records(session_id)
        return None if found is None else [{**record, **(self.new or {})} for record in found]


@pytest.fixture
def growing(desk: Desk) -> Desk:
    return desk.with_world(Growing(seed=5, users=9, days=20, now_ms=NOW_MS))


def grow(desk: Desk, **new: Any) -> None:
    """From now on the API sends more, and somebody new comes by."""
    assert isinstance(desk.world, Growing)
    desk.world.new = new
    desk.clock.advance(86_400)
    desk.world.add_user(desk.now_ms - 600_000, events=2)


def columns(desk: Desk) -> set[tuple[str, str]]:
    found = desk.rows("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'lb'")
    return {(table, column) for table, column in found if not table.startswith("_dlt")}


def bags(desk: Desk, table: str) -> list[dict[str, Any]]:
    return [json.loads(row[0]) for row in desk.rows(f"SELECT properties FROM {table} WHERE properties IS NOT NULL")]


@pytest.mark.parametrize("mode", ["freeze", "discard_value", "discard_row"])
def test_a_new_field_of_the_api_and_a_new_property_neither_break_a_frozen_load_nor_get_lost(
    growing: Desk, mode: Any
) -> None:
    growing.load()
    before = columns(growing)
    grow(growing, **{FIELD: "full", "Favourite colour": "teal"})
    growing.pipeline().run(growing.source(), schema_contract={"columns": mode})
    assert growing.reports[-1].complete
    assert columns(growing) == before
    for table in ("users", "sessions", "events"):
        assert {"full"} == {bag[FIELD] for bag in bags(growing, table) if FIELD in bag}, table
    assert growing.rows(f"SELECT DISTINCT value FROM properties WHERE name = '{FIELD}'") == [("full",)]
    assert growing.rows("SELECT DISTINCT value FROM properties WHERE name = 'Favourite colour'") == [("teal",)]


def test_a_contract_may_stand_on_one_table_or_in_the_first_load(growing: Desk) -> None:
    grow(growing, **{FIELD: "full"})
    source = growing.source()
    source.events.apply_hints(schema_contract={"columns": "freeze"})
    growing.pipeline().run(source)
    assert ("users", COLUMN) in columns(growing)
    assert ("events", COLUMN) not in columns(growing)
    grow(growing, **{FIELD: "new", "organizationTides": "high"})
    growing.pipeline().run(growing.source(), schema_contract={"columns": "freeze"})
    assert ("new",) in growing.rows(f"SELECT {COLUMN} FROM users"), "columns that are there are filled on"
    assert not {column for _, column in columns(growing)} & {"organization_tides"}


def test_without_a_contract_a_new_field_of_the_api_becomes_a_column(growing: Desk) -> None:
    growing.load()
    grow(growing, **{FIELD: "full"})
    growing.load()
    assert {table for table, column in columns(growing) if column == COLUMN} == {"users", "sessions", "events"}
