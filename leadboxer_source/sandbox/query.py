"""The listing's parameters: which leads they select. Raises `Malformed` for what the API would refuse."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from leadboxer_source.sandbox.profile import Profile
from leadboxer_source.sandbox.world import World

AMSTERDAM = "Europe/Amsterdam"
FIELDS = ("eventEsTimestamp", "first_session_unix_timestamp")
KINDS = ("company", "person", "unidentified")


class Malformed(ValueError):
    """A parameter is missing or cannot be read."""


class TooLarge(Malformed):
    """A limit is above the largest."""


class Query(NamedTuple):
    """A listing: whose leads, seen when, in which order."""

    lo_ms: int
    hi_ms: int
    by_first: bool
    ascending: bool
    kinds: frozenset[str]
    matches: Callable[[dict[str, Any]], bool] | None

    def run(self, world: World, now_ms: int) -> list[str]:
        """Returns the ids of the leads it selects now, in its order."""
        found = world.listing(self.lo_ms, self.hi_ms, by_first=self.by_first)
        if len(self.kinds) < len(KINDS):
            found = [user_id for user_id in found if world.kind(user_id) in self.kinds]
        if self.matches is not None:
            found = [user_id for user_id in found if self.matches(world.user_record(user_id, now_ms))]
        return found[::-1] if self.ascending else found


def read(params: Mapping[str, str], profile: Profile, now_s: float) -> Query:
    """Reads the parameters of a listing.

    Raises:
        Malformed: The API would refuse them.
    """
    if "criteriaTimeFilter" not in params:
        raise Malformed("Required parameter 'criteriaTimeFilter' is not present")
    if profile.strict_time_field and "timeField" not in params:
        raise Malformed("Required parameter 'timeField' is not present")
    lenient = profile.malformed_filter == "ignore"
    zone = _zone(AMSTERDAM if profile.ignores_time_zone else params.get("timeZone", AMSTERDAM))
    field = params.get("timeField", FIELDS[0])
    if field not in FIELDS:
        raise Malformed(f"Unknown timeField '{field}'")
    today = datetime.fromtimestamp(now_s, zone).date()
    try:
        first, last = _days(params["criteriaTimeFilter"], today, profile)
        lo_ms, hi_ms = _midnight_ms(first, zone), _midnight_ms(last + timedelta(days=1), zone)
    except Malformed:
        if not lenient:
            raise
        lo_ms, hi_ms = 0, 2**62
    try:
        matches = _matcher(params)
    except Malformed:
        if not lenient:
            raise
        matches = None
    default = KINDS if profile.default_display == "all" else KINDS[:2]
    kinds = frozenset(params["criteriaDisplayFilter"].split(";") if "criteriaDisplayFilter" in params else default)
    if not kinds <= set(KINDS) and not lenient:
        raise Malformed("Unknown value in 'criteriaDisplayFilter'")
    sort = params.get("sortBy", "lastEvent|desc")
    if not re.fullmatch(r"(lastEvent|_score)\|(asc|desc)", sort) and not lenient:
        raise Malformed("Unknown 'sortBy'")
    return Query(lo_ms, hi_ms, field == FIELDS[1], sort.endswith("asc"), kinds, matches)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise Malformed(f"Unknown timeZone '{name}'") from None


def _days(text: str, today: date, profile: Profile) -> tuple[date, date]:
    """The first and last calendar day of a time filter, both included."""
    parts = text.split("|")
    if len(parts) != 3 or parts[0] not in FIELDS:
        raise Malformed("Malformed 'criteriaTimeFilter'")
    _, operator, value = parts
    if operator in {"exactly", "lessthan"} and value.isdigit():
        back = today - timedelta(days=int(value))
        return back, back if operator == "exactly" else today
    span = re.fullmatch(r"(\d\d)/(\d\d)/(\d{4})-(\d\d)/(\d\d)/(\d{4})", value)
    if operator != "between" or not span:
        raise Malformed("Malformed 'criteriaTimeFilter'")
    try:
        first = date(int(span[3]), int(span[2]), int(span[1]))
        last = date(int(span[6]), int(span[5]), int(span[4]))
    except ValueError:
        raise Malformed("Malformed date in 'criteriaTimeFilter'") from None
    return first, last if profile.range_end == "inclusive" else last - timedelta(days=1)


def _midnight_ms(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def _matcher(params: Mapping[str, str]) -> Callable[[dict[str, Any]], bool] | None:
    """The filters on what a record holds, as one test; `None` if there are none."""
    tests: list[Callable[[dict[str, Any]], bool]] = []
    search = params.get("search", "*").lower()
    if search != "*":
        tests.append(lambda record: any(search in str(value).lower() for value in record.values()))
    if "criteriaLeadscoreFilter" in params:
        score = _integer(params["criteriaLeadscoreFilter"], "criteriaLeadscoreFilter")
        tests.append(lambda record: int(record["esScore"]) > score)
    tests += [_text_test(part) for part in params.get("criteriaTextFilter", "").split(",") if part]
    return (lambda record: all(test(record) for test in tests)) if tests else None


def _text_test(text: str) -> Callable[[dict[str, Any]], bool]:
    parts = text.split("|")
    operators: dict[str, Callable[[str, str], bool]] = {
        "contains": lambda found, wanted: wanted in found,
        "doesnotcontain": lambda found, wanted: wanted not in found,
        "is": lambda found, wanted: found == wanted,
        "isnot": lambda found, wanted: found != wanted,
    }
    if len(parts) != 3 or parts[1] not in operators:
        raise Malformed("Malformed 'criteriaTextFilter'")
    field, operator, wanted = parts[0], operators[parts[1]], parts[2].lower()
    return lambda record: operator(str(record.get(field, "")).lower(), wanted)


def _integer(text: str, name: str) -> int:
    if not text.lstrip("-").isdigit():
        raise Malformed(f"'{name}' is not a number")
    return int(text)
