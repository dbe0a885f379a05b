"""Sessions and events: what is owed for a user who was handed out, fetched in lanes and yielded in order.

The generators here are polled by dlt in turn with all others. One that has to wait for an answer yields `None`, which
dlt takes for "nothing yet, ask somebody else"; so the lanes fill while rows are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future

from dlt.common import logger
from dlt.common.runtime import signals

from leadboxer_source import errors, settings
from leadboxer_source.client import EVENTS, SESSIONS, Answer, Record
from leadboxer_source.coverage import Stretch, covers
from leadboxer_source.failures import Failures
from leadboxer_source.lanes import Lane
from leadboxer_source.rows import ReadingClock, Row, Shapes, session_activity_ms, session_id_of
from leadboxer_source.state import NOBODY, Forgotten

Rows = list[Row]
Polled = Iterator[Rows | None]
"""Rows, or `None`: nothing yet, poll somebody else."""

_QUIET_POLLS = 5
_ROWS_AT_ONCE = 500
_FAILED = (errors.ApiUnavailable, errors.RequestRefused, errors.NotLeadBoxer, errors.AccessDenied)


class Children:
    """Fetches the sessions of users and the events of sessions, and judges which are owed.

    Args:
        lanes: The lane of each child endpoint.
        shapes: Makes the rows.
        covered_events: Where events are loaded already; a session last active there owes none.
        with_events: Whether events or their properties are wanted at all.
        failures: What an earlier run could not fetch, which is asked for first, and what fails now.
        settled: Endpoints whose answer settles what was set aside, because all that was claimed for it is loaded now.
        reading: Stamps rows.
        forgotten: Whose rows must not be loaded.
        abandon: Stops the lanes once nobody collects their answers any more.

    Attributes:
        gone: Parents that the API did not know: merged into another user meanwhile, or expired.
        asked: How many parents were asked for each endpoint.
        loaded: How many rows came of each endpoint.
        failures: What could not be fetched so far.
        exhausted: The quota that ended the slice, if one did.
        listed: Ids of those whom this run has listed; `None` if users come from somebody else's resource.
        has_next_run: Whether what the API does not know can be asked for once more, to be sure.
    """

    def __init__(
        self,
        lanes: dict[str, Lane],
        shapes: Shapes,
        reading: ReadingClock,
        failures: Failures,
        *,
        covered_events: Sequence[Stretch] = (),
        with_events: bool = True,
        forgotten: Forgotten = NOBODY,
        settled: Collection[str] = (SESSIONS, EVENTS),
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self.gone = 0
        self.asked: Counter[str] = Counter()
        self.loaded: Counter[str] = Counter()
        self.failures = failures
        self.exhausted: errors.QuotaExhausted | None = None
        self.listed: Mapping[str, str] | None = None
        self.has_next_run = True
        self._lanes = lanes
        self._shapes = shapes
        self._reading = reading
        self._abandon = abandon
        self._forgotten = forgotten
        self._covered_events = covered_events
        self._with_events = with_events
        self._settled = settled
        self._retried = {
            name: list(failures.set_aside[name]) for name in (SESSIONS, EVENTS) if with_events or name == SESSIONS
        }
        self._vanished: set[str] = set()
        self._gone: set[tuple[str, str]] = set()
        self._owing_users: set[str] = set()
        self._visits: dict[str, int] = {}  # of users who did not answer yet
        self._lost_sessions = 0
        self._owing_sessions: dict[str, tuple[str | None, str]] = {}  # the owner, and the user who was asked for
        self._asked_at: dict[str, int | None] = {}
        self._collecting = 0
        self._turns = 0

    @property
    def waits_to_retry(self) -> bool:
        """Whether something was set aside by an earlier run and not asked for yet."""
        return any(self._retried.values())

    def owe(self, visits: Mapping[str, int]) -> None:
        """Notes that these users, once handed out, are to be asked for their sessions, and how many they may have."""
        self._owing_users.update(visits)
        self._visits.update(visits)

    def ask_again(self, unsettled: Stretch) -> None:
        """Lets sessions that were last active then be asked for again: not all of them could be seen before."""
        lo, hi = unsettled
        self._asked_at = {key: at for key, at in self._asked_at.items() if at is None or not lo <= at < hi}

    def sessions(self, users: Rows | Row) -> Polled:
        """Asks for the sessions of those users that owe them; yields their rows in the users' order."""
        users = users if isinstance(users, list) else [users]  # somebody else's parent may yield single rows
        owed = self._retried.pop(SESSIONS, [])
        for user_id in (user["user_id"] for user in users):
            if self.listed and user_id not in self.listed:
                raise errors.ConfigurationInvalid(
                    "A map has changed user_id in rows of users, and sessions are asked for by it: change it after the "
                    "load, or in a table of your own."
                )
            if user_id in self._owing_users or (self.listed is None and user_id not in self._forgotten):
                self._owing_users.discard(user_id)
                owed.append(user_id)
        return self._collect(SESSIONS, [(user_id, user_id) for user_id in owed], self._session_rows)

    def events(self, sessions: Rows | Row) -> Polled:
        """Asks for the events of those sessions that owe them; yields their rows in the sessions' order."""
        sessions = sessions if isinstance(sessions, list) else [sessions]
        owed: list[tuple[str, str | None]] = [(session_id, None) for session_id in self._retried.pop(EVENTS, [])]
        owners: dict[str, str | None] = {}
        for session in sessions:
            session_id = session["session_id"]
            if session_id in self._owing_sessions:
                owners[session_id], asked_for = self._owing_sessions.pop(session_id)
                owed.append((session_id, asked_for))
        return self._collect(
            EVENTS, owed, lambda session_id, records: self._event_rows(session_id, owners.get(session_id), records)
        )

    def counted(self, name: str, rows: Rows) -> Rows:
        """Counts rows that came without a request of their own."""
        self.loaded[name] += len(rows)
        return rows

    def rest(self) -> Iterator[None]:
        """Yields `None` until the children have finished all that was handed out.

        dlt does not tell whether a chunk is still on its way to a child: it may be held by a fork of the pipe. But it
        polls its generators in turn, so a few polls in which nothing moved prove that nothing is left.
        """
        return self._quiet(lambda: self._collecting > 0)

    def _quiet(self, is_busy: Callable[[], bool]) -> Iterator[None]:
        quiet, turns = 0, self._turns
        while quiet < _QUIET_POLLS:
            yield None
            moved = is_busy() or turns != self._turns
            quiet, turns = (0 if moved else quiet + 1), self._turns

    def owed_requests(self) -> dict[str, int]:
        """Requests under way or queued, by endpoint."""
        return {name: lane.backlog for name, lane in self._lanes.items()}

    def owed_seconds(self) -> float:
        """Estimates how long the lanes need for what they hold; they work side by side."""
        return max(lane.seconds_for(lane.backlog) for lane in self._lanes.values())

    def expected_requests(self, users: int, visits: int) -> int:
        """Estimates the requests that so many users take, who have so many visits."""
        return users + visits if self._with_events else users

    def expected_seconds(self, visits: int) -> float:
        """Estimates how long it takes until all is read of those handed out, and of so many visits more."""
        if not self._with_events:
            return self.owed_seconds() + self._lanes[SESSIONS].seconds_for(visits)
        events = self._lanes[EVENTS]
        on_their_way = max(0, len(self._owing_sessions) - self._lost_sessions)
        expected = events.backlog + on_their_way + sum(self._visits.values()) + visits
        return max(self.owed_seconds(), events.seconds_for(expected))

    def sessions_read(self) -> Iterator[None]:
        """Yields `None` until it is known which sessions those have who were handed out; see `rest`."""
        yield from self._quiet(lambda: self._lanes[SESSIONS].backlog > 0)
        # somebody's filter may keep users and sessions from coming here
        self._visits.clear()
        self._lost_sessions = len(self._owing_sessions)

    def have_room(self) -> bool:
        """Tells whether more users can be handed out without queueing far ahead."""
        return self._lanes[SESSIONS].has_room() and self._lanes[EVENTS].backlog < settings.EVENTS_AHEAD

    def _collect(
        self, name: str, parents: Sequence[tuple[str, str | None]], rows_of: Callable[[str, list[Record]], Rows]
    ) -> Polled:
        """Submits at once, so that the lane is busy before anybody polls; returns what yields the answers.

        Each parent comes with the user for whom it is asked, if that is known.
        """
        self._turns += 1
        self._collecting += 1
        self.asked[name] += len(parents)
        futures = [(parent_id, user_id, self._submit(name, parent_id)) for parent_id, user_id in parents]
        return self._collected(name, futures, rows_of)

    def _submit(self, name: str, parent_id: str) -> Future[Answer]:
        if self.exhausted is None:
            # what has failed in an earlier run is not worth a minute of retries in each
            return self._lanes[name].submit(parent_id, once=self.failures.is_known(name, parent_id))
        refused: Future[Answer] = Future()
        refused.set_exception(self.exhausted)
        return refused

    def _collected(
        self,
        name: str,
        futures: list[tuple[str, str | None, Future[Answer]]],
        rows_of: Callable[[str, list[Record]], Rows],
    ) -> Polled:
        ready: Rows = []
        try:
            for parent_id, user_id, future in futures:
                while not future.done():
                    if ready:
                        yield ready
                        ready = []
                    # dlt looks for Ctrl-C only between rows, which can be a minute apart
                    signals.raise_if_signalled()
                    yield None
                records = self._answered(name, parent_id, user_id, future)
                rows = rows_of(parent_id, records)
                self.loaded[name] += len(rows)
                ready += rows
                if len(ready) >= _ROWS_AT_ONCE:
                    yield ready
                    ready = []
            if ready or self.waits_to_retry:
                yield ready  # an empty list still wakes the events that were set aside
        except BaseException:
            self._abandon()
            raise
        finally:
            self._collecting -= 1
            self._turns += 1

    def _answered(self, name: str, parent_id: str, user_id: str | None, future: Future[Answer]) -> list[Record]:
        """The records of an answer; a failure is set aside, so that one bad parent neither stops nor hides anything."""
        if name == SESSIONS:
            self._visits.pop(parent_id, None)
        try:
            answer = future.result()
        except errors.QuotaExhausted as exhausted:
            self.exhausted = exhausted
            self.failures.cut(name, parent_id, user_id)
            return []
        except _FAILED as failure:
            reason = self.failures.failed(name, parent_id, user_id, failure)
            logger.warning(f"{name} of one parent are set aside and tried again in the next run: {reason}")
            return []
        # merged into somebody else meanwhile, with all sessions; or never seen on the site
        gone = answer.gone or (name == SESSIONS and not answer.records)
        # whoever has no session at all is asked again in each look, and has moved nowhere since the first
        if gone and (name, parent_id) not in self._gone:
            self._gone.add((name, parent_id))
            self.gone += 1
        if answer.gone:
            if self.failures.unknown(name, parent_id, user_id, once_more=self.has_next_run):
                return []
        else:
            self.failures.succeeded(name)
        if parent_id in self.failures.set_aside[name] and name in self._settled:
            if gone and name == SESSIONS:
                self._vanished.add(parent_id)
            else:
                self.failures.resolve(name, parent_id)
        if answer.truncated:
            told = f"The API gives no more than {len(answer.records)} rows; there may be more."
            self.failures.tell(name, parent_id, told)
        return answer.records

    def warn_of_silence(self) -> None:
        """Warns of an endpoint that had nothing for anybody: no error tells such an outage from visits that expired."""
        for name, of_whom in ((SESSIONS, "users"), (EVENTS, "sessions")):
            answered = self.asked[name] - len(self.failures.set_aside[name])
            if not self.loaded[name] and answered > settings.MAX_FAILURES:
                logger.warning(
                    f"LeadBoxer had no {name} for any of {answered} {of_whom}, which count as read now: if they have "
                    "some, run `leadboxer resync --since DATE` once it names them."
                )

    def settle_vanished(self) -> None:
        """Drops users who were set aside and have become part of somebody else; whoever that is was read since."""
        for user_id in self._vanished & set(self.failures.set_aside[SESSIONS]):
            self.failures.resolve(SESSIONS, user_id)

    def _session_rows(self, user_id: str, records: list[Record]) -> Rows:
        read_at = self._reading.stamp()
        rows = []
        named = [record for record in records if session_id_of(record)]
        if nameless := len(records) - len(named):
            told = f"{nameless} of {len(records)} sessions came without an id and cannot be loaded."
            self.failures.tell(SESSIONS, user_id, told)
        # what was set aside lies inside coverage and is owed all the same
        covered = () if self.failures.is_known(SESSIONS, user_id) else self._covered_events
        owed = owed_sessions(named, covered, self._trusted(user_id)) if self._with_events else set()
        for record in named:
            row = self._shapes.session(record, user_id, read_at)
            if row["user_id"] in self._forgotten:
                continue  # a merge has given it to somebody who was forgotten
            session_id, last = row["session_id"], session_activity_ms(record)
            unchanged = last is not None and self._asked_at.get(session_id) == last
            if session_id in owed and not unchanged:
                self._asked_at[session_id] = last
                self._owing_sessions[session_id] = row["user_id"], user_id
            rows.append(row)
        return rows

    def _trusted(self, user_id: str) -> set[str | None] | None:
        """The browsers of a user whose sessions are loaded where coverage says so; `None` for all.

        While somebody is set aside, only the user's own: the others may have come from whom nobody could read, or from
        whoever had become part of them before.
        """
        unread = self.failures.set_aside[SESSIONS]
        return {_browser(user_id)} - {None, *map(_browser, unread)} if unread else None

    def _event_rows(self, session_id: str, user_id: str | None, records: list[Record]) -> Rows:
        rows = self._shapes.events(records, session_id, user_id, self._reading.stamp())
        return [row for row in rows if row["user_id"] not in self._forgotten]


def owed_sessions(
    sessions: Sequence[Record], covered: Sequence[Stretch], trusted: Collection[str | None] | None = None
) -> set[str]:
    """Returns the ids of those sessions of one user whose events are not loaded.

    A session is loaded if its last activity is covered. It is loaded as well, although it may lie before all coverage,
    if a later session of the same browser is covered: whoever is read is read whole. Ids of one browser end alike
    (`<start>.<browser>`); sessions that came in with a merge end otherwise and are judged by themselves. Where not all
    browsers are `trusted`, coverage says nothing about the others.
    """
    newest_loaded: dict[str, int] = {}
    for session in sessions:
        session_id, last = str(session_id_of(session)), session_activity_ms(session)
        browser = _browser(session_id)
        if last is not None and covers(covered, last) and (trusted is None or browser in trusted):
            key = browser or session_id
            newest_loaded[key] = max(last, newest_loaded.get(key, last))
    owed = set()
    for session in sessions:
        session_id, last = str(session_id_of(session)), session_activity_ms(session)
        if last is None or last > newest_loaded.get(_browser(session_id) or session_id, -1):
            owed.add(session_id)
    return owed


def _browser(id_: str) -> str | None:
    """The browser that a user's or session's id names."""
    _, dot, browser = id_.partition(".")
    return browser if dot else None
