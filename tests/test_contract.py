"""A table whose columns are frozen takes everything that comes: what has no column is a property."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import dlt
import pytest

from leadboxer_source.rows import as_text
from leadboxer_source.sandbox import World
from tests.conftest import NOW_MS, Desk

FIELD, COLUMN = "organizationMoonPhase", "organization_moon_phase"
TIME = "2026-11-18T11:06:40Z"
FROZEN: Any = {"columns": "freeze", "data_type": "freeze"}


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


class Drifting(World):
    """A dataset in which new fields are of one type with some users and of another with the rest."""

    pairs: tuple[tuple[Any, Any], ...] = ()

    def drift(self, user_id: str) -> dict[str, Any]:
        number = self.user_ids().index(user_id) % 2
        return {f"organizationPair{place}": pair[number] for place, pair in enumerate(self.pairs)}

    def user_record(self, user_id: str, now_ms: int) -> dict[str, Any]:
        return {**super().user_record(user_id, now_ms), **self.drift(user_id)}


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


def kept(desk: Desk, table: str, names: Iterable[str]) -> dict[str, Any]:
    """The values of fields in the bags of a table, where they are the same in all."""
    found: dict[str, Any] = {}
    for bag in bags(desk, table):
        for name in bag.keys() & set(names):
            assert found.setdefault(name, bag[name]) == bag[name]
    return found


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
def test_a_value_of_another_type_than_before_is_kept_in_the_bag(growing: Desk, contract: Any) -> None:
    first = {FIELD: 3, "organizationTides": 0.5, "organizationSunSpots": True}
    then = {FIELD: "full", "organizationTides": "half", "organizationSunSpots": "many"}
    grow(growing, **first)
    growing.load()
    before = columns(growing)
    grow(growing, **then)
    growing.pipeline().run(growing.source(), schema_contract=contract)
    assert growing.reports[-1].complete
    assert columns(growing) == before, "no variant of a column"
    for table in ("users", "sessions", "events"):
        assert kept(growing, table, then) == then
    grow(growing, **first)
    growing.pipeline().run(growing.source(), schema_contract=contract)
    assert growing.reports[-1].complete
    newest = (
        f"SELECT {COLUMN}, organization_tides, organization_sun_spots FROM users ORDER BY last_event_at DESC LIMIT 1"
    )
    assert growing.rows(newest) == [(3, 0.5, True)], "the columns are filled on"


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


def test_no_value_is_bent_into_a_frozen_column(growing: Desk) -> None:
    pairs = [(True, 3), (True, "1"), (TIME, 12), (TIME, "12"), (3, "0x1F"), (3, str(2**63)), (0.5, "nan")]
    then = {f"organizationPhase{number}": value for number, (_, value) in enumerate(pairs)}
    grow(growing, **{f"organizationPhase{number}": value for number, (value, _) in enumerate(pairs)})
    growing.load()
    before = columns(growing)
    assert len([column for table, column in before if table == "users" and "_phase" in column]) == len(pairs)
    grow(growing, **then)
    growing.pipeline().run(growing.source(), schema_contract=FROZEN)
    assert kept(growing, "users", then) == then
    assert columns(growing) == before


def test_what_a_frozen_column_has_room_for_is_put_there(growing: Desk) -> None:
    grow(growing, **{FIELD: 3, "organizationTides": 0.5, "organizationSunSpots": "full"})
    growing.load()
    grow(growing, **{FIELD: "12", "organizationTides": 3, "organizationSunSpots": 3})
    growing.pipeline().run(growing.source(), schema_contract=FROZEN)
    found = growing.rows(f"SELECT {COLUMN}, organization_tides, organization_sun_spots FROM users")
    assert (12, 3.0, "3") in found


def test_what_is_promoted_in_the_first_frozen_load_has_a_column(growing: Desk) -> None:
    for colour in ("teal", None, "blue"):
        grow(growing, **{"Favourite colour": colour})
        growing.pipeline().run(growing.source(promote=["Favourite colour"]), schema_contract=FROZEN)
    promoted = {table for table, column in columns(growing) if column == "favourite_colour"}
    assert promoted == {"users", "sessions", "events"}
    assert ("blue",) in growing.rows("SELECT favourite_colour FROM users")


def test_nothing_promoted_later_breaks_a_frozen_load_even_if_it_is_null(growing: Desk) -> None:
    growing.load()
    before = columns(growing)
    grow(growing, **{"Favourite colour": None})
    growing.pipeline().run(growing.source(promote=["Favourite colour"]), schema_contract=FROZEN)
    assert columns(growing) == before


def test_a_promoted_property_is_text_even_if_the_first_looks_like_a_time(growing: Desk) -> None:
    for value in (TIME, "teal"):
        grow(growing, **{"Favourite colour": value})
        growing.load(promote=["Favourite colour"])
    assert not [column for _, column in columns(growing) if "__v_" in column]
    assert {(TIME,), ("teal",)} <= set(growing.rows("SELECT favourite_colour FROM users"))


def test_a_promoted_property_has_the_type_that_a_hint_gives_it(growing: Desk) -> None:
    grow(growing, Seats=7)
    source = growing.source(promote=["Seats"])
    source.users.apply_hints(columns={"seats": {"data_type": "bigint"}})
    growing.pipeline().run(source)
    assert (7,) in growing.rows("SELECT seats FROM users")


def test_a_contract_counts_for_sessions_of_other_users(growing: Desk) -> None:
    grow(growing, **{FIELD: 3})
    growing.load()
    before = columns(growing)
    grow(growing, **{FIELD: "full", "organizationTides": "high"})
    ours = dlt.resource([{"user_id": user} for user in growing.world.user_ids()], name="ours", selected=False)
    growing.pipeline().run([ours | growing.source().sessions], schema_contract={"columns": "freeze"})
    assert ("full", "high") in [(bag.get(FIELD), bag.get("organizationTides")) for bag in bags(growing, "sessions")]
    assert columns(growing) == before


@pytest.mark.parametrize("where", ["source", "resources", "run", "users alone"])
def test_a_contract_counts_wherever_dlt_takes_one(growing: Desk, where: str) -> None:
    growing.load()
    before = columns(growing)
    grow(growing, **{FIELD: "full"})
    source = growing.source()
    given: Any = {"schema_contract": "freeze"} if where in ("run", "users alone") else {}
    if where == "source":
        source.schema_contract = "freeze"
    elif where == "resources":
        for name in ("users", "sessions", "events"):
            source.resources[name].apply_hints(schema_contract="freeze")
    growing.pipeline().run(source.users if where == "users alone" else source, **given)
    assert columns(growing) == before
    assert {"full"} == {bag[FIELD] for bag in bags(growing, "users") if FIELD in bag}


PAIRS: tuple[tuple[Any, Any], ...] = (
    (True, 5),
    (True, 2.5),
    (True, "no"),
    (True, "True"),
    (TIME, 1000),
    (TIME, 2**62),
    (TIME, "1000"),
    (TIME, "soon"),
    (TIME, "2026-11-18T11:06:40.123456789Z"),
    (TIME, "0001-01-01T00:00:00+05:00"),
    (TIME, "9999-12-31T23:59:59-05:00"),
    (5, 2.5),
    (5, 7.0),
    (5, 1e300),
    (5, -1e19),
    (5, 2**63),
    (5, True),
    (5, TIME),
    (5, "7"),
    (7, "007"),
    (7, " 7 "),
    (7, "+7"),
    (7, "7.0"),
    (7, "1e3"),
    (7, str(2**63)),
    (7, str(10**400)),
    (1.5, 2**53 + 1),
    (1.5, 7),
    (1.5, "2.5"),
    (1.5, "2.50"),
    (1.5, "0.1234567890123456789"),
    (1.5, 1e300),
    ("x", 5),
    ("x", True),
    ("x", 1e300),
    ("x", TIME),
    ("007", 7),
    ("", 7),
    (None, "no"),
)


def sent_and_held(desk: Desk) -> list[tuple[Any, Any]]:
    """What the API sent in the fields of the pairs, and what column or bag of each user holds."""
    assert isinstance(desk.world, Drifting)
    names = {f"organization_pair{place}": f"organizationPair{place}" for place in range(len(desk.world.pairs))}
    there = sorted(column for table, column in columns(desk) if table == "users" and column in names)
    found = []
    for user_id, properties, *values in desk.rows(f"SELECT user_id, properties, {', '.join(there)} FROM users"):
        held = {names[column]: value for column, value in zip(there, values, strict=True) if value is not None}
        bag = {name: value for name, value in json.loads(properties or "{}").items() if name in names.values()}
        assert not held.keys() & bag.keys()
        drift = desk.world.drift(user_id)
        found += [(sent, {**held, **bag}.get(name)) for name, sent in drift.items()]
    return found


def is_as_sent(sent: Any, held: Any) -> bool:
    """Whether a column holds what was sent: the same number, its text, or the same moment."""
    if isinstance(held, datetime):
        return isinstance(sent, str) and datetime.fromisoformat(sent.replace("Z", "+00:00")) == held
    is_number = not isinstance(sent, (str, bool)) and not isinstance(held, (str, bool))
    return held == sent if is_number else as_text(held) == as_text(sent)


@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_no_value_of_another_type_is_bent_into_a_column_that_another_made(desk: Desk, *, turned: bool) -> None:
    world = Drifting(seed=5, users=9, days=20, now_ms=NOW_MS)
    world.pairs = tuple(pair[::-1] for pair in PAIRS) if turned else PAIRS
    desk.with_world(world)
    for _ in range(2):  # what one load finds in values is what the next one finds in the schema
        assert desk.load().complete
        assert len({user for (user,) in desk.rows("SELECT user_id FROM users")}) == len(world.user_ids())
        wrong = [(sent, held) for sent, held in sent_and_held(desk) if sent != "" and not is_as_sent(sent, held)]
        assert not wrong
        assert not [column for _, column in columns(desk) if "__v_" in column]
        world.pairs = tuple(pair[::-1] for pair in world.pairs)
        desk.clock.advance(86_400)
        for user in world.user_ids():
            world.return_user(user, desk.now_ms - 600_000)


@pytest.mark.parametrize("sent", [(True, 5), (5, True)])
def test_datasets_that_are_loaded_together_share_their_columns(desk: Desk, sent: tuple[Any, Any]) -> None:
    sites = ("a" * 32, "b" * 32)
    for site, value in zip(sites, sent, strict=True):
        world = desk.server.worlds[site] = Growing(seed=5, users=3, days=20, now_ms=NOW_MS, site=site)
        world.new = {FIELD: value}
    desk.pipeline().run([desk.source(site=site) for site in sites])
    found = desk.rows(f"SELECT DISTINCT site, {COLUMN}, properties->>'{FIELD}' FROM users ORDER BY site")
    assert found == [(sites[0], sent[0], None), (sites[1], None, as_text(sent[1]))]
