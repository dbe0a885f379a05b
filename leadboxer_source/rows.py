"""From the API's records to rows: pure. What fits no column stays in the row's `properties`; no value is lost."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from leadboxer_source.clock import Clock
from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.privacy import OPEN, Privacy
from leadboxer_source.tables import DROPPED, EVENT_FIELDS, INFERRED_PREFIXES, SESSION_FIELDS, USER_FIELDS, Field, snake

Record = Mapping[str, Any]
Row = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST_MS = 253_402_300_799_999
_API_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_FIRST_EVENT_WITHIN_MS = 60_000
_LAST_ACTIVITY = ("lastEvent", "eventEsTimestamp", "eventUnixTimestamp")


class Misfit(ValueError):
    """A value does not fit the type of its column."""


def instant(epoch_ms: int) -> datetime:
    """Returns epoch milliseconds as a time in UTC, exact to the millisecond."""
    return _EPOCH + timedelta(milliseconds=epoch_ms)


class ReadingClock:
    """Stamps rows with the time of their reading: never twice the same, so that the later of two readings wins."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = instant(0)

    def stamp(self) -> datetime:
        """Returns the time, or a moment after the last stamp where the clock stands still."""
        now = instant(int(self._clock.time() * 1000))
        self._last = max(now, self._last + timedelta(microseconds=1))
        return self._last


def epoch_ms(value: Any) -> int:
    """Reads epoch milliseconds, sent as a number or as its digits.

    Raises:
        Misfit: The value is neither, or lies outside the years 1970 to 9999.
    """
    found = _integer(value)
    if not 0 <= found <= _LAST_MS:
        raise Misfit
    return found


def last_activity_ms(record: Record) -> int | None:
    """Returns the time of a user's or session's last event in epoch milliseconds, or `None` if it is not known."""
    for name in _LAST_ACTIVITY:
        try:
            return epoch_ms(record.get(name))
        except Misfit:
            continue
    return None


def number_or_none(value: Any) -> int | None:
    """Reads a whole number, sent as such or as its digits; `None` where there is none."""
    try:
        return _integer(value)
    except Misfit:
        return None


def identifier(record: Record, name: str) -> str | None:
    """Returns an id as text, or `None` where the record has none that can be asked for."""
    value = record.get(name)
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "" else None


def session_id_of(session: Record) -> str | None:
    """Returns a session's id, or `None` where it has none; a user's record calls it `last_session_id`."""
    return identifier(session, "session_id") or identifier(session, "last_session_id")


def session_activity_ms(session: Record) -> int | None:
    """Returns the time of a session's last event in epoch milliseconds, or `None` if it is not known.

    Without `lastEvent`, the time may be that of the first one: moments after the start, with which the ids of a
    browser's sessions begin.
    """
    last = last_activity_ms(session)
    if last is None or session.get("lastEvent"):
        return last
    start = number_or_none((session_id_of(session) or "").partition(".")[0])
    return None if start is not None and 0 <= last - start < _FIRST_EVENT_WITHIN_MS else last


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise Misfit
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[+-]?\d{1,19}\s*", value, re.ASCII):
            raise Misfit
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise Misfit
    return value


def _double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise Misfit
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise Misfit
    try:
        number = float(value)
        is_same = _to_as_many_digits(number, Decimal(value)) if isinstance(value, str) else number == value
    except (ValueError, ArithmeticError):
        raise Misfit from None
    if not math.isfinite(number) or not is_same:
        raise Misfit
    return number


def _to_as_many_digits(number: float, sent: Decimal) -> bool:
    """Whether a number, written with as many digits as were sent, is what was sent."""
    return Decimal(f"{number:.{len(sent.as_tuple().digits) - 1}e}") == sent


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and len(value) == 1 and isinstance(name := value.get("name"), str):
        return name  # `type` is sent as {"name": "user"}
    if isinstance(value, (bool, int, float)):
        return orjson.dumps(value).decode()
    raise Misfit


def _timestamp(value: Any) -> datetime:
    return instant(epoch_ms(value))


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Misfit
    return value


def _json(value: Any) -> Any:
    if not isinstance(value, (dict, list)):
        raise Misfit
    return value or None


READERS: dict[str, Callable[[Any], Any]] = {
    "text": _text,
    "bigint": _integer,
    "double": _double,
    "timestamp": _timestamp,
    "bool": _bool,
    "json": _json,
}


class _Known(NamedTuple):
    """Where a field goes; of several spellings the one with the lowest rank wins."""

    column: str
    rank: int
    read: Callable[[Any], Any]


Fillable = Callable[[str, Any], Any]
"""Reads a value for a column that is not declared, or raises `Misfit` if it must not be put there."""


def _anything(_: str, value: Any) -> Any:
    """Any column, and any value in it that is not nested."""
    if isinstance(value, (dict, list)):
        raise Misfit
    return value


class Shape:
    """Turns records of one kind into rows.

    Args:
        fields: The fields that have a column.
        reserved: Columns that no inferred field may take.
        promote: Custom properties that get a text column as well.
        privacy: What is left out or hashed.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        reserved: Iterable[str],
        promote: Sequence[str] = (),
        privacy: Privacy = OPEN,
    ) -> None:
        self._known = {
            name.lower(): _Known(field.column, rank, READERS[field.kind])
            for field in fields
            for rank, name in enumerate(field.names)
        }
        self._taken = {*reserved, *(field.column for field in fields)}
        self._promoted = _promoted(promote, self._taken)
        self._taken.update(self._promoted.values())
        self._inferred = lru_cache(maxsize=10_000)(self._inferred_column)
        self._guard = privacy.guard(fields)
        self._fillable: Fillable = _anything

    def fill(self, columns: Fillable | None) -> None:
        """Lets unknown fields and promoted properties fill these columns; `None` for any."""
        self._fillable = columns or _anything

    def row(self, record: Record) -> Row:
        """Returns the columns of a record and, under `properties`, all that has none."""
        row: Row = {}
        ranks: dict[str, tuple[int, str]] = {}
        bag: Row = {}
        record = self._guard(record)
        for name, value in record.items():
            lower = name.lower()
            known = self._known.get(lower)
            if known is not None:
                if value == "" or value is None:
                    continue  # the API's way of saying that it does not know
                self._take(row, ranks, bag, record, name, known)
            elif lower not in DROPPED and lower != "site":
                column = self._inferred(name)
                says_nothing = value == "" or value is None
                if column is None or not (says_nothing or self._put(row, column, value)):
                    bag[name] = value
                if name in self._promoted:
                    self._put(row, self._promoted[name], as_text(value))
        row["properties"] = bag or None
        return row

    def _take(
        self, row: Row, ranks: dict[str, tuple[int, str]], bag: Row, record: Record, name: str, known: _Known
    ) -> None:
        """Puts a known field into its column, or into the bag if it does not fit or another spelling has it."""
        try:
            value = known.read(record[name])
        except Misfit:
            bag[name] = record[name]
            return
        holder = ranks.get(known.column)
        if holder is None or known.rank < holder[0]:
            if holder is not None and row[known.column] != value:
                bag[holder[1]] = record[holder[1]]
            row[known.column] = value
            ranks[known.column] = (known.rank, name)
        elif row[known.column] != value:
            bag[name] = record[name]

    def _inferred_column(self, name: str) -> str | None:
        """The column of an unknown field that follows the API's own naming."""
        if not _API_NAME.fullmatch(name) or not name.lower().startswith(INFERRED_PREFIXES):
            return None
        column = snake(name)
        return None if column in self._taken else column

    def _put(self, row: Row, column: str, value: Any) -> bool:
        """Fills a column of the row if it is free and takes the value."""
        if column in row:
            return False
        try:
            row[column] = value if value is None else self._fillable(column, value)
        except Misfit:
            return False
        return True


def _promoted(promote: Sequence[str], taken: set[str]) -> dict[str, str]:
    columns = {name: snake(name) if name else "" for name in promote}
    wrong = [name for name, column in columns.items() if column in taken or not column or column.startswith("_dlt")]
    if wrong or len(set(columns.values())) < len(columns):
        raise ConfigurationInvalid(
            f"promote cannot make columns of {', '.join(map(repr, wrong or promote))}: "
            "each needs a column name of its own that no table has yet."
        )
    return columns


def as_text(value: Any) -> str | None:
    """Returns a property's value as text: a text as it is, `None` for null, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def json_type(value: Any) -> str:
    """Returns the name that JSON has for the value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", list: "array"}
    return names.get(type(value), "object")


class Shapes:
    """Makes the rows of one dataset.

    Args:
        site: Dataset id.
        promote: Custom properties that get a text column as well.
        privacy: What is left out or hashed.
    """

    def __init__(self, site: str, promote: Sequence[str] = (), privacy: Privacy = OPEN) -> None:
        reserved = ("site", "event_key", "properties", "read_at")
        self.site = site
        self._user = Shape(USER_FIELDS, reserved, promote, privacy)
        self._session = Shape(SESSION_FIELDS, reserved, promote, privacy)
        self._event = Shape(EVENT_FIELDS, reserved, promote, privacy)
        # an event keeps its key whatever of it is left out
        self._whole_event = Shape(EVENT_FIELDS, reserved) if privacy.hides else self._event

    def fill(self, columns: Mapping[str, Fillable]) -> None:
        """Lets unknown fields and promoted properties of the named tables fill the columns given for them."""
        self._user.fill(columns.get("users"))
        self._session.fill(columns.get("sessions"))
        self._event.fill(columns.get("events"))

    def user(self, record: Record, read_at: datetime) -> Row:
        """Returns the row of a user."""
        return {"site": self.site, **self._user.row(record), "read_at": read_at}

    def session(self, record: Record, user_id: str, read_at: datetime) -> Row:
        """Returns the row of a session; an owner that the record does not name is the user it was asked for."""
        return {"site": self.site, "user_id": user_id, **self._session.row(record), "read_at": read_at}

    def events(
        self, records: Iterable[Record], session_id: str, user_id: str | None, read_at: datetime
    ) -> Iterator[Row]:
        """Yields the rows of a session's events.

        Equal hits are told apart by their place among equals, in the order in which the server took them and, as an
        answer may come in any, by all that they carry. None of that is part of the key itself, or an event that
        changes later would be there twice.
        """
        rows: list[Row] = []
        equals: dict[bytes, list[tuple[datetime, bytes, int]]] = {}
        for number, record in enumerate(records):
            row = {"site": self.site, "session_id": session_id, "user_id": user_id, **self._event.row(record)}
            whole = row if self._whole_event is self._event else self._whole_event.row(record)
            url = whole.get("original_url") or whole.get("root_url")
            identity = orjson.dumps(
                [row["session_id"], row.get("event_id"), row.get("occurred_at"), whole.get("title"), url]
            )
            equals.setdefault(identity, []).append((whole.get("hit_at") or _EPOCH, _content(record), number))
            rows.append(row)
        for identity, found in equals.items():
            for place, (*_, number) in enumerate(sorted(found)):
                key = hashlib.blake2b(identity + b"#%d" % place, digest_size=16).hexdigest()
                rows[number].update(event_key=key, read_at=read_at)
        yield from rows


def _content(record: Record) -> bytes:
    """All that a record holds, in one order; where two are changed alike, the first difference remains the same."""
    lasting = {name: value for name, value in record.items() if name.lower() not in DROPPED}
    return orjson.dumps(lasting, option=orjson.OPT_SORT_KEYS)


def property_rows(event: Row) -> Iterator[Row]:
    """Yields one row for each property that an event's row carries; those of `customEventInfo` are named after it."""
    bag = event.get("properties") or {}
    info = event.get("custom_event_info")
    nested = info if isinstance(info, dict) else {}
    for name, value in [*((f"customEventInfo.{name}", value) for name, value in nested.items()), *bag.items()]:
        yield {
            "site": event["site"],
            "event_key": event["event_key"],
            "name": name,
            "session_id": event.get("session_id"),
            "value": as_text(value),
            "value_type": json_type(value),
            "read_at": event["read_at"],
        }
