"""The sandbox's data: a seeded dataset in which things can be made to happen.

Records are shaped as LeadBoxer sends them, including what makes them awkward: numbers as text, names that collide or
are reserved, values whose type drifts, several hits that share an event id, ids that are UUIDs.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left, insort
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

Record = dict[str, Any]

DAY_MS = 86_400_000
SITE = "07bacbd9d46a4e26b58b15d69f69250f"
_TTL_MS = 366 * DAY_MS
_COMPANIES = ("Example Widgets GmbH", "Sample Foods BV", "Placeholder Ltd", "Specimen SA", "Instance Inc")
_PAGES = ("pricing", "docs", "blog", "contact", "product", "about")
_CHANNELS = ("direct", "organic", "social", "email", "referral", "paid")
_CITIES = (("DE", "Germany", "Duesseldorf"), ("NL", "Netherlands", "Utrecht"), ("US", "United States", "Chicago"))
_DRIFTS: tuple[Any, ...] = ("text", 7, 2.5, True, None, [1, "two"], {"three": 3})


class Event:
    """A hit."""

    __slots__ = ("at_ms", "event_id", "fields")

    def __init__(self, event_id: str, at_ms: int, fields: Record) -> None:
        self.event_id, self.at_ms, self.fields = event_id, at_ms, fields


class Session:
    """A visit, with its events in the order in which they happened."""

    __slots__ = ("events", "session_id", "start_ms", "user")

    def __init__(self, session_id: str, user: User, start_ms: int) -> None:
        self.session_id, self.user, self.start_ms = session_id, user, start_ms
        self.events: list[Event] = []

    @property
    def last_ms(self) -> int:
        """Epoch milliseconds of the newest event."""
        return max(event.at_ms for event in self.events)


class User:
    """A lead. The history of one who never changed is made when it is asked for."""

    __slots__ = ("changes", "first_ms", "history", "last_ms", "number", "sizes", "suffix", "user_id")

    def __init__(self, number: int, user_id: str, suffix: str, first_ms: int, last_ms: int, sizes: tuple[int, ...]):
        self.number, self.user_id, self.suffix = number, user_id, suffix
        self.first_ms, self.last_ms = first_ms, last_ms
        self.sizes = sizes
        self.history: list[Session] | None = None
        self.changes: Record = {}


class Truth(NamedTuple):
    """Everything that is visible, as records that the API would send."""

    users: list[Record]
    sessions: list[Record]
    events: list[Record]


class World:
    """A dataset.

    Args:
        seed: The same seed makes the same data.
        users: How many users there are.
        days: Over how many days before `now_ms` they were last seen.
        now_ms: Epoch milliseconds of the newest activity there can be.
        site: Dataset id.
        sessions_per_user: Mean number of sessions.
        events_per_session: Mean number of events.
        all_in_one_day: Puts everybody's last activity within the last day.
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
    ) -> None:
        self.site = site
        self.seed = seed
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
        return ("unidentified", "company", "person")[self._users[user_id].number % 3]

    def user_record(self, user_id: str, now_ms: int) -> Record:
        """Returns a user as the API sends it at the given time."""
        return self._user_record(self._users[user_id], now_ms)

    def session_records(self, user_id: str) -> list[Record] | None:
        """Returns a user's sessions, newest first; `None` if the user is unknown."""
        user = self._users.get(user_id)
        if user is None:
            return None
        newest_first = sorted(self._history(user), key=lambda session: session.last_ms, reverse=True)
        return [self._session_record(session) for session in newest_first]

    def event_records(self, session_id: str) -> list[Record] | None:
        """Returns a session's events, newest first; `None` if the session is unknown.

        Sessions become known when their user's are asked for, as there is no other way to learn their ids.
        """
        session = self._sessions.get(session_id)
        return None if session is None else [self._event_record(session, event) for event in reversed(session.events)]

    def settle_until(self, now_ms: int) -> None:
        """Applies those changes whose time to become visible has come."""
        while self._pending and self._pending[0][0] <= now_ms:
            self._pending.pop(0)[2]()

    def truth(self) -> Truth:
        """Returns everything that is visible."""
        users = list(self._users.values())
        sessions = [session for user in users for session in self._history(user)]
        return Truth(
            [self._user_record(user, self._now_ms) for user in users],
            [self._session_record(session) for session in sessions],
            [self._event_record(session, event) for session in sessions for event in session.events],
        )

    # what may happen; with `visible_at_ms`, the API shows it only from then on

    def add_user(self, at_ms: int, events: int = 1, visible_at_ms: int | None = None) -> str:
        """Somebody new, last active at `at_ms`."""
        number = 1_000_000 + self._next()
        start_ms = at_ms - 1_000 * (events - 1)
        user_id = f"{start_ms}.{number}"

        def change() -> None:
            user = User(number, user_id, str(number), start_ms, at_ms, ())
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
            session.events.append(self._event(session, at_ms, f"{at_ms}{self._next():03}.{session.user.suffix}"))
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
        session = Session(session_id, user, start_ms)
        for number in range(events):
            when = at_ms - 1_000 * (events - 1 - number)
            session.events.append(self._event(session, when, session_id if number == 0 else f"{when}.{user.suffix}"))
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
        dice = self._dice(number)
        # neighbours share the very same millisecond now and then
        when = self._dice(number - 1) if number % 10 == 1 else self._dice(number)
        last_ms = self._now_ms - int(when.random() ** 1.5 * (self._days * DAY_MS - 1)) - 1
        dice.random()
        sessions = (
            1 + int(dice.expovariate(1 / (self._sessions_per_user - 0.5))) if self._sessions_per_user > 0.5 else 1
        )
        sizes = tuple(
            1 + min(40, int(dice.expovariate(1 / max(self._events_per_session - 0.5, 0.01))))
            for _ in range(min(sessions, 60))
        )
        span = int(dice.random() * 200 * DAY_MS) if len(sizes) > 1 else 0
        first_ms = last_ms - 25_000 * sizes[-1] - (span + 3_600_000 * len(sizes) if len(sizes) > 1 else 0)
        suffix = str(dice.randint(100_000_000, 4_000_000_000))
        return User(number, f"{first_ms}.{suffix}", suffix, first_ms, last_ms, sizes)

    def _dice(self, number: int) -> Random:
        return Random(self.seed * 1_000_003 + number)

    def _history(self, user: User) -> list[Session]:
        if user.history is None:
            user.history = self._make_history(user)
            self._sessions.update((session.session_id, session) for session in user.history)
        return user.history

    def _make_history(self, user: User) -> list[Session]:
        history: list[Session] = []
        step = (user.last_ms - user.first_ms) // max(len(user.sizes), 1)
        for number, size in enumerate(user.sizes):
            is_last = number == len(user.sizes) - 1
            start_ms = user.first_ms + number * step
            if is_last and number:
                start_ms = user.last_ms - 25_000 * size
            session_id = user.user_id if number == 0 else f"{start_ms}.{user.suffix}"
            if is_last and number and user.number % 9 == 4:
                session_id = str(uuid.UUID(int=Random(user.number).getrandbits(128)))
            session = Session(session_id, user, start_ms)
            for hit in range(size):
                at_ms = user.last_ms if is_last and hit == size - 1 else start_ms + 20_000 * hit
                shares = session.start_ms % 3 == 0 or hit == 0
                event_id = session_id if shares else f"{at_ms}.{user.suffix}"
                session.events.append(self._event(session, at_ms, event_id))
            if size > 3 and user.number % 4 == 1:
                # two hits that nothing tells apart
                session.events[2] = session.events[1]
            history.append(session)
        return history

    # records

    def _event(self, session: Session, at_ms: int, event_id: str) -> Event:
        number, user = len(session.events), session.user
        fields: Record = {}
        if number % 5 == 4:
            fields["title"] = "Tag changed"  # a system event: no page, no browser
        else:
            page = _PAGES[(session.start_ms // 60_000 + number) % len(_PAGES)]
            fields |= {
                "original_url": f"https://shop.example/{page}?utm_source=newsletter&n={number}",
                "root_url": f"https://shop.example/{page}",
                "title": page.title(),
                "referrer": "",
                "browser": "Firefox",
                "country_code": _CITIES[user.number % 3][0],
                "total_number_visits": str(len(user.sizes)) if user.number % 2 else len(user.sizes),
            }
        fields |= _properties(user.number, number)
        if number == 1:
            fields["customEventInfo"] = {"plan": "team", "seats": user.number}
        return Event(event_id, at_ms, fields)

    def _event_record(self, session: Session, event: Event) -> Record:
        return {
            "event_id": event.event_id,
            "session_id": session.session_id,
            "use_id": session.user.user_id,
            "site": self.site,
            "type": {"name": "event"},
            "eventEsTimestamp": str(event.at_ms),
            "eventUnixTimestamp": str(event.at_ms),
            **event.fields,
        }

    def _session_record(self, session: Session) -> Record:
        last_ms, user = session.last_ms, session.user
        code, country, city = _CITIES[user.number % 3]
        return {
            "session_id": session.session_id,
            "use_id": user.user_id,
            "site": self.site,
            "type": {"name": "session"},
            "session_unix_timestamp": str(session.start_ms),
            "eventEsTimestamp": str(last_ms),
            "eventUnixTimestamp": str(last_ms),
            "lastEvent": last_ms,
            "visit_duration": str((last_ms - session.start_ms) // 1000),
            "pages_viewed": len(session.events),
            "channel": _CHANNELS[session.start_ms // 60_000 % len(_CHANNELS)],
            "entry_root_url": "https://shop.example/pricing",
            "entry_query": "utm_source=newsletter" if user.number % 2 else "",
            "referrer": "",
            "browser": "Firefox",
            "platform": "Windows 10",
            "country_code": code,
            "country_name": country,
            "city": city,
            "ip_number": f"203.0.113.{user.number % 250}",
            **_properties(user.number, 0),
        }

    def _user_record(self, user: User, now_ms: int) -> Record:
        sizes = [len(session.events) for session in user.history] if user.history is not None else user.sizes
        newest = str(user.first_ms) if len(sizes) < 2 else str(user.last_ms)
        code, country, city = _CITIES[user.number % 3]
        hours = max(0, now_ms - user.last_ms) // 3_600_000
        record: Record = {
            "esScore": str(1 + (now_ms // 1000 + user.number) % 99),
            "last_most_likely_company": "",
            "lastEvent": user.last_ms,
            "total_number_visits": len(sizes),
            "total_pages_viewed": sum(sizes),
            "last_country_name": country,
            "last_country_code": code,
            "last_city": city,
            "customEventInfo": {},
            "documentExpiryDate": user.last_ms + _TTL_MS + 560,
            "eventEsTimestamp": str(user.last_ms),
            "eventUnixTimestamp": str(user.last_ms),
            "event_id": user.user_id,
            "first_session_unix_timestamp": str(user.first_ms),
            "last_browser": "Chrome",
            "last_browser_version": "149.0.0.0",
            "last_channel": _CHANNELS[user.number % len(_CHANNELS)],
            "last_colors": "30",
            "last_ip_number": f"203.0.113.{user.number % 250}",
            "last_latitude": "41.87577",
            "last_longitude": "-87.6206",
            "last_platform": "Intel Mac OS X 10.15.7",
            "last_resolution_height": "1117",
            "last_resolution_width": "1728",
            "last_session_unix_timestamp": newest,
            "last_visit_duration": "0",
            "leadcard_url": f"https://app.leadboxer.com?q={user.user_id}&site={self.site}",
            "machine_id": f"{user.first_ms}:{user.first_ms}",
            "organizationLogoUrl": "https://cdn-mail.leadboxer.com/app/company-icon.png",
            "prettyLastEvent": f"{hours} hours ago",
            "session_id": user.user_id,
            "site": self.site,
            "total_session_duration": 60 * len(sizes),
            "ttl": _TTL_MS,
            "type": {"name": "user"},
            "use_id": user.user_id,
            **_properties(user.number, 0),
        }
        if user.number % 3:
            company = _COMPANIES[user.number % len(_COMPANIES)]
            record |= {
                "last_most_likely_company": company,
                "organizationName": company,
                "organizationDomain": f"{company.split()[0].lower()}.example",
                "organizationLongitude": 6.7426913,
                "organizationNaicsCode": "54",
                "organizationSalesVolume": "",
            }
        if user.number % 3 == 2:
            record |= {
                "email": f"ada.{user.number}@widgets.example",
                "firstName": "Ada",
                "lastName": f"Example {user.number}",
                "leadTag": "customer,priority",
                "utm_source": "newsletter",
            }
        return {**record, **user.changes}


def _properties(number: int, hit: int) -> Record:
    """Custom properties: names with spaces, colliding, reserved, empty; values whose type drifts."""
    found: Record = {}
    if number % 2 == 0:
        found |= {"Customer ID": f"C-{number}", "lb_articleSection": "pricing"}
    if number % 4 == 0:
        found |= {"customer_id": number, "Plan": "team", "plan": hit}
    if number % 5 == 0:
        found |= {"_dlt_id": f"mine {number}", "_dlt_load_id": 1, "select": "from", "order": hit}
    if number % 6 == 0:
        found |= {"": "no name", "dotted.name": "a.b", "größe": "ü"}
    if number % 3 == 0:
        found["drift"] = _DRIFTS[(number // 3 + hit) % len(_DRIFTS)]
    if number % 50 == 7 and hit == 0:
        found |= {f"Answer {question}": str(question) for question in range(300)}
    return found
