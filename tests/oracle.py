"""The promise as something that can be searched: a world, a loader, and the sentence that coverage stands for.

    A session counts as loaded if and only if its last activity lies inside coverage; and what counts as loaded is
    loaded, whole.

A state machine lets things happen to the world and to the pipeline, in any order, and holds the sentence against the
destination after every run. Two loaders: `InMemory` runs the package without dlt and without sockets, some hundred
runs a second; `tests/test_oracle.py` has one that is dlt, HTTP and DuckDB.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import BaseAdapter

from leadboxer_source import errors
from leadboxer_source.client import EVENTS, SESSIONS, Answer, Client
from leadboxer_source.connection import Connection
from leadboxer_source.coverage import Coverage, Stretch, add, covers, holes, uncover
from leadboxer_source.lanes import Fetch, Lane
from leadboxer_source.report import Report
from leadboxer_source.rows import as_text, property_rows
from leadboxer_source.sandbox import Faults, Profile, Sandbox, World
from leadboxer_source.settings import DAY_MS, SETTLE_SECONDS, Settings
from leadboxer_source.slices import Slices
from leadboxer_source.state import COVERED, Remembered, record, remember
from leadboxer_source.transport import Transport
from tests.conftest import properties_of

BEGIN_S = int(datetime(2026, 10, 23, 20, 0, tzinfo=timezone.utc).timestamp())
"""Two days before the clocks of Amsterdam are set back."""


class HandClock:
    """A clock that only ever moves when somebody moves it; sleep costs nothing.

    It moves in eighths of a second, which a float holds exactly.
    """

    def __init__(self, now_s: float = BEGIN_S) -> None:
        self.now_s = float(now_s)

    @property
    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def time(self) -> float:
        return self.now_s

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.now_s += math.ceil(8 * seconds) / 8


class Order(NamedTuple):
    """What one run is asked to do. `dies_at`: the request at which it dies, and keeps nothing."""

    only: tuple[str, ...] = COVERED
    start_ms: int | None = None
    max_requests: int | None = None
    chunk_size: int = 2
    relist_days: int = 0
    dies_at: int | None = None


@dataclass
class Rows:
    """What a destination holds. A person: last event and tag. A session: its owner. An event: its whole identity."""

    users: dict[str, tuple[int | None, str | None]]
    sessions: dict[str, str]
    events: dict[str, Counter[tuple[Any, ...]]]
    properties: dict[str, Counter[tuple[Any, ...]]]


class Loader(Protocol):
    """Loads a world; keeps rows and state of a run together, or neither."""

    def run(self, order: Order) -> Report | None:
        """One run; `None` if it died."""

    def rows(self) -> Rows:
        """What was loaded."""

    def remembered(self, resource: str) -> Remembered:
        """What a resource remembers."""

    def forget(self, since_ms: int) -> None:
        """Has everything since then read again."""


class InMemory:
    """The package without dlt and sockets: real client, transport, lister, children and slice.

    Attributes:
        error: What ended the last run, if it died.
    """

    def __init__(self, server: Sandbox, site: str, clock: HandClock) -> None:
        self.error: errors.LeadBoxerError | None = None
        self.base_url = "http://127.0.0.1/v1"
        self._server, self._site, self._clock = server, site, clock
        self._state: dict[str, dict[str, Any]] = {name: {} for name in COVERED}
        self._tables: dict[str, dict[Any, dict[str, Any]]] = {name: {} for name in COVERED}
        self._scope = Settings(site, "key").scope

    def run(self, order: Order) -> Report | None:
        config = Settings(
            self._site,
            self._server.key,
            base_url=self.base_url,
            rate_limit=None,
            limiter_store=":memory:",
            start_ms=order.start_ms,
            max_minutes=None,
            max_requests=order.max_requests,
            chunk_size=order.chunk_size,
            relist_days=order.relist_days,
        )
        reports: list[Report] = []
        slices = Slices(config, self._clock, reports.append, self.connect)
        state = json.loads(json.dumps(self._state))
        batches: list[tuple[str, list[dict[str, Any]]]] = []
        try:
            for users in slices.users(lambda name: state[name], set(order.only)):
                time.sleep(0)  # lets the threads of a real connection work
                batches += self._cascade(slices, users, order.only)
        except errors.LeadBoxerError as error:
            self.error = error
            return None
        for table, rows in batches:
            if table in order.only:
                self._tables[table].update((_key_of(table, row), row) for row in rows)
        self._state = state
        return reports[-1]

    def rows(self) -> Rows:
        found = Rows({}, {}, defaultdict(Counter), defaultdict(Counter))
        for user in self._tables["users"].values():
            last = user.get("last_event_at")
            found.users[user["user_id"]] = (last and _ms(last), user.get("lead_tag"))
        for session in self._tables["sessions"].values():
            found.sessions[session["session_id"]] = session["user_id"]
        for row in self._tables["events"].values():
            found.events[row["session_id"]][_identity(row)] += 1
        for row in self._tables["properties"].values():
            found.properties[row["session_id"]][row["name"], row["value"]] += 1
        return found

    def remembered(self, resource: str) -> Remembered:
        return remember(self._state[resource], self._scope)

    def forget(self, since_ms: int) -> None:
        for name in COVERED:
            memory = self.remembered(name)
            covered = uncover(memory.covered, Stretch(since_ms, 2**62))
            record(self._state[name], self._scope, replace(memory, covered=covered))

    def connect(self, config: Settings, clock: Any) -> Connection:
        transport = Transport(config, clock)
        transport._session.mount("http://", _Wire(self._server, self._clock))
        client = Client(transport, config)
        lanes: dict[str, Lane] = {SESSIONS: _Lane(client.sessions), EVENTS: _Lane(client.events)}
        return Connection(client, lanes, transport, lambda: 0.0, transport.close)

    @staticmethod
    def _cascade(slices: Slices, users: Any, only: Sequence[str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """What dlt does with a chunk of users: hands it down as far as anybody wants it."""
        if users is None:
            return
        yield "users", users
        if not set(only) - {"users"}:
            return
        for sessions in slices.children.sessions(users):
            time.sleep(0)
            yield "sessions", sessions or []
            if sessions is None or not set(only) & {"events", "properties"}:
                continue
            for events in slices.children.events(sessions):
                time.sleep(0)
                yield "events", events or []
                yield "properties", [row for event in events or [] for row in property_rows(event)]


class _Wire(BaseAdapter):
    """Carries requests to a sandbox without a socket, and its faults back."""

    def __init__(self, server: Sandbox, clock: HandClock) -> None:
        super().__init__()
        self._server, self._clock = server, clock

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        assert request.url is not None
        url = urlsplit(request.url)
        params = dict(parse_qsl(url.query, keep_blank_values=True))
        noted, answer = self._server.answer(url.path, params, request.headers.get("x-api-key"))
        if noted.fault in {"reset", "timeout_after", "cut_body"}:
            raise requests.ConnectionError("reset")
        response = requests.Response()
        response.status_code, response.request, response.url = answer.status, request, request.url
        response._content = answer.body[: len(answer.body) // 2] if noted.fault == "torn_json" else answer.body
        response.headers.update({**answer.headers, "Date": formatdate(self._clock.time(), usegmt=True)})
        return response

    def close(self) -> None:
        pass


class _Lane:
    """Answers at once."""

    backlog = 0

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def submit(self, parent_id: str, *, once: bool = False) -> Future[Answer]:
        future: Future[Answer] = Future()
        try:
            future.set_result(self._fetch(parent_id, once=once))
        except errors.LeadBoxerError as error:
            future.set_exception(error)
        return future

    def seconds_for(self, requests_owed: int) -> float:
        return 0.0

    def has_room(self) -> bool:
        return True

    def close(self) -> None:
        pass


class Happening(NamedTuple):
    """Something that happens at the n-th request of a run."""

    at_request: int
    what: str
    who: int
    late_s: int


@dataclass
class Site:
    """A world behind a sandbox, and what happens between two requests."""

    clock: Any
    world: World
    server: Sandbox
    plan: list[Happening] = field(default_factory=list)
    seconds_a_request: float = 0.0
    dies_at: int | None = None
    listed: Coverage = field(default_factory=list)
    _count: int = 0

    @property
    def now_ms(self) -> int:
        return int(self.clock.time() * 1000)

    def happen(self, what: str, who: int, late_s: int = 0) -> None:
        """Lets something happen now; with `late_s`, the API shows it only so many seconds later."""
        world, users = self.world, sorted(self.world.user_ids())
        visible = self.now_ms + 1_000 * late_s if late_s else None
        if what == "stall":
            self.clock.advance(700)  # longer than a token lives
        elif what == "new" or not users:
            world.add_user(self.now_ms, events=1 + who % 3, visible_at_ms=visible)
        elif what == "return":
            world.return_user(users[who % len(users)], self.now_ms, events=1 + who % 2, visible_at_ms=visible)
        elif what == "go on":
            world.continue_session(users[who % len(users)], self.now_ms, visible_at_ms=visible)
        elif what == "overtake":
            world.continue_session(users[who % len(users)], self.now_ms - 1_000, visible_at_ms=self.now_ms + 200_000)
            world.continue_session(users[who % len(users)], self.now_ms)
        elif what == "tag":
            world.retag(users[who % len(users)], f"tag {who}")
        elif what == "merge" and len(users) > 1:
            winner = users[(who // 7) % len(users)]
            loser = users[(users.index(winner) + 1 + who % (len(users) - 1)) % len(users)]
            world.merge(loser, winner, self.now_ms)

    def watch(self, request: Any) -> None:
        """Is called before each answer."""
        self._count += 1
        self.clock.advance(self.seconds_a_request)
        for happening in self.plan:
            if happening.at_request == self._count:
                self.happen(happening.what, happening.who, happening.late_s)
        if self._count == self.dies_at:
            self.server.faults.fail_next(request.endpoint, "401")

    def run(self, loader: Loader, order: Order) -> Report | None:
        """One run, during which the plan happens."""
        self._count, self.dies_at = 0, order.dies_at
        self.server.clear_requests()
        report = loader.run(order)
        if report is not None:
            self.listed = add(self.listed, map(_days_of, self._listings()))
        return report

    def last_listing_ms(self) -> int:
        return max((int(request.at * 1000) for request in self._listings()), default=0)

    def _listings(self) -> list[Any]:
        return [request for request in self.server.requests if request.endpoint == "leads"]


class Oracle:
    """Holds a destination against a world."""

    def __init__(self, site: Site, loader: Loader) -> None:
        self.site, self.loader = site, loader

    def assert_sentence_holds(self) -> None:
        """What coverage calls loaded is loaded, row by row, and was listed."""
        rows, truth = self.loader.rows(), self.site.world.truth()
        memories = {name: self.loader.remembered(name) for name in COVERED}
        covered = {name: memory.covered for name, memory in memories.items()}
        aside = {name: set(memories[name].set_aside) for name in (SESSIONS, EVENTS)}
        # whoever is set aside may have become part of somebody else since
        unread = {self.site.world.present(user_id) for user_id in aside[SESSIONS]}
        owners = {user["use_id"]: user["lastEvent"] for user in truth.users}
        for name, stretches in covered.items():
            assert stretches == add([], stretches), f"{name}: not ascending, disjoint and apart"
            for lo, hi in stretches:
                assert not holes(self.site.listed, lo, hi), f"{name}: claimed a time that no kept run listed"
            newest = self.site.now_ms - int(SETTLE_SECONDS * 1000)
            assert not stretches or stretches[-1].hi <= newest, f"{name}: claimed before it was settled"
        for user_id, last in owners.items():
            if covers(covered["users"], last):
                assert user_id in rows.users, f"user {user_id} is covered and not loaded"
                assert rows.users[user_id][0] == last, f"user {user_id} is covered and stale"
        events, bags = _by_session(truth.events)
        for session in truth.sessions:
            session_id, owner, last = session["session_id"], session["use_id"], session["lastEvent"]
            if owner in unread:
                continue
            if covers(covered["sessions"], last):
                assert session_id in rows.sessions, f"session {session_id} is covered and not loaded"
                if covers(covered["sessions"], owners[owner]):
                    assert rows.sessions[session_id] == owner, f"session {session_id} has somebody else's owner"
            if session_id in aside[EVENTS]:
                continue
            if covers(covered["events"], last):
                assert rows.events[session_id] == events[session_id], f"events of {session_id} are not whole"
            if covers(covered["properties"], last):
                assert rows.properties[session_id] == bags[session_id], f"properties of {session_id} are not whole"

    def assert_equal_to_truth(self, start_ms: int | None) -> None:
        """Everybody last seen since the start is there, whole and once; and nobody is there who never was."""
        rows, truth = self.loader.rows(), self.site.world.truth()
        wanted = {user["use_id"]: user for user in truth.users if user["lastEvent"] >= (start_ms or 0)}
        for user_id, user in wanted.items():
            assert rows.users.get(user_id) == (user["lastEvent"], user.get("leadTag")), f"user {user_id}"
        events, bags = _by_session(truth.events)
        for session in truth.sessions:
            if session["use_id"] in wanted:
                session_id = session["session_id"]
                assert rows.sessions.get(session_id) == session["use_id"], f"session {session_id}"
                assert rows.events[session_id] == events[session_id], f"events of {session_id}"
                assert rows.properties[session_id] == bags[session_id], f"properties of {session_id}"
        known = {user["use_id"] for user in truth.users} | set(self.site.world.merged)
        assert set(rows.users) <= known, "a user who never was"
        assert set(rows.sessions) <= {session["session_id"] for session in truth.sessions}, "a session that never was"


def _by_session(
    records: list[dict[str, Any]],
) -> tuple[dict[str, Counter[tuple[Any, ...]]], dict[str, Counter[tuple[Any, ...]]]]:
    events: dict[str, Counter[tuple[Any, ...]]] = defaultdict(Counter)
    bags: dict[str, Counter[tuple[Any, ...]]] = defaultdict(Counter)
    for event in records:
        session_id = event["session_id"]
        events[session_id][
            event["event_id"], int(event["eventUnixTimestamp"]), event.get("title"), event.get("original_url")
        ] += 1
        bags[session_id].update((name, as_text(value)) for name, value in properties_of(event).items())
    return events, bags


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["event_id"], _ms(row["occurred_at"]), row.get("title"), row.get("original_url")


def _key_of(table: str, row: dict[str, Any]) -> Any:
    keys = {"users": "user_id", "sessions": "session_id", "events": "event_key"}
    return row[keys[table]] if table in keys else (row["event_key"], row["name"])


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _days_of(request: Any) -> Stretch:
    """The days of a listing, as the request names them."""
    first, last = request.params["criteriaTimeFilter"].split("|")[2].split("-")
    lo, hi = (datetime.strptime(day, "%d/%m/%Y").replace(tzinfo=timezone.utc) for day in (first, last))
    return Stretch(_ms(lo), _ms(hi + timedelta(days=1)))


__all__ = ["DAY_MS", "Faults", "HandClock", "Happening", "InMemory", "Oracle", "Order", "Profile", "Rows", "Site"]
