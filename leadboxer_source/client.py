"""The API's three read calls, each as the complete list of its records. Knows endpoints and envelopes, not time.

Facts of the API: https://developers.leadboxer.com/reference/users, /getsessions and /getevents. The envelopes of v1
are not published, so every shape that was ever seen is understood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol

from leadboxer_source import errors, settings
from leadboxer_source.rows import session_id_of
from leadboxer_source.settings import Settings
from leadboxer_source.transport import Reply, Transport

Record = dict[str, Any]

LISTING, SESSIONS, EVENTS = "leads", "sessions", "events"
"""Names of the endpoints; each has its own quota."""


class Days(NamedTuple):
    """Calendar days in UTC, both included."""

    first: date
    last: date


class Page(NamedTuple):
    """One page of the listing."""

    users: list[Record]
    token: str | None
    total: int | None
    server_ms: int | None


class Answer(NamedTuple):
    """The records of one parent. `gone`: the parent is unknown; `truncated`: there may be more than the API gives."""

    records: list[Record]
    truncated: bool = False
    gone: bool = False


class Api(Protocol):
    """What a slice needs of the API."""

    def page(self, days: Days, token: str | None, limit: int) -> Page:
        """Returns one page of the users last seen on these days, newest first."""

    def sessions(self, user_id: str, *, once: bool = False) -> Answer:
        """Returns all sessions of a user; `once`: no request is sent again if it fails."""

    def events(self, session_id: str, *, once: bool = False) -> Answer:
        """Returns all events of a session; `once`: no request is sent again if it fails."""


class Client:
    """`Api` over HTTP."""

    def __init__(self, transport: Transport, config: Settings) -> None:
        self._transport = transport
        self._site = config.site
        self._limits: dict[str, tuple[int, ...]] = {SESSIONS: settings.CHILD_LIMITS, EVENTS: settings.CHILD_LIMITS}
        self._filters = {"criteriaDisplayFilter": ";".join(config.display), **dict(config.filters)}

    def page(self, days: Days, token: str | None, limit: int) -> Page:
        """Returns one page of the users last seen on these days, newest first.

        Raises:
            RequestRefused: With a token: the token is dead. Without: the API does not take these parameters.
        """
        # `desc`: with `asc`, a user who becomes active during the listing would make a position token skip a row
        query: dict[str, str | int] = {
            "site": self._site,
            "timeField": "eventEsTimestamp",
            "criteriaTimeFilter": f"eventEsTimestamp|between|{days.first:%d/%m/%Y}-{days.last:%d/%m/%Y}",
            "timeZone": "Etc/UTC",
            "sortBy": "lastEvent|desc",
            "limit": limit,
            **self._filters,
        }
        if token is not None:
            query["nextToken"] = token
        # a token that was answered but not received may be spent: sending it again could skip a page
        reply = self._transport.get(LISTING, "leads", query, resend=token is None)
        users = records_of(reply, ("data", "resultsList", "leads", "users", "results", "items"))
        return Page(users, token_of(reply.body), total_of(reply.body), reply.server_ms)

    def sessions(self, user_id: str, *, once: bool = False) -> Answer:
        """Returns all sessions of a user; `once`: no request is sent again if it fails.

        Raises:
            NotLeadBoxer: None of them has an id.
        """
        answer = self._children(SESSIONS, {"leadId": user_id}, once=once)
        if answer.records and not any(map(session_id_of, answer.records)):
            raise errors.NotLeadBoxer("LeadBoxer's sessions have no session_id; upgrade leadboxer-source, or tell us.")
        return answer

    def events(self, session_id: str, *, once: bool = False) -> Answer:
        """Returns all events of a session; `once`: no request is sent again if it fails."""
        return self._children(EVENTS, {"sessionId": session_id}, once=once)

    def _children(self, endpoint: str, parent: Mapping[str, str], *, once: bool) -> Answer:
        """Asks with a high limit; a full answer may be cut, so it is asked for once more with a higher one."""
        limit, records = self._taken(endpoint, parent, once=once)
        if records is not None and len(records) >= limit:
            try:
                # the endpoint answers: what fails now may pass, or has to do with the limit
                more = self._records(endpoint, parent, limit * settings.CHILD_LIMIT_FACTOR, once=False)
            except (errors.RequestRefused, errors.ApiUnavailable, errors.NotLeadBoxer):
                more = None
            if more is None or len(more) < len(records):
                return Answer(records, truncated=True)  # the API takes no higher limit
            limit, records = limit * settings.CHILD_LIMIT_FACTOR, more
        if records is None:
            return Answer([], gone=True)
        return Answer(records, truncated=len(records) >= limit)

    def _taken(self, endpoint: str, parent: Mapping[str, str], *, once: bool) -> tuple[int, list[Record] | None]:
        """The records under the highest limit that the API takes, and that limit; once known, it is kept to."""
        limits = self._limits[endpoint]
        for limit in limits:
            try:
                records = self._records(endpoint, parent, limit, once=once)
            except errors.RequestRefused as refusal:
                if not refusal.may_be_for_its_limit or limit == limits[-1]:
                    raise
            else:
                self._limits[endpoint] = (limit,)
                return limit, records
        raise AssertionError("there is a limit to ask for")

    def _records(self, endpoint: str, parent: Mapping[str, str], limit: int, *, once: bool) -> list[Record] | None:
        """The records, or `None` if the API does not know the parent (merged away, or expired)."""
        try:
            query: dict[str, str | int] = {**parent, "limit": limit, "site": self._site}
            reply = self._transport.get(endpoint, f"leads/{endpoint}", query, resend=not once)
        except errors.RequestRefused as refusal:
            if refusal.is_for_unknown:
                return None
            raise
        return records_of(reply, ("data", endpoint, "resultsList", "results", "items"))


def records_of(reply: Reply, names: Sequence[str]) -> list[Record]:
    """Finds the list of records in an answer: the answer itself, or the first list under one of the names.

    Raises:
        NotLeadBoxer: There is no such list.
    """
    found = reply.body
    if isinstance(found, dict):
        name = next((name for name in names if isinstance(found.get(name), (list, dict))), None)
        if name is None and any(name in found for name in names):
            return []  # the name is there and holds null: no records
        inner = found.get(name) if name else None
        if isinstance(inner, dict):
            return records_of(Reply(inner, None), names)
        if inner is None:
            keys = ", ".join(sorted(map(str, found))[:10]) or "none"
            raise errors.NotLeadBoxer(f"An answer holds no list of records (its keys: {keys}); check base_url.")
        found = inner
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise errors.NotLeadBoxer("An answer is no list of records; check base_url and any proxy in between.")
    return found


def token_of(body: Any) -> str | None:
    """Finds the page token wherever it may stand in the envelope; `None` and `""` mean there is none."""
    tokens = (part.get(name) for part in _envelope(body) for name in ("nextToken", "next_token", "nextPageToken"))
    token = next((token for token in tokens if token not in (None, "")), None)
    return None if token is None else str(token)


def total_of(body: Any) -> int | None:
    """The number of users in the whole listing, where the envelope gives one."""
    totals = (part.get("total") for part in _envelope(body))
    return next((total for total in totals if type(total) is int and total >= 0), None)


def _envelope(body: Any) -> Iterator[dict[str, Any]]:
    """An answer and all that is nested in it, but for the records."""
    if isinstance(body, dict):
        yield body
        for inner in body.values():
            yield from _envelope(inner)
