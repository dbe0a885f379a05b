"""Constants, each with the loss it prevents, and the parsing of what a user configures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import pendulum

from leadboxer_source.errors import ConfigurationInvalid

BASE_URL = "https://api.leadboxer.com/v1"
"""The canonical address of v1; `https://data.leadboxer.com/v1` serves the same paths."""

RATE_LIMIT = "10/minute"
"""What each endpoint allows (https://developers.leadboxer.com/docs/rate-limit-exceeded); more only earns 429s."""

DAY_MS = 86_400_000
"""The grain of the API's time filter: a listing cannot be narrower than a day."""

SETTLE_SECONDS = 300.0
"""How long an event may stay invisible after it happened. Claimed earlier, it would never be asked for."""

RETENTION_DAYS = 367
"""Documents expire 366 days after their last write. Older windows are empty: listing them is a waste of requests."""

OVERLAP_BEFORE_DAYS = 1
"""Days listed before a window's first. Without it, a server that cuts days in a western zone hides the first hours."""

OVERLAP_AFTER_DAYS = 2
"""Days listed after a window's last: one in case `between` leaves its last day out, one in case days end early in
another zone. Without both, the newest users of a window could be claimed unseen."""

PAGE_LIMIT = 500
"""Users asked for on a page. The documented default of 50 costs ten times the requests."""

FALLBACK_PAGE_LIMIT = 50
"""The documented page size, for an API that refuses a larger one."""

PAGE_GUARD = 20_000
"""Pages after which a listing is called endless. Without it, a server that never ends its list never ends a run."""

REPEATED_PAGES = 3
"""Pages in a row that bring nobody new and so end a list whose tokens do not. One could be users moving in front."""

TOKEN_SECONDS = 600.0
"""Life of a page token. An empty page after that may be its death, not the end of the list."""

LISTING_RESTARTS = 5
"""How often a window is listed anew when its token chain breaks, before the run gives up."""

WINDOW_USERS = 10_000
"""Users a window should hold. Larger ones make a restart dear, smaller ones pay for the overlap too often."""

CHILD_LIMITS = (1_000, 500, 100, 50)
"""Rows asked for in one answer of sessions or events, which have no pages: the first that the API takes. A full answer
may have been cut."""

CHILD_LIMIT_FACTOR = 10
"""How much more is asked for when an answer was full."""

CHUNK_SIZE = 50
"""Users handed out between two looks at the budgets, at the most: what was begun when one is spent is finished."""

MAX_MINUTES = 15.0
"""Length of a slice. dlt commits a run whole or not at all, so this is what a crash can cost."""

MAX_LOOKS = 12
"""Last looks a run takes before it gives up claiming: on a site that is faster than the API nothing can be promised."""

MAX_PASSES = 12
"""Passes over a window of several pages until two agree; see `listing.py`."""

LARGE_WINDOW_PAGES = 20
"""Pages from which on two quiet passes in a row stand for agreement: in so long a listing somebody always moves."""

EVENTS_AHEAD = 2_000
"""Sessions that may queue for their events before more users are handed out; it bounds what a crash costs."""

LANE_WORKERS = 4
"""Requests under way at once to one endpoint. One would leave the quota unused whenever the API is slow."""

ATTEMPTS = 7
"""Tries of one request. With the waits between (1, 2, 4, ... seconds) they outlast a minute's trouble."""

FIRST_ATTEMPTS = 3
"""Tries where the address looks wrong and has never answered: that should be told in seconds, not minutes."""

QUOTA_WAIT_SECONDS = 900.0
"""The longest wait for quota that is sat out. A longer one (a day's quota) ends the slice with what was read."""

MAX_FAILURES = 20
"""Users in a row whose children may fail for good and be set aside. More is an outage: committing would hide it."""

MAX_DENIED = 2
"""Users in a row who may be refused (403) before anybody was read. More means that the key may read nobody."""

MAX_UNKNOWN = 50
"""Children that the API does not know which are set aside to be asked for once more: users merge all the time."""

MAX_SET_ASIDE = 200
"""Children kept in state to be asked again. It bounds the state; a run that would need more claims less."""

MAX_FORGOTTEN = 2_000
"""People whose digests the state has room for (40 KB): some destinations keep the state in a column of 64 KB."""

CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
"""Time-outs of one request. Without them a silent server holds a run for ever."""

BODY_SECONDS = 300.0
"""How long a body may take to arrive. Without it a server that sends a byte now and then does the same."""

IN_PROCESS_ONLY = ":memory:"
"""The limiter's store that nobody shares."""

DISPLAY = ("company", "person", "unidentified")
"""Everybody. The API's default when the filter is absent is not published, so it is always sent."""

LISTING_FILTERS = frozenset(
    {
        "search",
        "criteriaTextFilter",
        "criteriaNumberFilter",
        "criteriaFieldFilter",
        "criteriaExitLinkFilter",
        "criteriaLeadscoreFilter",
        "usePresetExclusionList",
    }
)
"""Parameters of the listing that a user may set. The others carry the cursor: overriding them would break coverage."""


PLACEHOLDERS = {"site": ("your-dataset-id", "dataset id"), "api_key": ("your-api-key", "API key")}
"""What `.dlt/example.secrets.toml` has in the place of a user's own, and what belongs there."""


PERIOD_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0, "month": 30 * 86_400.0}
"""Periods of which a limit may be, by LeadBoxer's names."""


@dataclass(frozen=True)
class RateLimit:
    """So many requests in any window of `period_seconds`, to one endpoint."""

    requests: int
    period_seconds: float

    def __str__(self) -> str:
        unit = next((name for name, seconds in PERIOD_SECONDS.items() if seconds == self.period_seconds), None)
        return f"{self.requests}/{unit or f'{self.period_seconds:g} s'}"


@dataclass(frozen=True)
class Settings:
    """What one source was configured with, checked and parsed. Instants are epoch milliseconds."""

    site: str
    api_key: str = field(repr=False)
    base_url: str = BASE_URL
    rate_limit: RateLimit | None = RateLimit(10, 60.0)
    limiter_store: str | None = field(default=None, repr=False)  # may hold a password
    start_ms: int | None = None
    end_ms: int | None = None
    max_minutes: float | None = MAX_MINUTES
    max_requests: int | None = None
    chunk_size: int = CHUNK_SIZE
    settle_seconds: float = SETTLE_SECONDS
    relist_days: int = 0
    display: tuple[str, ...] = DISPLAY
    filters: tuple[tuple[str, str], ...] = ()
    promote: tuple[str, ...] = ()
    exclude_fields: tuple[str, ...] = ()
    hash_fields: tuple[str, ...] = ()
    hash_key: str = field(default="", repr=False)

    @property
    def is_narrowed(self) -> bool:
        """Whether the listing leaves some users out."""
        return self.scope != self.site

    @property
    def scope(self) -> str:
        """Names the dataset and the listing filters: what is covered under one says nothing about another."""
        filters = [f"{name}={value}" for name, value in self.filters]
        if self.display != DISPLAY:
            filters.insert(0, f"display={';'.join(self.display)}")
        return "&".join([self.site, *filters])


LEAST = {"max_minutes": 0.0, "max_requests": 1, "chunk_size": 1, "settle_seconds": 0.0, "relist_days": 0}
"""Numbers that a setting may not be below; whole ones are of whole numbers."""

_TEXTS = ("site", "api_key", "base_url", "hash_key", "limiter_store")


def parse_number(value: Any, name: str, setting: str = "") -> Any:
    """Reads a number, or its digits as templates send them; `None` is no limit.

    Args:
        value: What was given.
        name: Under which name.
        setting: What it is, if that has another name.

    Raises:
        ConfigurationInvalid: It is no number, not a whole one where that is wanted, or below its `LEAST`.
    """
    if value is None:
        return None
    least = LEAST[setting or name]
    kind, kind_told = (int, "whole number") if isinstance(least, int) else (float, "number")
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or isinstance(value, bool) or (kind is int and not isinstance(value, str) and number != value):
        raise ConfigurationInvalid(f"{name} cannot be read: write a {kind_told}.")
    if not number >= least:
        raise ConfigurationInvalid(f"{name} is {value}: it must be {least:.0f} or more.")
    return number


def parse(now_ms: int, **given: Any) -> Settings:
    """Checks the arguments of `leadboxer_source`.

    Args:
        now_ms: The time, to tell whether a date is in the future.
        **given: All of them, but for those that are no configuration.

    Raises:
        ConfigurationInvalid: One of them cannot be used.
    """
    for name in _TEXTS:
        if given[name] is not None and not isinstance(given[name], str):
            raise ConfigurationInvalid(f"{name} cannot be read: write a text.")
    start_ms, end_ms = parse_range(given.pop("start_date"), given.pop("end_date"), now_ms)
    parsed = {
        **{name: parse_number(given[name], name) for name in LEAST},
        "site": parse_site(given["site"], given["api_key"]),
        "api_key": parse_key(given["api_key"]),
        "base_url": parse_base_url(given["base_url"]),
        "rate_limit": parse_rate_limit(given["rate_limit"]),
        "limiter_store": parse_limiter_store(given["limiter_store"]),
        "display": parse_display(given["display"]),
        "filters": parse_filters(given["filters"]),
        "promote": parse_names(given["promote"], "promote"),
        "exclude_fields": parse_names(given["exclude_fields"], "exclude_fields"),
        "hash_fields": parse_names(given["hash_fields"], "hash_fields"),
        "hash_key": (given["hash_key"] or "").strip(),
    }
    return Settings(start_ms=start_ms, end_ms=end_ms, **{**given, **parsed})


def parse_rate_limit(rate: str) -> RateLimit | None:
    """Parses `"10/minute"`, `"10/second"` or `"unlimited"` (`None`).

    Raises:
        ConfigurationInvalid: It is none of these.
    """
    text = str(rate).strip().lower()
    if text == "unlimited":
        return None
    match = re.fullmatch(r"(\d+)\s*/\s*(second|minute|hour|day)", text)
    if not match or int(match[1]) == 0:
        raise ConfigurationInvalid(
            f"rate_limit {rate!r} is not a rate: write it like '10/minute' or '10/second', or 'unlimited'."
        )
    return RateLimit(int(match[1]), PERIOD_SECONDS[match[2]])


def parse_instant(value: object, name: str) -> int | None:
    """Parses a date or a time, also as text, in UTC where it names no zone, to epoch milliseconds.

    Raises:
        ConfigurationInvalid: The text is no date.
    """
    if value is None or value == "":
        return None
    parsed: object = value
    if isinstance(value, str):
        with suppress(ValueError):
            parsed = pendulum.parse(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        parsed = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    if not isinstance(parsed, datetime):
        raise ConfigurationInvalid(f"{name} {value!r} is not a date: write it like '2026-05-31'.")
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=timezone.utc)
    return round(parsed.timestamp() * 1000)


def parse_range(
    start_date: str | date | datetime | None, end_date: str | date | datetime | None, now_ms: int
) -> tuple[int | None, int | None]:
    """Parses from when and up to when users are wanted.

    Raises:
        ConfigurationInvalid: One is no date, or nobody can have been seen between them.
    """
    start_ms, end_ms = parse_instant(start_date, "start_date"), parse_instant(end_date, "end_date")
    # the source goes by LeadBoxer's clock, as this machine's may be hours wrong: here it can tell no more than the day
    if start_ms is not None and start_ms > now_ms + DAY_MS:
        raise ConfigurationInvalid(f"start_date {str(start_date)!r} is in the future: nobody was seen since then.")
    if start_ms is not None and end_ms is not None and end_ms <= start_ms:
        raise ConfigurationInvalid(f"end_date {str(end_date)!r} is not after start_date {str(start_date)!r}.")
    return start_ms, end_ms


def parse_site(site: str, api_key: str = "") -> str:
    """Checks a dataset id: 32 hexadecimal digits, in lower case.

    Args:
        site: The dataset id.
        api_key: The key, to tell whether the two were swapped.

    Raises:
        ConfigurationInvalid: It has another form.
    """
    _refuse_placeholder("site", site)
    form = re.compile(r"[0-9a-f]{32}")
    if not form.fullmatch(site.strip().lower()):
        if form.fullmatch(api_key.strip().lower()):
            raise ConfigurationInvalid("site and api_key are swapped: the dataset id has 32 letters and digits.")
        raise ConfigurationInvalid(
            "site is not a LeadBoxer dataset id: copy the 32 letters and digits from https://app.leadboxer.com/datasets."
        )
    return site.strip().lower()


def parse_key(api_key: str) -> str:
    """Checks that the key can be sent in a header.

    Raises:
        ConfigurationInvalid: It is empty or holds characters that no header can.
    """
    _refuse_placeholder("api_key", api_key)
    key = api_key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationInvalid(
            "api_key is empty or has characters no key has: "
            "copy it again from the LeadBoxer App (Integrations, Data, API key)."
        )
    return key


def _refuse_placeholder(setting: str, value: str) -> None:
    placeholder, wanted = PLACEHOLDERS[setting]
    if value.strip() == placeholder:
        raise ConfigurationInvalid(f"{setting} is still the placeholder {placeholder}: put your {wanted} in its place.")


def parse_base_url(base_url: str) -> str:
    """Checks the API's address: https, or plain http to this machine.

    Raises:
        ConfigurationInvalid: It is no address, or would send the key in the clear.
    """
    parts = urlsplit(base_url.strip())
    if not parts.hostname or parts.scheme not in {"http", "https"}:
        raise ConfigurationInvalid(f"base_url is not a web address: write it like '{BASE_URL}'.")
    if parts.scheme == "http" and not _is_this_machine(parts.hostname):
        raise ConfigurationInvalid("base_url must begin with https://, or the key would travel in the clear.")
    if parts.query or parts.fragment or parts.username:
        raise ConfigurationInvalid(f"base_url must be a bare address like '{BASE_URL}', with nothing added to it.")
    return base_url.strip().rstrip("/")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # a name such as 127.0.0.1.example.com is anybody's


def parse_names(names: str | Iterable[str] | None, setting: str) -> tuple[str, ...]:
    """Reads a list of names; a text is one name, not its letters.

    Raises:
        ConfigurationInvalid: It is something else.
    """
    listed = (names,) if isinstance(names, str) else _listed(names)
    if listed is None:
        raise ConfigurationInvalid(f'{setting} cannot be read: write a list like ["Customer ID"].')
    return listed


def _listed(texts: Any) -> tuple[str, ...] | None:
    """Several texts; `None` if it is something else."""
    listed = tuple(texts or ()) if texts is None or isinstance(texts, Iterable) else (texts,)
    return listed if all(isinstance(text, str) for text in listed) else None


def parse_limiter_store(store: str | None) -> str | None:
    """Checks where processes share the key's budget: a file, `:memory:`, or the address of a Redis or PostgreSQL.

    Raises:
        ConfigurationInvalid: It is the address of something else, or none that can be read.
    """
    scheme, is_address, _ = (store or "").partition("://")
    if is_address and scheme not in {"redis", "rediss", "postgresql", "postgres"}:
        raise ConfigurationInvalid(
            "limiter_store is a file, ':memory:', or an address that begins with redis:// or postgresql://."
        )
    try:
        _ = is_address and urlsplit(store or "").port
    except ValueError:
        # whoever parses it later would quote a piece of the password
        raise ConfigurationInvalid(
            "limiter_store is not an address: in its password write / as %2F, # as %23, and ? as %3F."
        ) from None
    return store or None


def parse_display(display: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    """Checks which kinds of users to list, in the API's order.

    Raises:
        ConfigurationInvalid: One of them is none of the API's three.
    """
    if display is None:
        return DISPLAY
    # dlt hands on a list in the environment as the text that it is
    listed = re.split(r"[;,\s\[\]\"]+", display) if isinstance(display, str) else _listed(display)
    kinds = set(filter(None, listed or ()))
    if not kinds or not kinds <= set(DISPLAY):
        raise ConfigurationInvalid(f"display takes any of {', '.join(DISPLAY)}, joined by ';'.")
    return tuple(kind for kind in DISPLAY if kind in kinds)


def parse_filters(filters: Mapping[str, object] | None) -> tuple[tuple[str, str], ...]:
    """Checks additional parameters of the listing (`criteriaTextFilter` and its like), sorted by name.

    Raises:
        ConfigurationInvalid: A parameter is not one that a user may set.
    """
    if not isinstance(filters or {}, Mapping):
        raise ConfigurationInvalid('filters cannot be read: write a table like {"search": "acme"}.')
    unknown = set(filters or {}) - LISTING_FILTERS
    if unknown:
        raise ConfigurationInvalid(
            f"filters cannot set {', '.join(sorted(unknown))}: use any of {', '.join(sorted(LISTING_FILTERS))}."
        )
    return tuple(sorted((name, str(value)) for name, value in (filters or {}).items()))
