"""One run: which users are handed out, within which budgets, and which stretches are claimed in the end.

The slice is the head of the hierarchy. What it claims is written to the state only when it ends: rows and claims of a
run are committed together or not at all, and a run that is closed early claims nothing.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

from dlt.common import logger

from leadboxer_source import errors, settings
from leadboxer_source.budgets import Budgets
from leadboxer_source.children import Children, Polled, Rows
from leadboxer_source.client import EVENTS, SESSIONS
from leadboxer_source.clock import Clock
from leadboxer_source.connection import Connection
from leadboxer_source.coverage import Coverage, Stretch, add, clip, common, covers, holes
from leadboxer_source.failures import Failures
from leadboxer_source.listing import Listed, Lister, Listing, listed_from, next_days, window_of
from leadboxer_source.report import ENDPOINTS, Report, Watch, run_rows
from leadboxer_source.rows import ReadingClock, Shapes, number_or_none
from leadboxer_source.settings import DAY_MS, Settings
from leadboxer_source.state import COVERED, NOBODY, Forgotten, Remembered

_ROWS_AT_ONCE = 1_000
_TELL_SECONDS = 0.2
_CLOCKS_AGREE_MS = DAY_MS // 2


class Slice:
    """The head of one run.

    Args:
        config: What to load, and how fast.
        connection: The way to the API.
        clock: The time.
        shapes: Makes the rows.
        memories: What each resource in `COVERED` remembers of the scope.
        selected: Names of the resources that are loaded; the others are never claimed.
        watch: Is told how the run goes.
        forgotten: Whose rows must not be loaded.

    Attributes:
        children: Fetches what is owed for the users handed out.
        ended: Whether the head is done; children may still be at work if it was closed early.
        reported: The tables about itself whose rows were taken.
    """

    def __init__(
        self,
        config: Settings,
        connection: Connection,
        clock: Clock,
        shapes: Shapes,
        memories: dict[str, Remembered],
        selected: set[str],
        watch: Watch | None = None,
        forgotten: Forgotten = NOBODY,
    ) -> None:
        self.ended = False
        self.reported: set[str] = set()
        self._config = config
        self._connection = connection
        self._clock = clock
        self._memories = memories
        self._selected = [name for name in COVERED if name in selected]
        self._watch = watch
        self._lister = Lister(connection.api, clock)
        self._reading = ReadingClock(clock)
        self._shapes = shapes
        self._forgotten = forgotten
        wanted_children = [name for name in self._selected if name != "users"]
        wanted_events = [name for name in wanted_children if name != "sessions"]
        self._wants_children = bool(wanted_children)
        self._loaded = common([memories[name].covered for name in self._selected])
        self._loaded_children = common([memories[name].covered for name in wanted_children])
        set_aside = {name: memories[name].set_aside for name in (SESSIONS, EVENTS)} if wanted_children else {}
        self.children = Children(
            connection.lanes,
            self._shapes,
            self._reading,
            Failures(config.site, self._reading, set_aside),
            # who matches a filter today may have been nobody's to list when their older sessions were covered
            covered_events=[] if config.is_narrowed else common([memories[name].covered for name in wanted_events]),
            with_events=bool(wanted_events),
            forgotten=forgotten,
            abandon=connection.close,
            # a resource that is not selected has claimed it too, and would never ask for it
            settled=[name for name in (SESSIONS, EVENTS) if not self._claimed_elsewhere(name)],
        )
        self._report = Report(
            scope=config.scope, one_off=self._one_off, started_ms=self._now_ms(), covered=self._loaded
        )
        self._budgets = Budgets(config, clock, connection.traffic, self.children, self._report)
        self._concluded = False
        connection.on_listing_wait(self._tell_of_wait)
        self._told_at = 0.0
        self._handed: dict[str, int | None] = {}
        self._atomic: list[bool] = []  # of each listing; the listings themselves may be large
        self._staged: Coverage = []
        self._progressed = False
        self._start_ms = 0
        self._settle_ms = int(config.settle_seconds * 1000)
        self._stopped = ""

    def _claimed_elsewhere(self, endpoint: str) -> bool:
        """Whether something that the endpoint's answers lead to has a coverage and is not loaded by this run."""
        fed = COVERED[COVERED.index(endpoint) :]
        return any(self._memories[name].covered for name in fed if name not in self._selected)

    @property
    def _one_off(self) -> bool:
        """A run with an end marks nothing, as dlt's own `end_value` does."""
        return self._config.end_ms is not None

    def users(self) -> Polled:
        """Yields chunks of users' rows, newest first, and stages the claim of what was loaded for them."""
        self.children.listed, self.children.has_next_run = self._lister.user_ids, not self._one_off
        claim_top: int | None = None
        self._tell()
        try:
            if self.children.waits_to_retry:
                yield []  # wakes the children: what was set aside goes first
            try:
                yield from self._fill_holes()
                yield from self._relist()
                yield from self._rest()
                claim_top = None if self._one_off else self._believable((yield from self._last_look()))
            except (errors.QuotaExhausted, errors.ListingUnstable) as error:
                # the listing has failed: without a last look nothing can be claimed, but what was read is kept
                if not self._handed and not isinstance(error, errors.QuotaExhausted):
                    raise
                self._stopped = "quota" if isinstance(error, errors.QuotaExhausted) else "unsettled"
                yield from self._rest()
            self._conclude(claim_top)
        finally:
            self.ended = True
            self._stopped = self._stopped if self._concluded else "closed"
            self._report.ended_ms = self._now_ms()
            self._tell(final=True)
            # dlt keeps the source while it normalizes and loads, which needs the memory more
            self._lister.user_ids.clear()
            self._handed.clear()

    def memories(self) -> dict[str, Remembered]:
        """Returns what each selected resource is to remember: coverage with this run's claims, and what failed."""
        claimed = {
            name: Remembered(add(self._memories[name].covered, self._staged), self._memories[name].set_aside)
            for name in self._selected
        }
        if self._wants_children:
            for name in (SESSIONS, EVENTS):
                covered = claimed[name].covered if name in claimed else self._memories[name].covered
                claimed[name] = Remembered(covered, self.children.failures.set_aside[name])
        return claimed

    def rows_of_run(self) -> Rows:
        """Returns what `load_runs` keeps of this run, once it and its children have ended."""
        self._note()
        memories = {**self._memories, **(self.memories() if self._concluded else {})}
        told = {
            name: memory if name in self._selected else Remembered([], memory.set_aside)
            for name, memory in memories.items()
            if name in self._selected or self._report.requests.get(ENDPOINTS.get(name, ""))
        }
        return run_rows(self._report, self._config.site, told)

    def metrics(self) -> dict[str, Any]:
        """Returns what the run cost and why it ended, in plain numbers by endpoint."""
        self._note()
        report = self._report
        return {
            "stopped": report.stopped,
            "requests": report.requests,
            "refusals": {endpoint: count for endpoint, count in report.refusals.items() if count},
            "waited_seconds": {endpoint: round(seconds, 1) for endpoint, seconds in report.waited_seconds.items()},
            "failures": report.set_aside,
        }

    def _fill_holes(self) -> Polled:
        """Lists the newest hole, hands out who is in it, and goes on to the next older one."""
        days, window, is_older = 1, self._first_window(), False
        while window is not None:
            listing = self._drain(window)
            if is_older or not self._loaded:  # a later slice begins with the minutes since the one before
                days = next_days(days, len(listing))
            if not (yield from self._hand_out(listing)):
                return
            if not listing.settled:
                self._stopped = "unsettled"
                return
            self._stage(listing.window)
            del listing  # the next one is listed without it in memory
            hole = next(iter(holes(add(self._loaded, self._staged), self._since(), self._until())), None)
            window = window_of(hole, days) if hole else None
            # a run that has only seen that nothing is new goes on by a window, or none would ever get further
            must_go_on = not (is_older or self._progressed or self._report.stopping)
            if window is not None and not must_go_on and (reason := self._budgets.spent()):
                self._stopped = reason
                return
            is_older = True
        self._stopped = "covered"

    def _first_window(self) -> Stretch | None:
        """The newest part of what is not covered; listed even if nothing seems to be missing: only the API can tell."""
        until = self._until()
        if self._one_off:
            hole = Stretch(self._since(), until)
            return window_of(hole, 1) if hole.lo < hole.hi else None
        top = self._loaded[-1].hi if self._loaded else 0
        return window_of(Stretch(min(max(top, self._since()), until - 1), until), 1)

    def _drain(self, window: Stretch) -> Listing:
        """Lists a window; the run's first listing also sets the clock, because the machine's may be hours wrong."""
        listing = self._lister.drain(window)
        if not self._start_ms:
            guessed = self._now_ms()
            self._start_ms = listing.started_ms or guessed
            if not self._one_off:
                if abs(guessed - self._start_ms) > _CLOCKS_AGREE_MS:
                    logger.warning("This machine's clock is more than 12 hours wrong; going by LeadBoxer's.")
                    listing = self._lister.drain(self._first_window() or window)
                listing.window = Stretch(min(listing.window.lo, self._start_ms), self._start_ms)
        self._atomic.append(listing.atomic)
        return listing

    def _hand_out(self, listing: Listing) -> Generator[Rows | None, None, bool]:
        """Yields the rows of a window's users in chunks; returns False if a budget ended it."""
        chunk: list[Listed] = []
        owed: dict[str, int] = {}
        wanted = sum(self._is_wanted(user, listing.window) for user in listing.unordered())
        self._report.listed = self._report.handed + wanted
        for user in listing.users():
            if not self._is_wanted(user, listing.window):
                continue
            owes = self._owes(user)
            # users of one millisecond stay together: a border between them could not be claimed, nor ever be passed
            together = chunk and user.last_event_ms is not None and user.last_event_ms == chunk[-1].last_event_ms
            visits = _visits(user) if owes else 0
            is_full = bool(owes and owed) and self._is_full(owed, visits)
            if not together and (len(chunk) >= _ROWS_AT_ONCE or is_full):
                if not (yield from self._send(chunk, owed)):
                    return False
                if listing.settled and not self._budgets.lifted and user.last_event_ms is not None:
                    # whoever is older than the window is handed out all the same; what lies below was not listed whole
                    self._stage(Stretch(max(user.last_event_ms + 1, listing.window.lo), listing.window.hi))
                chunk, owed = [], {}
            chunk.append(user)
            if owes:
                owed[user.user_id] = visits
        return not chunk or (yield from self._send(chunk, owed))

    def _is_full(self, owed: Mapping[str, int], visits: int) -> bool:
        """Whether a chunk has as many users who owe something as it may, or one more visitor could break a budget."""
        visits += sum(owed.values())
        return (
            len(owed) >= self._config.chunk_size
            or self._budgets.is_late(visits)
            or self._budgets.is_dear(len(owed) + 1, visits)
        )

    def _send(self, chunk: list[Listed], owed: dict[str, int]) -> Generator[Rows | None, None, bool]:
        """Yields a chunk once the lanes have room for it, unless a budget is spent; the first of a run always goes."""
        if owed:
            if self._budgets.is_late(sum(owed.values())):
                yield from self.children.sessions_read()  # of those who came back, most are loaded already
            while not self.children.have_room() and not self._report.stopping:
                self._tell()
                yield None
            if (self._progressed or self._report.stopping) and (reason := self._budgets.spent()):
                self._stopped = reason
                return False
            self._progressed = True
        self._handed.update((user.user_id, user.last_event_ms) for user in chunk)
        self._report.handed += len(chunk)
        self.children.owe(owed)
        self._tell()
        yield self._rows(chunk)
        yield from self._costs()
        return True

    def _costs(self) -> Iterator[None]:
        """Waits, where requests are counted: what a chunk costs is known only once its sessions are."""
        if self._budgets.counts_requests and self._wants_children:
            for _ in self.children.sessions_read():
                self._tell()
                yield None

    def _relist(self) -> Polled:
        """Reads the users of the last days again, for changes that move nothing; asks for no sessions."""
        if not self._config.relist_days or self._one_off or self._stopped != "covered":
            return
        recent = Stretch(self._until() - self._config.relist_days * DAY_MS, self._until())
        listing = self._lister.drain(recent)
        fresh = (
            user for user in listing.users() if user.user_id not in self._handed and user.user_id not in self._forgotten
        )
        rows = self._rows(fresh)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            yield rows[start : start + _ROWS_AT_ONCE]

    def _rows(self, users: Iterable[Listed]) -> Rows:
        rows = [self._shapes.user(user.record, self._reading.stamp()) for user in users]
        return self.children.counted("users", rows)

    def _rest(self) -> Iterator[None]:
        """Waits until the children are done."""
        if self._wants_children:
            for _ in self.children.rest():
                self._tell()
                yield None

    def _last_look(self) -> Generator[Rows | None, None, int | None]:
        """Lists the top until nobody moved during a listing, to see who became active; returns up to when to claim.

        Whoever left an old day by coming back, after the top was listed and before that day was, is found here; claimed
        without them, their old sessions would look loaded. They are judged by the coverage of the run's start, and
        asked for even when a budget is spent.
        """
        if self._atomic == [True] and not self.children.gone:
            return self._start_ms - self._settle_ms  # one answer: nobody can have moved between two
        self._budgets.lifted = True
        look_from = self._start_ms - self._settle_ms
        for _ in range(settings.MAX_LOOKS):
            gone = self.children.gone
            look = self._drain(Stretch(look_from, max(self._now_ms(), self._start_ms, look_from + 1)))
            claim = (look.started_ms or self._now_ms()) - self._settle_ms
            self._ask_again(Stretch(look_from, claim))
            yield from self._hand_out(look)
            yield from self._rest()
            look_from = claim
            # whoever vanished while being asked was merged into somebody who is active now
            if look.atomic and self.children.gone == gone:
                return look_from
        self._stopped = "unsettled"
        return None

    def _believable(self, claim_top: int | None) -> int | None:
        """Claims no future: where LeadBoxer's clock is days ahead of this one, either may be right."""
        now_ms = self._now_ms()
        if claim_top is None or claim_top <= now_ms + 2 * DAY_MS:
            return claim_top
        return now_ms - self._settle_ms

    def _ask_again(self, unsettled: Stretch) -> None:
        """Lets those be asked again who were read before all that they had done by then could be seen.

        Whoever went on later is among them: one of their sessions may have ended then.
        """
        self._handed = {user: last for user, last in self._handed.items() if last is None or last < unsettled.lo}
        self.children.ask_again(unsettled)

    def _conclude(self, claim_top: int | None) -> None:
        """Decides what is claimed: what was staged, up to the last look, and nothing that had to be left out."""
        if claim_top is not None and self._left_out() > settings.MAX_SET_ASIDE:
            self._claim_less()
        left_out = self._left_out()
        if claim_top is None or left_out > settings.MAX_SET_ASIDE:
            self._staged = []
            if not self._one_off:  # which has no next run that would ask again: what it lacks is told
                self.children.failures.undo()
        else:
            top_was_listed = bool(self._staged) and self._staged[-1].hi >= self._start_ms
            extended = [Stretch(self._start_ms, claim_top)] if top_was_listed else []
            self._staged = clip(add(self._staged, extended), 0, claim_top)
            self._report.until_ms = claim_top
            if self._stopped == "covered":
                self.children.settle_vanished()
        self.children.warn_of_silence()
        if self.children.exhausted is not None:
            self._stopped = "quota"
        covered = add(self._loaded, self._staged)
        unread = holes(covered, self._since(), claim_top or 0)
        missing = left_out if self._one_off else unread
        self._report.complete = self._stopped == "covered" and not missing
        self._report.covered = covered
        self._concluded = True

    def _left_out(self) -> int:
        return sum(len(entries) for entries in self.children.failures.set_aside.values())

    def _claim_less(self) -> None:
        """Where the quota cut off more than can be set aside, leaves all to a later run that is no newer than that.

        Whoever was active since the run began stays set aside: they were listed again to let it claim what is older.
        """
        began_ms = self._start_ms - self._settle_ms
        lasts = {key: self._handed.get(user_id) for key, user_id in self.children.failures.cut_off.items()}
        older = {key: last for key, last in lasts.items() if last is not None and last < began_ms}
        self.children.failures.leave(older.keys())
        self._staged = clip(self._staged, max(older.values(), default=-1) + 1, self._until())

    def _stage(self, stretch: Stretch) -> None:
        self._staged = add(self._staged, [stretch])

    def _is_wanted(self, user: Listed, window: Stretch) -> bool:
        """Leaves out whoever was handed out already, or belongs to an older hole that has its own turn."""
        last = user.last_event_ms
        if user.user_id in self._handed and self._handed[user.user_id] == last:
            return False
        if user.user_id in self._forgotten:
            return False
        if last is None:
            return True
        if self._one_off:
            return window.lo <= last < self._until()
        # whom the API files under another time than the record's, the window of that time will not list
        return last >= window.lo or last < listed_from(window) or covers(self._loaded, last)

    def _owes(self, user: Listed) -> bool:
        return self._wants_children and not covers(self._loaded_children, user.last_event_ms)

    def _since(self) -> int:
        if self._config.start_ms is not None:
            return self._config.start_ms
        return (self._until() // DAY_MS - settings.RETENTION_DAYS) * DAY_MS

    def _until(self) -> int:
        """Where the newest hole ends: at the server's clock when the run began, as far as it is known yet.

        A one-off ends earlier if its end date does; where that lies ahead, nobody can have been seen there.
        """
        began_ms = self._start_ms or self._now_ms()
        return began_ms if self._config.end_ms is None else min(self._config.end_ms, began_ms + DAY_MS)

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    def _tell(self, *, final: bool = False) -> None:
        """Tells the watch, but not more often than a person can read."""
        now = time.monotonic()
        if self._watch is None or (not final and now - self._told_at < _TELL_SECONDS):
            return
        self._told_at = now
        self._note(final=final)
        self._watch(self._report)

    def _tell_of_wait(self) -> None:
        """Tells at once: while the listing waits nobody polls the head."""
        self._told_at = 0.0
        self._tell()

    def _note(self, *, final: bool = True) -> None:
        """Brings the report up to date."""
        report, traffic, children = self._report, self._connection.traffic, self.children
        report.stopped = self._stopped if final else ""
        report.since_ms = self._since()
        report.requests, report.refusals = dict(traffic.requests), dict(traffic.refusals)
        report.waited_seconds = dict(traffic.waited_seconds)
        report.waiting_until = self._connection.waiting_until()
        report.failing = dict(traffic.failing)
        report.asked, report.loaded, report.gone = dict(children.asked), dict(children.loaded), children.gone
        report.set_aside = self._left_out()
        report.staged, report.owed = self._staged, children.owed_requests()
        report.owed_seconds = children.owed_seconds()


def _visits(user: Listed) -> int:
    """How many sessions a user may have: as many as the listing says, if it does."""
    return max(1, int(number_or_none(user.record.get("total_number_visits")) or 1))
