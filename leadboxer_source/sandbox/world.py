"""The sandbox's data: a seeded dataset in which things can be made to happen."""

from __future__ import annotations

import uuid
from bisect import bisect_left, insort
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from leadboxer_source.sandbox import people
from leadboxer_source.sandbox.chance import moment
from leadboxer_source.sandbox.records import (
    Event,
    Record,
    Session,
    User,
    event_records,
    session_record,
    user_record,
)

DAY_MS = 86_400_000
SITE = "07bacbd9d46a4e26b58b15d69f69250f"
_PAUSE_MS = 3_600_000
"""Between two visits of a user there is at least so much."""


class Truth(NamedTuple):
    """Everything that is visible, as records that the API would send."""

    users: list[Record]
    sessions: list[Record]
    events: list[Record]


class World:
    """A dataset.

    Args:
        seed: The same seed makes the same people; what they do depends on the time too.
        users: How many users there are.
        days: Over how many days before `now_ms` they were last seen.
        now_ms: Epoch milliseconds of the newest activity there can be.
        site: Dataset id.
        sessions_per_user: Mean number of sessions.
        events_per_session: Mean number of events.
        all_in_one_day: Puts everybody's last activity within the last day.
        hostile: Makes it as hard to load as it can be: custom properties with colliding, reserved and empty names and
            with values whose type drifts, events that share an id or are alike in all, visits that begin before their
            first event, and around the clock. People who look around want none of it.
    """

    def __init__(
        self,
        seed: int = 1,
        users: int = 100,
        days: float = 30,
        now_ms: int = 1_795_000_000_000,
        site: str = SITE,
        sessions_per_user: float = 2.0,
        events_per_session: float = 3.0,
        *,
        all_in_one_day: bool = False,
        hostile: bool = True,
    ) -> None:
        self.site = site
        self.seed = seed
        self.hostile = hostile
        self.merged: dict[str, str] = {}
        self._days = 1 if all_in_one_day else days
        self._now_ms = now_ms
        self._sessions_per_user, self._events_per_session = sessions_per_user, events_per_session
        self._users: dict[str, User] = {}
        self._sessions: dict[str, Session] = {}
        self._pending: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        for number in range(users):
            user = self._make(number)
            self._users[user.user_id] = user
        self._by_last = sorted((user.last_ms, user.user_id) for user in self._users.values())

    # what the API needs

    def user_ids(self) -> list[str]:
        """Returns the ids of the users that exist."""
        return list(self._users)

    def listing(self, lo_ms: int, hi_ms: int, *, by_first: bool = False) -> list[str]:
        """Returns the ids of those last (or first) seen in `[lo_ms, hi_ms)`, newest activity first."""
        if by_first:
            found = [(u.last_ms, u.user_id) for u in self._users.values() if lo_ms <= u.first_ms < hi_ms]
            return [user_id for _, user_id in sorted(found, reverse=True)]
        lo, hi = bisect_left(self._by_last, (lo_ms, "")), bisect_left(self._by_last, (hi_ms, ""))
        return [user_id for _, user_id in reversed(self._by_last[lo:hi])]

    def last_ms(self, user_id: str) -> int:
        """Returns when a user was last active."""
        return self._users[user_id].last_ms

    def has_user(self, user_id: str) -> bool:
        """Tells whether the user exists: was not merged away, did not expire."""
        return user_id in self._users

    def present(self, user_id: str) -> str:
        """Returns who a user is by now: whoever they were merged into, if they were."""
        while user_id in self.merged:
            user_id = self.merged[user_id]
        return user_id

    def kind(self, user_id: str) -> str:
        """Returns `company`, `person` or `unidentified`."""
        return people.kind(self._users[user_id].number)

    def user_record(self, user_id: str, now_ms: int) -> Record:
        """Returns a user as the API sends it at the given time."""
        user = self._users[user_id]
        # one who never changed is not made to remember
        history = self._make_history(user) if user.history is None else user.history
        return user_record(user, self._visitor(user), history, self.site, now_ms)

    def session_records(self, user_id: str) -> list[Record] | None:
        """Returns a user's sessions, newest first; `None` if the user is unknown."""
        user = self._users.get(user_id)
        if user is None:
            return None
        newest_first = sorted(self._history(user), key=lambda session: session.last_ms, reverse=True)
        return [session_record(session, self.site) for session in newest_first]

    def event_records(self, session_id: str) -> list[Record] | None:
        """Returns a session's events, newest first; `None` if the session is unknown.

        Sessions become known when their user's are asked for, as there is no other way to learn their ids.
        """
        session = self._sessions.get(session_id)
        return None if session is None else event_records(session, self.site)[::-1]

    def settle_until(self, now_ms: int) -> None:
        """Applies those changes whose time to become visible has come."""
        while self._pending and self._pending[0][0] <= now_ms:
            self._pending.pop(0)[2]()

    def truth(self) -> Truth:
        """Returns everything that is visible."""
        users = list(self._users.values())
        sessions = [session for user in users for session in self._history(user)]
        return Truth(
            [self.user_record(user.user_id, self._now_ms) for user in users],
            [session_record(session, self.site) for session in sessions],
            [record for session in sessions for record in event_records(session, self.site)],
        )

    # what may happen; with `visible_at_ms`, the API shows it only from then on

    def add_user(self, at_ms: int, events: int = 1, visible_at_ms: int | None = None) -> str:
        """Somebody new, last active at `at_ms`."""
        number = 1_000_000 + self._next()
        start_ms = at_ms - 1_000 * (events - 1)
        user_id = f"{start_ms}.{number}"

        def change() -> None:
            user = User(number, user_id, str(number), start_ms, at_ms)
            user.history = []
            self._users[user_id] = user
            insort(self._by_last, (at_ms, user_id))
            self._visit(user, user_id, start_ms, at_ms, events)

        return self._happen(visible_at_ms, change, user_id)

    def return_user(self, user_id: str, at_ms: int, events: int = 1, visible_at_ms: int | None = None) -> str:
        """A known user begins another session, last active at `at_ms`; returns its id."""
        suffix = self._users[user_id].suffix
        start_ms = at_ms - 1_000 * (events - 1)
        session_id = f"{start_ms}{self._next():03}.{suffix}"

        def change() -> None:
            self._visit(self._users[self.present(user_id)], session_id, start_ms, at_ms, events)

        return self._happen(visible_at_ms, change, session_id)

    def continue_session(
        self, user_id: str, at_ms: int, session_id: str | None = None, visible_at_ms: int | None = None
    ) -> str:
        """One more event at `at_ms` in a session, the newest if none is named; returns its id."""
        session = max(self._history(self._users[user_id]), key=lambda session: session.last_ms)
        session = self._sessions[session_id] if session_id else session

        def change() -> None:
            event_id = f"{at_ms}{self._next():03}.{session.user.suffix}"
            session.events.append(Event(event_id, at_ms, len(session.events)))
            self._touch(session.user)

        return self._happen(visible_at_ms, change, session.session_id)

    def merge(self, loser_id: str, winner_id: str, at_ms: int, visible_at_ms: int | None = None) -> None:
        """Two users turn out to be one, by an event of the winner at `at_ms`; the loser's sessions are the winner's."""

        def change() -> None:
            loser, winner = self._users[loser_id], self._users[winner_id]
            for session in self._history(loser):
                session.user = winner
            winner.history = [*self._history(winner), *self._history(loser)]
            winner.first_ms = min(winner.first_ms, loser.first_ms)
            self.merged[loser_id] = winner_id
            self._forget(loser)
            self._visit(winner, f"{at_ms}{self._next():03}.{winner.suffix}", at_ms, at_ms, 1)

        self._happen(visible_at_ms, change, "")

    def retag(self, user_id: str, tag: str, visible_at_ms: int | None = None) -> None:
        """A change that does not move the user's last event."""
        self._happen(visible_at_ms, lambda: self._users[user_id].changes.update(leadTag=tag), "")

    def expire(self, user_id: str, visible_at_ms: int | None = None) -> None:
        """The user's record and sessions disappear."""

        def change() -> None:
            for session in self._history(self._users[user_id]):
                del self._sessions[session.session_id]
            self._forget(self._users[user_id])

        self._happen(visible_at_ms, change, "")

    def _happen(self, visible_at_ms: int | None, change: Callable[[], None], made: str) -> str:
        if visible_at_ms is None:
            change()
        else:
            insort(self._pending, (visible_at_ms, self._next(), change), key=lambda pending: pending[:2])
        return made

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _visit(self, user: User, session_id: str, start_ms: int, at_ms: int, events: int) -> None:
        session = Session(session_id, user, self._visitor(user), len(self._history(user)) + 1, start_ms)
        for number in range(events):
            when = at_ms - 1_000 * (events - 1 - number)
            session.events.append(Event(session_id if number == 0 else f"{when}.{user.suffix}", when, number))
        self._history(user).append(session)
        self._sessions[session_id] = session
        self._touch(user)

    def _touch(self, user: User) -> None:
        """Moves a user to where their newest event belongs."""
        newest = max(session.last_ms for session in self._history(user))
        if newest != user.last_ms:
            self._unlist(user)
            user.last_ms = newest
            insort(self._by_last, (newest, user.user_id))

    def _unlist(self, user: User) -> None:
        del self._by_last[bisect_left(self._by_last, (user.last_ms, user.user_id))]

    def _forget(self, user: User) -> None:
        self._unlist(user)
        del self._users[user.user_id]

    # how a user is made up

    def _make(self, number: int) -> User:
        """A user's key facts; the history is made from the same dice later."""
        suffix, visits = self._draw(number)
        first_ms = self._start_ms(number, visits[0][0])
        return User(number, f"{first_ms}.{suffix}", suffix, first_ms, visits[-1][-1])

    def _draw(self, number: int) -> tuple[str, list[list[int]]]:
        """The end of a user's ids, and the times of the events of their visits, all oldest first."""
        dice = self._dice(number)
        share = dice.random()
        if number % 10 == 1:  # neighbours share the very same millisecond now and then
            share = self._dice(number - 1).random()
        sessions = (
            1 + int(dice.expovariate(1 / (self._sessions_per_user - 0.5))) if self._sessions_per_user > 0.5 else 1
        )
        sizes = [
            1 + min(40, int(dice.expovariate(1 / max(self._events_per_session - 0.5, 0.01))))
            for _ in range(min(sessions, 60))
        ]
        if number == people.ADA and not self.hostile:
            sizes = [5, 3, 7]  # a history that examples can show
        span_ms = int(dice.random() * 200 * DAY_MS) if len(sizes) > 1 else 0
        suffix = str(dice.randint(100_000_000, 4_000_000_000))
        offset = self._utc_offset(number)
        # neighbours that share a moment share its clock
        clock = self._utc_offset(number - 1) if number % 10 == 1 else offset
        end_ms = moment(self._now_ms - int(self._days * DAY_MS), self._now_ms, 1 - share**1.5, clock)
        visits: list[list[int]] = []
        for size in reversed(sizes):
            if visits:
                latest_ms = visits[-1][0] - _PAUSE_MS
                end_ms = moment(latest_ms - 2 * span_ms // len(sizes), latest_ms, dice.random(), offset)
            times = [end_ms]
            for _ in range(size - 1):
                times.append(times[-1] - 2_000 - min(int(dice.expovariate(1 / 40_000)), 500_000))
            visits.append(times[::-1])
        return suffix, visits[::-1]

    def _utc_offset(self, number: int) -> int | None:
        return None if self.hostile else people.utc_offset(self.seed, number)

    def _start_ms(self, number: int, first_hit_ms: int) -> int:
        """When a visit begins; it was seen to begin before its first hit."""
        return first_hit_ms - 1_606 * (self.hostile and number % 4 == 3)

    def _dice(self, number: int) -> Random:
        return Random(self.seed * 1_000_003 + number)

    def _visitor(self, user: User) -> people.Visitor:
        return people.visitor(self.seed, user.number, hostile=self.hostile)

    def _history(self, user: User) -> list[Session]:
        if user.history is None:
            user.history = self._make_history(user)
            self._sessions.update((session.session_id, session) for session in user.history)
        return user.history

    def _make_history(self, user: User) -> list[Session]:
        history: list[Session] = []
        suffix, visits = self._draw(user.number)
        for ordinal, times in enumerate(visits, 1):
            start_ms = self._start_ms(user.number, times[0])
            session_id = f"{start_ms}.{suffix}"
            if ordinal == len(visits) > 1 and user.number % 9 == 4:
                session_id = str(uuid.UUID(int=Random(user.number).getrandbits(128)))
            session = Session(session_id, user, self._visitor(user), ordinal, start_ms)
            shares = self.hostile and start_ms % 3 == 0
            session.events = [
                Event(session_id if shares or number == 0 else f"{at_ms}.{suffix}", at_ms, number)
                for number, at_ms in enumerate(times)
            ]
            if self.hostile and len(times) > 3 and user.number % 4 == 1:
                # two hits that nothing tells apart
                session.events[2] = session.events[1]
            history.append(session)
        return history
