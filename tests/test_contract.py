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


@pytest.mark.parametrize(
    "contract",
    [
        {"columns": "freeze"},
        {"columns": "discard_value"},
        {"columns": "discard_row"},
        {"columns": "freeze", "data_type": "freeze"},
        {"data_type": "freeze"},
        {"data_type": "discard_row"},
    ],
    ids=str,
)
@pytest.mark.parametrize(("first", "then"), [(3, "full"), (0.5, "half"), (True, "waxing")], ids=str)
def test_a_value_of_another_type_than_before_is_kept_in_the_bag(
    growing: Desk, contract: Any, first: Any, then: Any
) -> None:
    grow(growing, **{FIELD: first})
    growing.load()
    before = columns(growing)
    grow(growing, **{FIELD: then})
    growing.pipeline().run(growing.source(), schema_contract=contract)
    assert growing.reports[-1].complete
    assert columns(growing) == before, "no variant of the column"
    for table in ("users", "sessions", "events"):
        assert {then} == {bag[FIELD] for bag in bags(growing, table) if FIELD in bag}, table
    grow(growing, **{FIELD: first})
    growing.pipeline().run(growing.source(), schema_contract=contract)
    assert growing.reports[-1].complete
    newest = "SELECT {} FROM users ORDER BY last_event_at DESC LIMIT 1"
    assert growing.rows(newest.format(COLUMN)) == [(first,)], "the column is filled on"


def test_a_property_that_is_promoted_later_does_not_break_a_frozen_load(growing: Desk) -> None:
    growing.load()
    before = columns(growing)
    grow(growing, **{"Favourite colour": "teal"})
    growing.pipeline().run(growing.source(promote=["Favourite colour"]), schema_contract={"columns": "freeze"})
    assert growing.reports[-1].complete
    assert columns(growing) == before
    assert growing.rows("SELECT DISTINCT value FROM properties WHERE name = 'Favourite colour'") == [("teal",)]


def test_a_number_that_no_column_has_room_for_is_a_property(growing: Desk) -> None:
    grow(growing, **{FIELD: 2**63})
    growing.load()
    assert {bag[FIELD] for bag in bags(growing, "users") if FIELD in bag} == {2**63}
