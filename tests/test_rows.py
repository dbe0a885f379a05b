"""What becomes of a record: every value arrives, typed where it fits and as sent where it does not."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from dlt.common.data_types import coerce_value, py_type_to_sc_type
from dlt.common.schema import Schema
from dlt.common.schema.utils import autodetect_sc_type
from hypothesis import given
from hypothesis import strategies as st

from leadboxer_source.contract import Columns, exactly
from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.privacy import Privacy
from leadboxer_source.rows import (
    Misfit,
    Shape,
    Shapes,
    as_text,
    epoch_ms,
    identifier,
    instant,
    json_type,
    last_activity_ms,
    property_rows,
    session_activity_ms,
    session_id_of,
)
from leadboxer_source.tables import Field

SCHEMA = Schema("leadboxer")
READ_AT = datetime(2026, 1, 2, tzinfo=timezone.utc)
SITE = "0" * 32
LAST_MS = 253_402_300_799_999

FIELDS = [
    Field("name", "text", "", ("name", "lastName")),
    Field("count", "bigint", "", ("count",)),
    Field("ratio", "double", "", ("ratio",)),
    Field("at", "timestamp", "", ("at",)),
    Field("is_new", "bool", "", ("isNew",)),
    Field("info", "json", "", ("info",)),
]


def shaped(record: dict[str, Any]) -> dict[str, Any]:
    return Shape(FIELDS, ["site", "properties", "last_reserved"]).row(record)


words = st.text("aé 7", max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize(
    ("field", "sent", "read"),
    [
        ("name", "Ada", "Ada"),
        ("name", {"name": "user"}, "user"),
        ("name", True, "true"),
        ("name", 7, "7"),
        ("name", 2.5, "2.5"),
        ("count", 7, 7),
        ("count", "7", 7),
        ("count", " +7 ", 7),
        ("count", "-12", -12),
        ("count", 7.0, 7),
        ("count", 0, 0),
        ("count", 2**63 - 1, 2**63 - 1),
        ("count", -(2**63), -(2**63)),
        ("count", "9223372036854775807", 2**63 - 1),
        ("ratio", 1, 1.0),
        ("ratio", "-87.6206", -87.6206),
        ("ratio", " 1.50 ", 1.5),
        ("ratio", "37.750999999999998", 37.751),
        ("ratio", 2**60, 2.0**60),
        ("at", 0, datetime(1970, 1, 1, tzinfo=timezone.utc)),
        ("at", "1783024862163", datetime(2026, 7, 2, 20, 41, 2, 163_000, tzinfo=timezone.utc)),
        ("at", LAST_MS, datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=timezone.utc)),
        ("isNew", False, False),
        ("isNew", True, True),
        ("info", {"a": 1}, {"a": 1}),
        ("info", [1], [1]),
        ("info", {}, None),
        ("info", [], None),
    ],
)
def test_a_value_that_fits_gets_its_column_and_type(field: str, sent: Any, read: Any) -> None:
    column = {"isNew": "is_new"}.get(field, field)
    row = shaped({field: sent})
    assert row == {column: read, "properties": None}
    assert type(row[column]) is type(read)


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("name", ["Ada"]),
        ("name", {"name": 7}),
        ("name", {"name": "a", "more": 1}),
        ("name", {"nick": "a"}),
        ("name", {}),
        ("count", True),
        ("count", 7.5),
        ("count", "7.0"),
        ("count", "seven"),
        ("count", "1_000"),
        ("count", "\u0667"),
        ("count", "7 7"),
        ("count", 2**63),
        ("count", -(2**63) - 1),
        ("count", "9223372036854775808"),
        ("count", "12345678901234567890"),
        ("count", float("inf")),
        ("count", [7]),
        ("ratio", False),
        ("ratio", "much"),
        ("ratio", "nan"),
        ("ratio", "1_000"),
        ("ratio", "1e400"),
        ("ratio", "1e-400"),
        ("ratio", "1e-99999999999999999999"),
        ("ratio", 2**53 + 1),
        ("ratio", str(2**53 + 1)),
        ("ratio", "0.1234567890123456789"),
        ("ratio", float("inf")),
        ("ratio", 10**400),
        ("ratio", [1.0]),
        ("at", -1),
        ("at", LAST_MS + 1),
        ("at", "yesterday"),
        ("isNew", 1),
        ("isNew", "true"),
        ("info", "text"),
        ("info", 7),
    ],
)
def test_a_value_that_does_not_fit_stays_in_the_bag_as_sent(field: str, sent: Any) -> None:
    assert shaped({field: sent}) == {"properties": {field: sent}}


@pytest.mark.parametrize("unknown", ["", None])
def test_empty_means_unknown_for_fields_of_the_api_and_is_a_value_for_custom_ones(unknown: Any) -> None:
    assert shaped({"name": unknown, "last_thing": unknown, "count": 1}) == {"count": 1, "properties": None}
    assert shaped({"Plan": unknown}) == {"properties": {"Plan": unknown}}


def test_a_field_is_known_in_any_spelling_of_its_case() -> None:
    assert shaped({"NAME": "Ada"})["name"] == "Ada"


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_spellings_the_first_one_wins_and_the_other_is_kept_unless_it_says_the_same(order: int) -> None:
    sent = {"name": "Ada", "lastName": "Lovelace"}
    assert shaped(dict(list(sent.items())[::order])) == {"name": "Ada", "properties": {"lastName": "Lovelace"}}
    same = {"name": "Ada", "lastName": "Ada"}
    assert shaped(dict(list(same.items())[::order])) == {"name": "Ada", "properties": None}


def test_of_three_spellings_the_first_one_wins_in_any_order() -> None:
    shape = Shape([Field("x", "text", "", ("a", "b", "c"))], [])
    assert shape.row({"b": "2", "c": "3", "a": "1"}) == {"x": "1", "properties": {"b": "2", "c": "3"}}
    assert shape.row({"c": "3", "b": "2"}) == {"x": "2", "properties": {"c": "3"}}
    assert shape.row({"a": [1], "c": "3"}) == {"x": "3", "properties": {"a": [1]}}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("last_thing", "last_thing"),
        ("lastThing", None),
        ("Last_Thing2", "last_thing2"),
        ("total_clicks", "total_clicks"),
        ("organizationShoeSize", "organization_shoe_size"),
        ("Customer ID", None),
        ("_dlt_id", None),
        ("last_reserved", None),
        ("last_größe", None),
        ("last thing", None),
        ("", None),
    ],
)
def test_unknown_fields_in_the_apis_own_naming_get_a_column_and_all_others_go_to_the_bag(
    name: str, column: str | None
) -> None:
    expected = {column: "v", "properties": None} if column else {"properties": {name: "v"}}
    assert shaped({name: "v"}) == expected


def test_an_inferred_column_takes_no_nested_value_and_only_one_of_two_spellings() -> None:
    assert shaped({"last_thing": [1]}) == {"properties": {"last_thing": [1]}}
    assert shaped({"last_thing": {"a": 1}}) == {"properties": {"last_thing": {"a": 1}}}
    assert shaped({"last_thing": 1, "Last_Thing": 2}) == {"last_thing": 1, "properties": {"Last_Thing": 2}}


def test_what_changes_by_itself_and_the_dataset_id_are_left_out() -> None:
    assert shaped({"prettyLastEvent": "2 hours ago", "site": SITE, "Site": SITE}) == {"properties": None}


def test_a_promoted_property_gets_a_text_column_as_well() -> None:
    shape = Shape(FIELDS, [], ["Customer ID", "Plan"])
    assert shape.row({"Customer ID": 7, "Plan": None}) == {
        "customer_id": "7",
        "plan": None,
        "properties": {"Customer ID": 7, "Plan": None},
    }
    assert shape.row({"customer id": 7}) == {"properties": {"customer id": 7}}


@pytest.mark.parametrize(
    ("promote", "told"),
    [(["name"], "'name'"), (["Plan", "plan"], "'Plan', 'plan'"), ([""], "''"), (["_dlt_id"], "'_dlt_id'")],
)
def test_a_property_that_cannot_have_a_column_of_its_own_is_refused(promote: list[str], told: str) -> None:
    with pytest.raises(ConfigurationInvalid) as error:
        Shape(FIELDS, [], promote)
    assert str(error.value) == (
        f"promote cannot make columns of {told}: each needs a column name of its own that no table has yet."
    )


def test_an_unknown_field_takes_no_column_of_a_promoted_one() -> None:
    shape = Shape([], [], ["last_plan"])
    assert shape.row({"Last_Plan": "x"}) == {"properties": {"Last_Plan": "x"}}


@given(st.dictionaries(st.sampled_from([*(n for f in FIELDS for n in f.names), "Plan", "last_x", "a b"]), json_values))
def test_no_value_is_lost(record: dict[str, Any]) -> None:
    row = shaped(record)
    bag = row["properties"] or {}
    for name, value in record.items():
        if value in ("", None) and name not in {"Plan", "a b"}:
            continue
        column = {"lastName": "name", "isNew": "is_new"}.get(name, name)
        assert (name in bag and bag[name] == value) or column in row


@pytest.mark.parametrize(("sent", "read"), [("5", 5), (5, 5), (0, 0), (LAST_MS, LAST_MS)])
def test_epoch_milliseconds_are_read(sent: Any, read: int) -> None:
    assert epoch_ms(sent) == read


@pytest.mark.parametrize("sent", [None, "", -1, LAST_MS + 1, True, "x", 1.5, []])
def test_what_is_no_time_is_a_misfit(sent: Any) -> None:
    with pytest.raises(Misfit):
        epoch_ms(sent)


def test_an_instant_is_exact_and_in_utc() -> None:
    assert instant(1).isoformat() == "1970-01-01T00:00:00.001000+00:00"
    assert instant(86_400_000) == datetime(1970, 1, 2, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("record", "last"),
    [
        ({"lastEvent": 3, "eventEsTimestamp": "2", "eventUnixTimestamp": "1"}, 3),
        ({"lastEvent": "", "eventEsTimestamp": "2", "eventUnixTimestamp": "1"}, 2),
        ({"lastEvent": "never", "eventUnixTimestamp": "1"}, 1),
        ({"lastEvent": 0}, 0),
        ({}, None),
        ({"last_event": 3}, None),
    ],
)
def test_the_last_activity_is_the_first_readable_of_its_fields(record: dict[str, Any], last: int | None) -> None:
    assert last_activity_ms(record) == last


@pytest.mark.parametrize(
    ("session", "session_id"),
    [
        ({"session_id": "5.7", "last_session_id": "9.7"}, "5.7"),
        ({"last_session_id": "9.7"}, "9.7"),
        ({"session_id": "", "last_session_id": "9.7"}, "9.7"),
        ({"session_id": None}, None),
        ({"sessionId": "5.7"}, None),
    ],
)
def test_the_id_of_a_session_has_two_spellings(session: dict[str, Any], session_id: str | None) -> None:
    assert session_id_of(session) == session_id


@pytest.mark.parametrize(
    ("session", "last"),
    [
        ({"session_id": "5.7", "eventUnixTimestamp": "5"}, None),
        ({"last_session_id": "5.7", "eventUnixTimestamp": 5, "lastEvent": ""}, None),
        ({"session_id": "5.7", "eventUnixTimestamp": "60004"}, None),
        ({"session_id": "5.7", "eventUnixTimestamp": "60005"}, 60_005),
        ({"session_id": "5.7", "eventUnixTimestamp": "4"}, 4),
        ({"session_id": "5.7", "eventUnixTimestamp": "5", "lastEvent": 5}, 5),
        ({"session_id": "5.7", "eventUnixTimestamp": "5", "eventEsTimestamp": "5"}, None),
        ({"session_id": "0367b906-9fb5", "eventUnixTimestamp": "5"}, 5),
        ({"eventUnixTimestamp": "5"}, 5),
        ({"session_id": "None.7"}, None),
    ],
)
def test_the_start_of_a_session_is_not_its_last_activity(session: dict[str, Any], last: int | None) -> None:
    assert session_activity_ms(session) == last


@pytest.mark.parametrize(
    ("sent", "read"),
    [("a", "a"), (7, "7"), (0, "0"), ("", None), (None, None), (True, None), (1.5, None), (["a"], None)],
)
def test_an_identifier_is_text_or_nothing(sent: Any, read: str | None) -> None:
    assert identifier({"id": sent}, "id") == read
    assert identifier({}, "id") is None


@pytest.mark.parametrize(
    ("value", "text", "kind"),
    [
        ("a", "a", "string"),
        ("", "", "string"),
        (None, None, "null"),
        (True, "true", "boolean"),
        (7, "7", "integer"),
        (2.5, "2.5", "number"),
        ([1, "x"], '[1,"x"]', "array"),
        ({"a": None}, '{"a":null}', "object"),
    ],
)
def test_a_property_as_text_and_by_its_type(value: Any, text: str | None, kind: str) -> None:
    assert (as_text(value), json_type(value)) == (text, kind)


def test_of_one_spelling_in_two_cases_the_first_wins() -> None:
    assert shaped({"name": "a", "NAME": "b"}) == {"name": "a", "properties": {"NAME": "b"}}


def test_a_frozen_table_takes_unknown_fields_into_the_columns_it_has_and_no_others() -> None:
    shape = Shape(FIELDS, ["site"])
    sent = {"last_seen": "x", "last_other": "y"}
    assert shape.row(sent) == {**sent, "properties": None}
    shape.fill(Columns(SCHEMA, {"last_seen": "bigint"}, grows=False))
    assert shape.row({**sent, "last_seen": 3}) == {"last_seen": 3, "properties": {"last_other": "y"}}
    assert shape.row(sent) == {"properties": sent}, "it is of another type"
    shape.fill(None)
    assert shape.row(sent) == {**sent, "properties": None}


def test_a_column_that_can_be_no_more_is_not_made_by_a_first_value_without_room() -> None:
    shape = Shape([], [])
    shape.fill(Columns(SCHEMA, {}))
    for value in (2**63, -1e19, 1e300, "9999-12-31T23:59:59-05:00", "2026-01-01T00:00:00.1234567Z"):
        assert shape.row({"last_x": value}) == {"properties": {"last_x": value}}
    assert shape.row({"last_x": 5}) == {"last_x": 5, "properties": None}


@pytest.mark.parametrize(
    ("kind", "sent", "read"),
    [
        ("text", 7, "7"),
        ("text", True, "true"),
        ("bigint", 7.0, 7),
        ("bigint", "7", 7),
        ("bigint", str(-(2**63)), -(2**63)),
        ("double", 7, 7.0),
        ("double", 2**60, 2.0**60),
        ("double", "0.5", 0.5),
        ("bool", "false", False),
        ("timestamp", "2026-01-01T00:00:00.123456Z", "2026-01-01T00:00:00.123456Z"),
        ("decimal", 1.1, 1.1),
        ("decimal", "1.10", "1.10"),
        ("date", "2026-01-02", "2026-01-02"),
        ("json", "[1,2]", "[1,2]"),
    ],
)
def test_a_column_takes_what_it_holds_without_loss(kind: Any, sent: Any, read: Any) -> None:
    assert exactly(kind, sent) == read
    assert type(exactly(kind, sent)) is type(read)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("text", ["a"]),
        ("bigint", "007"),
        ("bigint", "7.0"),
        ("bigint", 1e19),
        ("bigint", True),
        ("double", 2**53 + 1),
        ("double", "7"),
        ("double", "0.50"),
        ("bool", 1),
        ("bool", "yes"),
        ("timestamp", 1000),
        ("timestamp", "2026-01-01"),
        ("decimal", "1e3"),
        ("decimal", "much"),
        ("date", 1000),
        ("date", "2026-01-02T10:00"),
        ("json", "[1, 2]"),
    ],
)
def test_a_column_does_not_take_what_it_would_change(kind: Any, sent: Any) -> None:
    with pytest.raises(Misfit):
        exactly(kind, sent)


hard_values = st.sampled_from(
    [
        *("007", "7", " 7 ", "+7", "7.0", "1e3", "0.1", "0.10", str(2**53 + 1), str(2**63), "true", "no"),
        *(7, 7.0, -0.0, 2**53 + 1, 2**63, -(2**63), 1e19, 1e300),
        *("2026-01-01", "2026-01-01T10:00Z", "2026-01-01 10:00", "2026-01-01T00:00:00.1234567Z"),
        "0001-01-01T00:00:00+05:00",
    ]
)


def moment(text: str) -> datetime:
    read = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return read.replace(tzinfo=read.tzinfo or timezone.utc)


kinds = st.sampled_from(["bool", "bigint", "double", "text", "timestamp", "decimal", "date", "json"])


@given(kinds | st.none(), st.lists(hard_values | json_values, min_size=1, max_size=6))
def test_no_value_of_a_field_is_lost_whatever_came_before_it(there: Any, sent: list[Any]) -> None:
    shape = Shape([], [])
    shape.fill(Columns(SCHEMA, {"last_x": there} if there else {}))
    kind = there
    for value in sent:
        row = shape.row({"last_x": value})
        if (read := row.get("last_x")) is None:
            assert value in ("", None) or row["properties"] == {"last_x": value}
            continue
        assert row["properties"] is None
        if not there:  # dlt makes a column of whichever value it meets first
            first = autodetect_sc_type(["iso_timestamp"], type(read), read) or py_type_to_sc_type(type(read))
            assert first == kind or kind is None
            kind = first
        # what dlt makes of it as it writes it
        held = coerce_value(kind, py_type_to_sc_type(type(read)), read)
        if kind == "timestamp":
            assert held.replace(tzinfo=held.tzinfo or timezone.utc) == moment(value)
        elif isinstance(value, str) or isinstance(held, (str, bool)):
            assert (str(held) if kind in ("decimal", "date") else as_text(held)) == as_text(value)
        else:
            assert held == value


alike = st.fixed_dictionaries(
    {"event_id": st.sampled_from("12")},
    optional={"Tag": st.sampled_from("ab") | json_values, "city": words, "prettyLastEvent": words},
)


@given(st.lists(alike, max_size=6).flatmap(lambda sent: st.tuples(st.just(sent), st.permutations(sent))))
def test_an_answer_makes_the_same_events_in_any_order(answers: tuple[list[Any], list[Any]]) -> None:
    def made(answer: list[dict[str, Any]]) -> list[str]:
        rows = Shapes(SITE).events(answer, "3.2", "1.2", READ_AT)
        return sorted(as_text(row) or "" for row in rows)

    assert made(answers[0]) == made(answers[1])


class TestTables:
    @property
    def shapes(self) -> Shapes:
        return Shapes(SITE, ["Customer ID"])

    def test_a_user(self) -> None:
        row = self.shapes.user(
            {"use_id": "1.2", "lastEvent": 5, "event_key": "x", "read_at": 1, "Customer ID": 7}, READ_AT
        )
        assert row == {
            "site": SITE,
            "user_id": "1.2",
            "last_event_at": instant(5),
            "customer_id": "7",
            "properties": {"event_key": "x", "read_at": 1, "Customer ID": 7},
            "read_at": READ_AT,
        }

    def test_a_session_belongs_to_whom_it_names_or_else_to_whom_it_was_asked_for(self) -> None:
        named = self.shapes.session({"session_id": "3.2", "use_id": "9.9", "Customer ID": "C"}, "1.2", READ_AT)
        bare = self.shapes.session({"session_id": "3.2"}, "1.2", READ_AT)
        assert (named["user_id"], bare["user_id"]) == ("9.9", "1.2")
        assert named["customer_id"] == "C"
        assert bare == {"site": SITE, "user_id": "1.2", "session_id": "3.2", "properties": None, "read_at": READ_AT}

    def events(self, *records: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self.shapes.events(records, "3.2", "1.2", READ_AT))

    def test_an_event_has_its_session_its_user_and_a_key(self) -> None:
        (row,) = self.events({"event_id": "3.2", "eventUnixTimestamp": "5", "Customer ID": "C"})
        assert row == {
            "site": SITE,
            "session_id": "3.2",
            "user_id": "1.2",
            "event_id": "3.2",
            "occurred_at": instant(5),
            "customer_id": "C",
            "properties": {"Customer ID": "C"},
            "event_key": row["event_key"],
            "read_at": READ_AT,
        }

    def test_the_key_stays_what_it_is_in_every_release(self) -> None:
        sent = {"event_id": "3.2", "eventUnixTimestamp": "5", "title": "T", "original_url": "https://a.example/?x"}
        keys = [row["event_key"] for row in self.events(sent, sent)]
        assert keys == ["33d4e82d01dd8128efdfbbdc8133d2c3", "46c8cf7531e0847a6c06bf8d64d913ee"]

    @pytest.mark.parametrize(
        "other",
        [
            {"session_id": "4.2"},
            {"event_id": "4.2"},
            {"eventUnixTimestamp": "6"},
            {"title": "U"},
            {"original_url": "https://b.example"},
        ],
        ids=str,
    )
    def test_events_that_differ_in_what_identifies_them_have_different_keys(self, other: dict[str, Any]) -> None:
        sent = {
            "session_id": "3.2",
            "event_id": "3.2",
            "eventUnixTimestamp": "5",
            "title": "T",
            "original_url": "https://a.example",
            "root_url": "https://r.example",
        }
        one, another = self.events(sent, {**sent, **other})
        assert one["event_key"] != another["event_key"]
        again = self.events({**sent, **other}, sent)
        assert [row["event_key"] for row in again] == [another["event_key"], one["event_key"]], "whatever the order"

    def test_a_key_does_not_depend_on_what_else_an_event_carries(self) -> None:
        one, another = self.events({"event_id": "1"}), self.events({"event_id": "1", "Plan": "x"})
        assert one[0]["event_key"] == another[0]["event_key"]

    def test_the_landing_page_tells_events_apart_where_there_is_no_url(self) -> None:
        one, another = self.events({"root_url": "https://a.example"}, {"root_url": "https://b.example"})
        assert one["event_key"] != another["event_key"]

    def test_each_of_several_equal_hits_has_a_key(self) -> None:
        assert len({row["event_key"] for row in self.events(*[{"event_id": "1"}] * 3)}) == 3

    def test_equal_hits_keep_their_keys_in_any_order_and_whatever_of_them_is_hidden_or_changes_by_itself(self) -> None:
        sent = [{"event_id": "1", "Tag": tag, "email": tag, "prettyLastEvent": tag} for tag in "abc"]
        keys = {event["properties"]["Tag"]: event["event_key"] for event in self.events(*sent)}
        later = [{**record, "prettyLastEvent": "d"} for record in sent[::-1]]
        assert {event["properties"]["Tag"]: event["event_key"] for event in self.events(*later)} == keys
        hidden = Shapes(SITE, (), Privacy(exclude=["email", "Tag"])).events(later, "3.2", "1.2", READ_AT)
        assert [event["event_key"] for event in hidden] == [keys[record["Tag"]] for record in later]

    def test_an_equal_hit_that_is_taken_later_moves_no_key(self) -> None:
        sent = [{"event_id": "1", "Tag": tag, "hitTimestamp": at} for tag, at in (("c", "5"), ("a", "60"), ("b", "61"))]
        before, after = self.events(*sent[:2]), self.events(*sent[::-1])
        assert [row["event_key"] for row in before] == [row["event_key"] for row in after[:0:-1]]

    def test_an_event_keeps_its_key_when_it_changes_unless_another_is_equal(self) -> None:
        (before,), (after,) = self.events({"event_id": "1"}), self.events({"event_id": "1", "companyName": "A"})
        assert before["event_key"] == after["event_key"]

    def test_what_is_hidden_is_so_in_every_table_and_an_event_keeps_its_key(self) -> None:
        hidden = Shapes(SITE, ["Customer ID"], Privacy(exclude=["title", "original_url", "email", "Customer ID"]))
        sent = {"event_id": "1", "title": "T", "original_url": "https://a.example", "email": "e@a.example"}
        user = hidden.user({"use_id": "1.2", **sent, "Customer ID": "C"}, READ_AT)
        session = hidden.session({"session_id": "3.2", **sent, "Customer ID": "C"}, "1.2", READ_AT)
        (event,) = hidden.events([{**sent, "Customer ID": "C"}], "3.2", "1.2", READ_AT)
        for row in (user, session, event):
            assert not {"title", "original_url", "email", "customer_id"} & row.keys()
            assert not {"title", "original_url", "email", "Customer ID"} & (row["properties"] or {}).keys()
        assert event["event_key"] == self.events(sent)[0]["event_key"]

    def test_hidden_events_are_told_apart_by_what_is_hidden(self) -> None:
        hidden = Shapes(SITE, (), Privacy(exclude=["title"]))
        one, another = hidden.events([{"title": "T"}, {"title": "U"}], "3.2", "1.2", READ_AT)
        assert one["event_key"] != another["event_key"]

    @pytest.mark.parametrize("table", ["users", "sessions", "events"])
    def test_each_table_is_frozen_by_itself(self, table: str) -> None:
        shapes, sent = self.shapes, {"use_id": "1.2", "session_id": "3.2", "last_seen": "x", "last_other": "y"}
        shapes.fill({table: Columns(SCHEMA, {"last_seen": "text"}, grows=False)})
        rows = {
            "users": shapes.user(sent, READ_AT),
            "sessions": shapes.session(sent, "1.2", READ_AT),
            "events": next(shapes.events([sent], "3.2", "1.2", READ_AT)),
        }
        assert [name for name, row in rows.items() if "last_other" not in row] == [table]
        assert all(row["last_seen"] == "x" for row in rows.values())

    @pytest.mark.parametrize("reserved", ["site", "event_key", "properties", "read_at"])
    def test_a_column_that_every_table_has_cannot_be_promoted_to(self, reserved: str) -> None:
        with pytest.raises(ConfigurationInvalid, match="promote"):
            Shapes(SITE, [reserved])

    def test_properties_of_an_event_one_row_for_each(self) -> None:
        (event,) = self.events({"event_id": "1", "customEventInfo": {"plan": "team", "seats": 2}, "plan": None})
        rows = list(property_rows(event))
        shared = {"site": SITE, "event_key": event["event_key"], "session_id": "3.2", "read_at": READ_AT}
        assert rows == [
            {**shared, "name": "customEventInfo.plan", "value": "team", "value_type": "string"},
            {**shared, "name": "customEventInfo.seats", "value": "2", "value_type": "integer"},
            {**shared, "name": "plan", "value": None, "value_type": "null"},
        ]

    @pytest.mark.parametrize("info", ["text", ["a"], {}, None])
    def test_an_event_without_properties_has_no_rows(self, info: Any) -> None:
        (event,) = self.events(
            {"event_id": "1", **({"customEventInfo": info} if isinstance(info, (list, dict)) else {})}
        )
        assert list(property_rows(event)) == []
