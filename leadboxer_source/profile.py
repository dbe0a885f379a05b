"""The whole profile of one lead, read back from a destination: the user, their visits, what happened in each.

Visits are stitched: they belong to their present owner, whoever it was when an event was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import orjson
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase

from leadboxer_source.errors import LeadBoxerError
from leadboxer_source.tables import TABLES

Row = dict[str, Any]

USER_COLUMNS = (
    "site", "user_id", "email", "first_name", "last_name", "full_name", "title", "role", "phone_number",
    "organization_name", "organization_domain", "organization_industry_name", "organization_city",
    "organization_country", "company_name", "last_most_likely_company", "last_city", "last_country_name",
    "first_seen_at", "last_event_at", "last_session_id", "total_number_visits", "lead_score", "es_score", "lead_tag",
    "account_tag", "original_referrer", "leadcard_url", "properties",
)  # fmt: skip
SESSION_COLUMNS = (
    "session_id", "started_at", "last_event_at", "channel", "referrer", "entry_root_url", "utm_source", "utm_campaign",
    "city", "country_name", "browser", "platform",
)  # fmt: skip
EVENT_COLUMNS = ("event_key", "session_id", "occurred_at", "title", "root_url", "referrer")
PROPERTY_COLUMNS = ("event_key", "name", "value")
_MOST_NAMED = 10


class NoSuchUser(LeadBoxerError):
    """The destination holds no user, or no single one, of that id or e-mail address."""


@dataclass(frozen=True)
class Hit:
    """An event: when, what, where, the custom properties that it carries, and which of them are new or changed."""

    at: datetime | None
    title: str
    page: str
    properties: dict[str, str | None]
    changed: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Visit:
    """A session with its hits, oldest first.

    Attributes:
        session_id: Its id.
        started_at: When it began, as far as that is known.
        ended_at: Its last event.
        channel: How the user came.
        came_from: Campaign or referrer; empty if neither is known.
        entry: Landing page.
        place: City and country.
        device: Browser and operating system.
        hits: What happened.
    """

    session_id: str
    started_at: datetime | None
    ended_at: datetime | None
    channel: str
    came_from: str
    entry: str
    place: str
    device: str
    hits: tuple[Hit, ...]

    @property
    def seconds(self) -> float:
        """How long it lasted: from its start to its last event."""
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else 0.0


@dataclass(frozen=True)
class Profile:
    """A lead.

    Attributes:
        user_id: Their id.
        name: Person, else company, else that nobody knows.
        facts: What is known, by label, in the order to show it.
        properties: Custom properties, by name.
        visits: Oldest first.
        merged_from: The id that was asked for, if it was merged into this user.
        link: The lead in the LeadBoxer App.
    """

    user_id: str
    name: str
    facts: dict[str, str]
    properties: dict[str, str]
    visits: tuple[Visit, ...]
    merged_from: str = ""
    link: str = field(default="", repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Returns it in plain types; times are ISO 8601 in UTC."""
        plain: dict[str, Any] = orjson.loads(orjson.dumps(asdict(self)))
        return plain


def read(sql: SqlClientBase[Any], who: str, site: str | None = None) -> Profile:
    """Reads a lead from a destination, through dlt's client of its SQL.

    Args:
        sql: An open client; placeholders are dlt's `%s`.
        who: User id or e-mail address.
        site: Dataset id, where the destination holds several.

    Raises:
        NoSuchUser: There is none, or there are several.
    """
    user, merged_from = _find(sql, who.strip(), site)
    site, user_id = user["site"], user["user_id"]
    session, event, carried = (_table(sql, name) for name in ("sessions", "events", "properties"))
    mine = f"JOIN {session} s ON s.site = x.site AND s.session_id = x.session_id WHERE s.site = %s AND s.user_id = %s"
    sessions = _rows(sql, SESSION_COLUMNS, f"{session} x WHERE x.site = %s AND x.user_id = %s", site, user_id)
    events = _rows(sql, EVENT_COLUMNS, f"{event} x {mine}", site, user_id)
    properties = _rows(sql, PROPERTY_COLUMNS, f"{carried} x {mine}", site, user_id)
    return profile_of(user, sessions, events, properties, merged_from)


def profile_of(
    user: Row, sessions: Sequence[Row], events: Sequence[Row], properties: Sequence[Row], merged_from: str = ""
) -> Profile:
    """Puts the rows of one lead together."""
    carried: dict[str, dict[str, str | None]] = {}
    for row in sorted(properties, key=lambda row: str(row["name"])):
        carried.setdefault(row["event_key"], {})[row["name"]] = row["value"]
    hits: dict[str, list[Hit]] = {}
    for row in sorted(events, key=lambda row: (_sortable(row["occurred_at"]), row["event_key"])):
        hit = Hit(
            _utc(row["occurred_at"]), row["title"] or "", row["root_url"] or "", carried.get(row["event_key"], {})
        )
        hits.setdefault(row["session_id"], []).append(hit)
    visits = [_visit(row, hits.get(row["session_id"], [])) for row in sessions]
    visits.sort(key=lambda visit: (_sortable(visit.started_at), visit.session_id))
    visits = _with_changes(visits)
    link = user["leadcard_url"] or ""
    return Profile(
        user["user_id"],
        _name_of(user),
        _facts(user),
        _bag(user["properties"]),
        tuple(visits),
        merged_from,
        link if link.startswith("https://") else "",
    )


def _with_changes(visits: list[Visit]) -> list[Visit]:
    """Notes which properties changed with a hit: each event repeats those of the user."""
    seen: dict[str, str | None] = {}
    noted = []
    for visit in visits:
        hits = []
        for hit in visit.hits:
            news = {name: value for name, value in hit.properties.items() if name not in seen or seen[name] != value}
            seen.update(news)
            hits.append(replace(hit, changed=news))
        noted.append(replace(visit, hits=tuple(hits)))
    return noted


def _find(sql: SqlClientBase[Any], who: str, site: str | None) -> tuple[Row, str]:
    """The user's row, and the id that was merged into it if that was asked for."""
    column = "lower(x.email)" if "@" in who else "x.user_id"
    asked = who.lower() if "@" in who else who
    found = _users(sql, column, asked, site)
    if "@" in who:
        if not found:
            raise NoSuchUser("No loaded user has this e-mail address: name a user id, or run `leadboxer sync` first.")
        found = [user for user in found if not _winner(sql, user)] or found
        if len(found) > 1:
            raise NoSuchUser(f"Several users have this e-mail address, name one of them: {_list(found)}.")
        return found[0], ""
    if len(found) > 1:
        raise NoSuchUser(f"Several datasets have this user, name one with --site: {_list(found, 'site')}.")
    winner = _winner(sql, found[0] if found else {"user_id": who, "site": site, "last_session_id": None})
    if winner and (merged := _users(sql, "x.user_id", winner, site)):
        return merged[0], who
    if not found:
        raise NoSuchUser("No loaded user has this id: check it, or run `leadboxer sync` first.")
    return found[0], ""


def _users(sql: SqlClientBase[Any], column: str, value: str, site: str | None) -> list[Row]:
    users = _rows(sql, USER_COLUMNS, f"{_table(sql, 'users')} x WHERE {column} = %s", value)
    return [user for user in users if site is None or user["site"] == site]


def _winner(sql: SqlClientBase[Any], user: Row) -> str:
    """Whom a user was merged into: the owner of their sessions, if they have none themselves; else empty."""
    sessions, events = _table(sql, "sessions"), _table(sql, "events")
    if _rows(sql, ("session_id",), f"{sessions} x WHERE x.user_id = %s", user["user_id"]):
        return ""
    owners = _rows(sql, ("user_id",), f"{sessions} x WHERE x.session_id = %s", user["last_session_id"] or "")
    owners += _rows(
        sql,
        ("user_id",),
        f"{sessions} x JOIN {events} e ON e.site = x.site AND e.session_id = x.session_id WHERE e.user_id = %s",
        user["user_id"],
    )
    return next((str(row["user_id"]) for row in owners if row["user_id"] not in (None, user["user_id"])), "")


def _rows(sql: SqlClientBase[Any], columns: Sequence[str], rest: str, *parameters: Any) -> list[Row]:
    """Rows of a query over a table called `x`; none where that table was never loaded."""
    query = f"SELECT {', '.join(f'x.{column}' for column in columns)} FROM {rest}"  # noqa: S608 - names are constants
    try:
        found = sql.execute_sql(query, *parameters)
    except DatabaseUndefinedRelation:
        return []
    return [dict(zip(columns, row, strict=True)) for row in found or ()]


def _table(sql: SqlClientBase[Any], name: str) -> str:
    """A table, or what stands for it where it is files: they hold a row as often as it was read; the last counts."""
    table = sql.make_qualified_table_name(name)
    if type(sql).__name__ != "FilesystemSqlClient":  # its import would need DuckDB, which reads the files
        return table
    key = ", ".join(TABLES[name]["primary_key"])
    return f"(FROM {table} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY read_at DESC) = 1)"


def _list(users: list[Row], column: str = "user_id") -> str:
    newest = sorted(users, key=lambda user: _sortable(user["last_event_at"]), reverse=True)
    more = f" and {len(newest) - _MOST_NAMED} more" if len(newest) > _MOST_NAMED else ""
    return ", ".join(str(user[column]) for user in newest[:_MOST_NAMED]) + more


def _visit(row: Row, hits: list[Hit]) -> Visit:
    times = [hit.at for hit in hits if hit.at]
    started, ended = _utc(row["started_at"]), _utc(row["last_event_at"])
    campaign = " / ".join(filter(None, (row["utm_source"], row["utm_campaign"])))
    return Visit(
        session_id=row["session_id"],
        started_at=started or min(times, default=ended),
        ended_at=max([*times, *([ended] if ended else [])], default=started),
        channel=row["channel"] or "unknown",
        came_from=campaign or row["referrer"] or "",
        entry=row["entry_root_url"] or "",
        place=", ".join(filter(None, (row["city"], row["country_name"]))),
        device=" on ".join(filter(None, (row["browser"], row["platform"]))),
        hits=tuple(hits),
    )


def _name_of(user: Row) -> str:
    person = user["full_name"] or " ".join(filter(None, (user["first_name"], user["last_name"])))
    company = user["organization_name"] or user["company_name"] or user["last_most_likely_company"]
    if person:
        return str(person)
    return f"Somebody at {company}" if company else str(user["email"] or "Somebody unidentified")


def _facts(user: Row) -> dict[str, str]:
    """What is known, by label; what is not known is left out."""
    company = user["organization_name"] or user["company_name"] or user["last_most_likely_company"]
    score = user["lead_score"] if user["lead_score"] is not None else user["es_score"]
    facts: dict[str, Any] = {
        "E-mail": user["email"],
        "Position": user["title"] or user["role"],
        "Telephone": user["phone_number"],
        "Company": " · ".join(filter(None, (company, user["organization_domain"]))),
        "Industry": user["organization_industry_name"],
        "Company's place": ", ".join(filter(None, (user["organization_city"], user["organization_country"]))),
        "Last seen from": ", ".join(filter(None, (user["last_city"], user["last_country_name"]))),
        "First seen": moment(_utc(user["first_seen_at"])),
        "Last seen": moment(_utc(user["last_event_at"])),
        "First came from": user["original_referrer"],
        "Score": None if score is None else f"{score:g}",
        "Tags": ", ".join(filter(None, (user["lead_tag"], user["account_tag"]))),
        "User id": user["user_id"],
    }
    return {label: str(value) for label, value in facts.items() if value not in (None, "")}


def _bag(properties: Any) -> dict[str, Any]:
    """The custom properties of a row: JSON, which some destinations give back as text."""
    bag = orjson.loads(properties) if isinstance(properties, (str, bytes)) else properties
    return {
        str(name): value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in sorted((bag or {}).items())
    }


def moment(at: datetime | None) -> str:
    """A time as text, to the minute; empty if it is not known."""
    return f"{at:%Y-%m-%d %H:%M}" if at else ""


def _utc(at: Any) -> datetime | None:
    """A destination's time in UTC; one without a zone is in UTC already."""
    if at is None:
        return None
    moment_at: datetime = at if isinstance(at, datetime) else datetime.fromisoformat(str(at).replace("Z", "+00:00"))
    return moment_at.replace(tzinfo=timezone.utc) if moment_at.tzinfo is None else moment_at.astimezone(timezone.utc)


def _sortable(at: Any) -> float:
    """Times for sorting; an unknown one is the last."""
    known = _utc(at)
    return known.timestamp() if known else float("inf")
