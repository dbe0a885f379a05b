"""Known fields are typed columns with descriptions; names and values of properties are never lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadboxer_source.rows import Shapes, instant, json_type, property_rows
from leadboxer_source.tables import TABLES, USER_FIELDS
from tests.conftest import Desk

SITE = "0" * 32
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
known_names = st.sampled_from([name for field in USER_FIELDS for name in field.names])
records = st.dictionaries(known_names | st.text(max_size=12), values, max_size=20)


@pytest.mark.usefixtures("loaded")
def test_every_table_column_has_a_type_and_a_description_in_the_destination(desk: Desk) -> None:
    tables = desk.pipeline().default_schema.tables
    for name, table in TABLES.items():
        for column in table["columns"]:
            described = tables[name]["columns"][column] if name in tables else table["columns"][column]
            assert described.get("data_type"), f"{name}.{column}"
            assert described.get("description"), f"{name}.{column}"


@pytest.mark.usefixtures("loaded")
def test_times_ids_and_numbers_arrive_as_what_they_are(desk: Desk) -> None:
    types = dict(desk.rows("SELECT table_name || '.' || column_name, data_type FROM information_schema.columns"))
    assert types["users.last_event_at"] == types["sessions.started_at"] == "TIMESTAMP WITH TIME ZONE"
    assert types["users.user_id"] == types["sessions.session_id"] == types["events.event_id"] == "VARCHAR"
    assert types["users.last_resolution_width"] == types["sessions.pages_viewed"] == "BIGINT"
    assert types["users.last_latitude"] == types["users.organization_longitude"] == "DOUBLE"
    assert types["users.properties"] == types["events.properties"] == types["events.custom_event_info"] == "JSON"
    assert "users.pretty_last_event" not in types


@pytest.mark.usefixtures("loaded")
def test_nothing_nests_into_further_tables_and_no_value_makes_a_variant(desk: Desk) -> None:
    tables = {row[0] for row in desk.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'lb'")}
    assert {table for table in tables if not table.startswith("_dlt")} == TABLES.keys()
    columns = [row[0] for row in desk.rows("SELECT column_name FROM information_schema.columns")]
    assert not [column for column in columns if "__v_" in column]


@pytest.mark.usefixtures("loaded")
def test_colliding_reserved_and_empty_property_names_arrive_with_their_values(desk: Desk) -> None:
    names = {row[0] for row in desk.rows("SELECT DISTINCT name FROM properties")}
    assert {"Plan", "plan", "Customer ID", "customer_id", "_dlt_id", "_dlt_load_id", "select", "", "größe"} <= names
    assert len([name for name in names if name.startswith("Answer ")]) == 300
    kinds = {row[0] for row in desk.rows("SELECT DISTINCT value_type FROM properties WHERE name = 'drift'")}
    assert kinds >= {"string", "integer", "number", "boolean"}
    bags = [json.loads(row[0]) for row in desk.rows("SELECT properties FROM users WHERE properties IS NOT NULL")]
    assert any({"Plan", "plan", "Customer ID", "customer_id"} <= set(bag) for bag in bags)


def test_a_promoted_property_is_a_column_and_stays_a_property(desk: Desk) -> None:
    desk.load(promote=["Customer ID"])
    promoted = desk.rows("SELECT count(*) FROM users WHERE customer_id LIKE 'C-%'")
    assert promoted == [(20,)]


@pytest.mark.usefixtures("loaded")
def test_references_between_the_tables_are_declared(desk: Desk) -> None:
    tables = desk.pipeline().default_schema.tables
    told: Any = {name: [r["referenced_table"] for r in tables[name].get("references") or []] for name in tables}
    assert (told["sessions"], told["events"], told["properties"]) == (["users"], ["sessions"], ["events"])


@given(records)
def test_no_value_of_a_record_is_lost(record: dict[str, Any]) -> None:
    row = Shapes(SITE).user(record, instant(0))
    bag = row.get("properties") or {}
    columns = {name.lower(): field for field in USER_FIELDS for name in field.names}
    for name, value in record.items():
        if name.lower() in {"site", "prettylastevent"}:
            continue
        if name in bag:
            assert bag[name] == value
        elif name.lower() in columns:
            arrived = columns[name.lower()].column in row
            assert arrived or value in ("", None), name
        else:
            assert value in row.values() or value in ("", None), name


@given(st.dictionaries(st.text(), values, max_size=8))
def test_every_property_of_an_event_has_one_row(bag: dict[str, Any]) -> None:
    event = {"site": SITE, "event_key": "k", "session_id": "s", "read_at": instant(0), "properties": bag}
    rows = list(property_rows(event))
    assert {row["name"]: row["value_type"] for row in rows} == {name: json_type(value) for name, value in bag.items()}
    assert len(rows) == len(bag)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["event_id", "title", "root_url", "eventUnixTimestamp", "x"]), st.sampled_from(["1", "2"])
        ),
        max_size=8,
    )
)
def test_events_that_share_an_id_have_keys_of_their_own_and_the_same_ones_again(found: list[dict[str, Any]]) -> None:
    keys = [row["event_key"] for row in Shapes(SITE).events(found, "s", "u", instant(0))]
    assert len(set(keys)) == len(found)
    assert keys == [row["event_key"] for row in Shapes(SITE).events(found, "s", "u", instant(9))]
