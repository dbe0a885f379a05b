"""What is to be left out or hashed is nowhere: not in a column, not in a property, not in a file that a run leaves."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.privacy import OPEN, PERSONAL, Privacy
from leadboxer_source.rows import Shapes, instant, property_rows
from leadboxer_source.tables import EVENT_FIELDS, SESSION_FIELDS, USER_FIELDS
from leadboxer_source.upkeep import resync
from tests.conftest import Desk

KEY = "a secret that is long enough"
READ_AT = instant(0)
EMAIL = "Canary.Bird@Example.com"
SPELLINGS = ("email", "E-Mail", "last_email", "emailAddress")
NAMES = [name for field in (*USER_FIELDS, *SESSION_FIELDS, *EVENT_FIELDS) for name in field.names]


def hashed(value: str) -> str:
    return hmac.new(KEY.encode(), value.encode(), hashlib.sha256).hexdigest()


def user(record: dict[str, Any], privacy: Privacy) -> dict[str, Any]:
    return Shapes("s", (), privacy).user({"use_id": "1.2", **record}, READ_AT)


@pytest.mark.parametrize(
    "name", ["organizationEmailAddresses", "organization_email_addresses", "ORGANIZATIONEMAILADDRESSES"]
)
def test_a_field_is_named_as_the_api_or_the_column_names_it(name: str) -> None:
    row = user({"organizationEmailAddresses": EMAIL, "city": "Delft"}, Privacy([name]))
    assert "organization_email_addresses" not in row
    assert EMAIL not in str(row)


def test_every_spelling_of_one_field_goes_with_it() -> None:
    for spelling in ("leadTag", "leadTags", "lead_tag"):
        assert user({"leadTag": "a", "leadTags": "b"}, Privacy([spelling]))["properties"] is None


def test_a_name_stands_for_the_field_of_the_last_visit_too_but_not_for_last_names() -> None:
    row = user(
        {"last_ip_number": "192.0.2.1", "lastName": "Bird", "last_city": "Delft"}, Privacy(["ip_number", "name"])
    )
    assert row.get("last_ip_number") is None
    assert (row["last_name"], row["last_city"]) == ("Bird", "Delft")


def test_a_value_that_fits_no_column_does_not_escape_into_the_properties() -> None:
    record = {"email": [EMAIL], "last_latitude": EMAIL, "PhoneNumber": {"of": EMAIL, "and": 1}}
    assert EMAIL not in str(user(record, Privacy(["email", "last_latitude", "PhoneNumber"])))
    row = user({"email": [EMAIL]}, Privacy([], ["email"], KEY))
    assert EMAIL not in str(row)
    assert len(row["email"]) == 64


def test_properties_and_custom_event_info_are_looked_into() -> None:
    record = {
        "event_id": "1.2",
        "Contact": {"E-Mail": EMAIL, "plan": "team", "all": [{"email": EMAIL}]},
        "customEventInfo": {"email": EMAIL, "plan": "team"},
        "type": {"name": "event"},
    }
    for privacy in (Privacy(["personal"]), Privacy([], ["personal"], KEY)):
        (row,) = Shapes("s", (), privacy).events([record], "1.2", "1.2", READ_AT)
        properties = list(property_rows(row))
        assert EMAIL not in str((row, properties))
        assert row["custom_event_info"]["plan"] == "team"
        assert row["record_type"] == "event", "the name of a type is nobody's name"
        assert {"customEventInfo.plan", "Contact"} <= {row["name"] for row in properties}


def test_a_hash_is_the_same_in_every_table_and_for_every_way_to_write_an_address() -> None:
    shapes = Shapes("s", (), Privacy([], ["email", "Customer ID"], KEY))
    rows = [
        shapes.user({"email": EMAIL, "Customer ID": "c-1"}, READ_AT),
        shapes.session({"email": f" {EMAIL.upper()} ", "Customer ID": "c-1"}, "1.2", READ_AT),
        *shapes.events([{"email": EMAIL.lower(), "Customer ID": "c-1"}], "1.2", "1.2", READ_AT),
    ]
    assert {row["email"] for row in rows} == {hashed(EMAIL.lower())}
    assert {row["properties"]["Customer ID"] for row in rows} == {hashed("c-1")}
    (property_row,) = property_rows(rows[2])
    assert property_row["value"] == hashed("c-1")
    assert user({"email": ""}, Privacy([], ["email"], KEY)).get("email") is None, "nothing stays nothing"


def test_case_matters_where_there_is_no_address() -> None:
    privacy = Privacy([], ["Customer ID"], KEY)
    assert privacy.digest("aB") != privacy.digest("Ab")
    assert privacy.digest("aB") != Privacy([], ["Customer ID"], KEY + "!").digest("aB")


def test_a_promoted_property_is_hashed_or_left_out_as_well() -> None:
    record = {"Customer ID": "c-1"}
    assert Shapes("s", ["Customer ID"], Privacy([], ["customer_id"], KEY)).user(record, READ_AT)[
        "customer_id"
    ] == hashed("c-1")
    assert "c-1" not in str(Shapes("s", ["Customer ID"], Privacy(["customer_id"])).user(record, READ_AT))


def test_an_event_keeps_its_key_whatever_of_it_is_hidden() -> None:
    records = [
        {"event_id": "1.2", "eventUnixTimestamp": "1", "title": title, "original_url": "https://a.example/?q=1"}
        for title in ("Home", "Home", "Pricing")
    ]

    def keys(privacy: Privacy) -> list[str]:
        return [row["event_key"] for row in Shapes("s", (), privacy).events(records, "1.2", "1.2", READ_AT)]

    assert keys(Privacy(["title", "original_url", "personal"])) == keys(OPEN)
    assert keys(Privacy([], ["title", "original_url"], KEY)) == keys(OPEN)
    assert len(set(keys(OPEN))) == 3


def test_a_field_that_is_named_itself_beats_the_preset_and_left_out_beats_hashed() -> None:
    record = {"email": EMAIL, "firstName": "Ada"}
    row = user(record, Privacy(["personal"], ["email"], KEY))
    assert (row["email"], row.get("first_name")) == (hashed(EMAIL.lower()), None)
    row = user(record, Privacy(["email"], ["personal"], KEY))
    assert (row.get("email"), row["first_name"]) == (None, hashed("Ada"))
    assert user(record, Privacy(["email"], ["email"], KEY)).get("email") is None


@pytest.mark.parametrize(
    "name", ["site", "user_id", "use_id", "session_id", "event_id", "Event Key", "LASTEVENT", "occurred_at", "read_at"]
)
def test_keys_and_times_of_activity_cannot_be_hidden(desk: Desk, name: str) -> None:
    for settings in ({"exclude_fields": [name]}, {"hash_fields": [name], "hash_key": KEY}):
        with pytest.raises(ConfigurationInvalid, match="cannot name"):
            desk.source(**settings)


def test_what_cannot_be_hashed_is_told_when_the_source_is_built(desk: Desk) -> None:
    with pytest.raises(ConfigurationInvalid, match="hash_key"):
        desk.source(hash_fields=["email"])
    with pytest.raises(ConfigurationInvalid, match="hash_key"):
        desk.source(hash_fields=["email"], hash_key="short")
    for name in ("latitude", "last_latitude", "customEventInfo"):
        with pytest.raises(ConfigurationInvalid, match="is no text"):
            desk.source(hash_fields=[name], hash_key=KEY)
    assert desk.source(exclude_fields=["latitude", "customEventInfo"])


def test_one_name_is_not_taken_for_its_letters(desk: Desk) -> None:
    desk.load(exclude_fields="ip_number")
    assert desk.rows("SELECT count(*) FROM users WHERE last_ip_number IS NOT NULL") == [(0,)]
    assert desk.rows("SELECT count(*) FROM users WHERE last_browser IS NOT NULL") != [(0,)]


@pytest.mark.usefixtures("loaded")
def test_after_a_resync_what_was_loaded_openly_is_hidden_too(desk: Desk) -> None:
    tables = [("users", "last_ip_number"), ("sessions", "ip_number")]
    for table, column in tables:
        assert desk.rows(f"SELECT count({column}) FROM {table}") != [(0,)]
    resync(desk.pipeline(), "2020-01-01", site=desk.world.site)
    desk.load_until_done(exclude_fields=["personal"])
    for table, column in tables:
        assert desk.rows(f"SELECT count({column}) FROM {table}") == [(0,)]
    desk.assert_equal_to_truth()


VALUES = st.recursive(
    st.sampled_from([EMAIL, f"<{EMAIL}>", 1, None, "", True]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(SPELLINGS), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(PERSONAL) | st.sampled_from(SPELLINGS), VALUES), st.booleans())
def test_whatever_is_sent_under_a_personal_name_is_gone(record: dict[str, Any], hashing: bool) -> None:
    privacy = Privacy([], ["personal"], KEY) if hashing else Privacy(["personal"])
    shapes = Shapes("s", (), privacy)
    of_visits = [
        {f"{visit}_{name.removeprefix('last_')}": value for name, value in record.items()}
        for visit in ("last", "first", "previous", "original")
    ]
    for sent in (record, *of_visits, {"customEventInfo": record}, {"title": record}, {"title": [record]}):
        rows: list[Any] = [shapes.user(sent, READ_AT), shapes.session(sent, "1.2", READ_AT)]
        rows += shapes.events([sent], "1.2", "1.2", READ_AT)
        rows += [found for row in rows[2:] for found in property_rows(row)]
        assert EMAIL not in str(rows)


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["7", 7, "x", {"a": 1}, [1], True]), max_size=8))
def test_what_is_not_named_stays_as_it_is(record: dict[str, Any]) -> None:
    other = Privacy(["no such field"])
    for hidden, whole in zip(rows_of(record, other), rows_of(record, OPEN), strict=True):
        assert hidden == whole


def rows_of(record: dict[str, Any], privacy: Privacy) -> Iterator[dict[str, Any]]:
    shapes = Shapes("s", ("Plan",), privacy)
    yield shapes.user(record, READ_AT)
    yield shapes.session(record, "1.2", READ_AT)
    yield from shapes.events([record], "1.2", "1.2", READ_AT)
