"""A small LeadBoxer without HTTP, in which time is a whole number and anything may happen between two requests.

The slice, the lister, the children and the coverage are the real ones; only the API and the clock are modelled.
Whoever uses a site does so at random while it is read, and the list they are read from moves under the reader: a page
token is a position, as in the worst reading of the contract.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta, timezone

from leadboxer_source.client import EVENTS, LISTING, SESSIONS, Answer, Days, Page, Record
from leadboxer_source.connection import Connection
from leadboxer_source.lanes import Fetch, Lane
from leadboxer_source.settings import DAY_MS, Settings
from leadboxer_source.slices import Slices
from leadboxer_source.state import COVERED

TICK_MS = DAY_MS // 8
START_MS = 20_000 * DAY_MS
SITE = "0" * 32


@dataclass
class Session:
    """A visit: when something happened in it."""

    session_id: str
    owner: str
    times: list[int]


@dataclass
class World:
    """What is true, and the API that shows it."""

    dice: random.Random
    page_size: int = 1
    restless: float = 0.0
    energy: int = 0
    now_ms: int = START_MS
    sessions: dict[str, Session] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    merges: float = 0.2
    _serial: int = 0

    def last_event(self, user_id: str) -> int:
        return max(session.times[-1] for session in self.sessions.values() if session.owner == user_id)

    def users(self) -> list[str]:
        return sorted({session.owner for session in self.sessions.values()})

    def come(self, at_ms: int, user_id: str | None = None) -> None:
        """Somebody new, or somebody known, begins a session."""
        self._serial += 1
        owner = user_id or f"{at_ms}.{self._serial}"
        browser = owner.partition(".")[2]
        session_id = f"{self._serial}.{browser}"
        self.sessions[session_id] = Session(session_id, owner, [at_ms])

    def happen(self) -> None:
        """Something happens: a new user, a return, a session that goes on, or two identities that turn out one."""
        what = "merge" if self.dice.random() < self.merges else self.dice.choice(["new", "return", "return", "go on"])
        users = self.users()
        if what == "new" or not users:
            self.come(self.now_ms)
        elif what == "return":
            self.come(self.now_ms, self.dice.choice(users))
        elif what == "go on":
            self.dice.choice(list(self.sessions.values())).times.append(self.now_ms)
        else:
            winner, loser = self.dice.choice(users), self.dice.choice(users)
            for session in self.sessions.values():
                if session.owner == loser:
                    session.owner = winner
            self.come(self.now_ms, winner)

    def pass_time(self) -> None:
        """A request takes a moment, in which the world may move."""
        self.now_ms += self.dice.choice([1, 1, 1_000, 300_000]) if self.restless else 1
        while self.energy > 0 and self.dice.random() < self.restless:
            self.energy -= 1
            self.happen()

    def page(self, days: Days, token: str | None, limit: int) -> Page:
        self.pass_time()
        self.requests[LISTING] += 1
        midnight = time(tzinfo=timezone.utc)
        lo = datetime.combine(days.first, midnight).timestamp() * 1000
        hi = datetime.combine(days.last + timedelta(days=1), midnight).timestamp() * 1000
        last_events: dict[str, int] = {}
        for session in self.sessions.values():
            last_events[session.owner] = max(session.times[-1], last_events.get(session.owner, 0))
        found = sorted(((last, user) for user, last in last_events.items() if lo <= last < hi), reverse=True)
        start = int(token or 0)
        rows: list[Record] = [
            {"use_id": user, "lastEvent": last} for last, user in found[start : start + self.page_size]
        ]
        return Page(rows, str(start + self.page_size), None, self.now_ms)

    def sessions_of(self, user_id: str, *, once: bool = False) -> Answer:
        self.pass_time()
        self.requests[SESSIONS] += 1
        found = [session for session in self.sessions.values() if session.owner == user_id]
        # a 404 would be asked for once more in the next run; an empty answer tells less
        return Answer([{"session_id": s.session_id, "use_id": s.owner, "lastEvent": s.times[-1]} for s in found])

    def events_of(self, session_id: str, *, once: bool = False) -> Answer:
        self.pass_time()
        self.requests[EVENTS] += 1
        session = self.sessions[session_id]
        return Answer(
            [
                {"event_id": session_id, "session_id": session_id, "eventUnixTimestamp": str(at), "title": str(number)}
                for number, at in enumerate(session.times)
            ]
        )


class _Api:
    def __init__(self, world: World) -> None:
        self.page, self.sessions, self.events = world.page, world.sessions_of, world.events_of


class _Lane:
    """Answers at once."""

    backlog = 0

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def submit(self, parent_id: str, *, once: bool = False) -> Future[Answer]:
        future: Future[Answer] = Future()
        future.set_result(self._fetch(parent_id))
        return future

    def seconds_for(self, requests_owed: int) -> float:
        return 0.0

    def has_room(self) -> bool:
        return True

    def close(self) -> None:
        pass


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def time(self) -> float:
        return self._world.now_ms / 1000

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        raise AssertionError("nothing in the model waits")


class _Traffic:
    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.failing: dict[str, str] = {}
        self.waited_seconds: defaultdict[str, float] = defaultdict(float)


@dataclass
class Loader:
    """Runs slices over a world as dlt would, and keeps the rows they bring."""

    world: World
    start_ms: int | None = None
    settle_seconds: float = 0.001
    chunk_size: int = 2
    sessions: dict[str, str] = field(default_factory=dict)
    events: set[tuple[str, int]] = field(default_factory=set)
    complete: bool = False
    _state: dict[str, dict[str, object]] = field(default_factory=lambda: {name: {} for name in COVERED})

    def run(self, max_requests: int | None = None, crash_after: int | None = None) -> None:
        """One run; with `crash_after` it dies after so many chunks, and nothing of it is kept."""
        config = Settings(
            SITE,
            "key",
            start_ms=self.start_ms if self.start_ms is not None else START_MS - 60 * DAY_MS,
            max_minutes=None,
            max_requests=max_requests,
            chunk_size=self.chunk_size,
            settle_seconds=self.settle_seconds,
        )
        traffic = _Traffic()
        traffic.requests = self.world.requests
        self.world.requests.clear()

        def connect(*_: object) -> Connection:
            lanes: dict[str, Lane] = {SESSIONS: _Lane(self.world.sessions_of), EVENTS: _Lane(self.world.events_of)}
            return Connection(_Api(self.world), lanes, traffic, lambda: 0.0, lambda: None)

        def watch(report: object) -> None:
            self.complete = bool(getattr(report, "complete", False))

        slices = Slices(config, _Clock(self.world), watch, connect)
        state = {name: dict(value) for name, value in self._state.items()}
        sessions, events = dict(self.sessions), set(self.events)
        for number, users in enumerate(slices.users(lambda name: state[name], set(COVERED))):
            if crash_after is not None and number >= crash_after:
                return
            if users is None:
                continue
            for chunk in slices.children.sessions(users):
                sessions.update((row["session_id"], row["user_id"]) for row in chunk or ())
                for rows in slices.children.events(chunk or []):
                    for row in rows or ():
                        events.add((row["session_id"], int(row["occurred_at"].timestamp() * 1000 + 0.5)))
        self._state, self.sessions, self.events = state, sessions, events

    def missing(self) -> list[str]:
        """What is true and not loaded, of users seen since the start."""
        start = self.start_ms or 0
        wanted = {user for user in self.world.users() if self.world.last_event(user) >= start}
        told = []
        for session in self.world.sessions.values():
            if session.owner not in wanted:
                continue
            if self.sessions.get(session.session_id) != session.owner:
                told.append(f"session {session.session_id} of {session.owner}")
            told += [
                f"event {session.session_id} at {at}"
                for at in session.times
                if (session.session_id, at) not in self.events
            ]
        return told


@dataclass(frozen=True)
class Bias:
    """What a search looks for; everything that is not given is left to the dice.

    Attributes:
        page_size: Rows on a page.
        restless: How likely something happens in the time of one request.
        merges: Share of merges in what happens.
        span_days: Over how many days before the load the users were last seen.
        users: How many users there are at the most.
    """

    page_size: int | None = None
    restless: float | None = None
    merges: float = 0.2
    span_days: int = 8
    users: int = 12


def lose(seed: int, bias: Bias = Bias()) -> list[str]:
    """Builds a world from a seed, loads it while it moves, then once more in quiet; returns what is missing then."""
    dice = random.Random(seed)
    world = World(dice, page_size=bias.page_size or dice.choice([1, 1, 2, 3, 50]), merges=bias.merges)
    for _ in range(dice.randint(2, bias.users)):
        at = START_MS - dice.randint(0, 8 * bias.span_days) * TICK_MS
        known = world.users()
        world.come(at, dice.choice(known) if known and dice.random() < 0.4 else None)
    start = START_MS - dice.randint(1, 8) * DAY_MS if dice.random() < 0.3 else None
    loader = Loader(world, start_ms=start, chunk_size=dice.choice([1, 2, 5]))
    world.restless = bias.restless or dice.choice([0.02, 0.05, 0.1, 0.2, 0.4])
    for _ in range(dice.randint(1, 6)):
        # bounded: of a world that is faster than the API nothing can be promised
        world.energy = dice.randint(0, 12)
        loader.run(
            max_requests=dice.choice([None, None, 1, 3, 8, 20]),
            crash_after=dice.choice([None, None, None, 0, 1, 2, 5]),
        )
        world.now_ms += dice.choice([0, TICK_MS, DAY_MS])
        for _ in range(dice.choice([0, 1, 4])):
            world.now_ms += 1
            world.happen()
    world.restless = 0.0
    world.now_ms += TICK_MS
    for _ in range(60):
        loader.run()
        if loader.complete:
            return loader.missing()
    return ["never complete"]
