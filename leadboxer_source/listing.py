"""From holes in the coverage to complete lists of users: windows of days, drained page by page.

A listing is read to its end before anybody is handed out, because a page token dies after ten minutes. Two facts of
the API shape this module (https://developers.leadboxer.com/reference/users): the filter cuts whole days, and whether
the list is a snapshot or moves while it is paged is not known.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

import orjson
from dlt.common import logger

from leadboxer_source import errors, settings
from leadboxer_source.client import Api, Days, Page, Record
from leadboxer_source.clock import Clock
from leadboxer_source.coverage import Stretch
from leadboxer_source.rows import identifier, instant, last_activity_ms


class Listed(NamedTuple):
    """A user as listed: the key, the last activity in epoch milliseconds, and the whole record."""

    user_id: str
    last_event_ms: int | None
    record: Record


class Listing:
    """A drained window. Pages are kept packed: a day may hold a hundred thousand users.

    Args:
        window: What is asked for.
        user_ids: Every id that was listed, as itself; shared by the listings of a run.

    Attributes:
        window: What was asked for.
        started_ms: The server's clock when its first page was answered.
        atomic: Whether nobody moved while it was read: it came in one answer, or a pass proved it.
        in_order: Whether users were added newest first.
        settled: Whether nobody can have been skipped; see `Lister.drain`.
    """

    def __init__(self, window: Stretch, user_ids: dict[str, str] | None = None) -> None:
        self.window = window
        self.started_ms: int | None = None
        self.atomic = False
        self.in_order = True
        self.settled = True
        self._last_events: dict[str, int | None] = {}
        self._user_ids = {} if user_ids is None else user_ids
        self._oldest: int | None = None
        self._packed: list[bytes] = []

    def __len__(self) -> int:
        return len(self._last_events)

    def listed(self, records: list[Record]) -> list[Listed]:
        """The users among the records; one without its key cannot be asked for.

        Ids outlive their page, and each is listed several times. Were it a string of its own each time, memory would
        be full of strings between which nothing but the next page fits.
        """
        named = ((identifier(record, "use_id"), record) for record in records)
        return [
            Listed(self._user_ids.setdefault(user_id, user_id), last_activity_ms(record), record)
            for user_id, record in named
            if user_id
        ]

    def add(self, users: list[Listed]) -> None:
        """Keeps those users that are new, or were seen again later."""
        news = [user for user in users if self._is_news(user)]
        for user in news:
            if user.last_event_ms is None or (self._oldest is not None and user.last_event_ms > self._oldest):
                self.in_order = False
            else:
                self._oldest = user.last_event_ms
        self._last_events.update((user.user_id, user.last_event_ms) for user in news)
        if news:
            self._packed.append(zlib.compress(orjson.dumps([user.record for user in news]), 1))

    def unordered(self) -> Iterator[Listed]:
        """Yields every user once, in any order and without the record."""
        return (Listed(user_id, last_event_ms, {}) for user_id, last_event_ms in self._last_events.items())

    def users(self) -> Iterator[Listed]:
        """Yields every user once, newest first (those of unknown activity before all)."""
        listed = (user for page in self._packed for user in self.listed(orjson.loads(zlib.decompress(page))))
        latest = (user for user in listed if self._last_events[user.user_id] == user.last_event_ms)
        if self.in_order:
            yield from latest
        else:
            yield from sorted(latest, key=lambda user: (user.last_event_ms is not None, -(user.last_event_ms or 0)))

    def _is_news(self, user: Listed) -> bool:
        if user.user_id not in self._last_events:
            return True
        known = self._last_events[user.user_id]
        return user.last_event_ms is not None and (known is None or user.last_event_ms > known)


class _Chain(NamedTuple):
    """One pass over a window's pages.

    `still`: no page repeated a user, so nobody came in front while it was read. `repeated`: it ended because its last
    pages brought nobody new.
    """

    user_ids: set[str]
    pages: int
    atomic: bool
    still: bool
    repeated: bool

    def agrees_with(self, later: _Chain) -> bool:
        """Whether the next pass proves that this one missed nobody."""
        return self.user_ids == later.user_ids if self.repeated else self.user_ids <= later.user_ids


class _ChainBroken(Exception):
    """The token died or the list ended too early: the window has to be listed anew."""


def window_of(hole: Stretch, days: int) -> Stretch:
    """Returns the newest `days` whole days of a hole, or less where it ends."""
    newest_day = (hole.hi - 1) // settings.DAY_MS
    return Stretch(max(hole.lo, (newest_day - days + 1) * settings.DAY_MS), hole.hi)


def days_of(window: Stretch) -> Days:
    """Returns the days to ask for so that the window is among the answer in every reading of the time filter."""
    return Days(_day(listed_from(window)), _day(window.hi - 1) + timedelta(days=settings.OVERLAP_AFTER_DAYS))


def listed_from(window: Stretch) -> int:
    """Returns when the days begin that are asked for to list a window, in epoch milliseconds."""
    return (window.lo // settings.DAY_MS - settings.OVERLAP_BEFORE_DAYS) * settings.DAY_MS


def next_days(days: int, users: int) -> int:
    """Returns how many days the next window takes, from what the last one listed; emptiness is crossed in strides."""
    growth = 4 if users else 32
    # the days after a window are listed with it: counted as its own, they would keep windows of busy sites at a day
    listed_days = days + settings.OVERLAP_AFTER_DAYS
    return max(1, min(growth * days, listed_days * settings.WINDOW_USERS // max(users, 1)))


def _day(epoch_ms: int) -> date:
    return instant(epoch_ms).date()


class Lister:
    """Drains windows; remembers what it learned of the API's page size.

    Attributes:
        user_ids: Every id that was listed, as itself.
    """

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._limit = settings.PAGE_LIMIT
        self._largest_page = 0
        self.user_ids: dict[str, str] = {}

    def drain(self, window: Stretch) -> Listing:
        """Lists everybody last seen in the window (and, for the API's grain, in the days around it).

        A listing that came in one answer is atomic. While a longer one is read, somebody may leave it from a place that
        was read already: back to life, and so out of a window of the past, or merged into somebody else. If the token
        is a position, that pulls the rest forward, past it, and one user is skipped. So the window is listed until two
        passes agree: whoever was in the first is in the second, which proves that nobody left the first while it was
        read. (Those who join a window that reaches up to now do so in front, which only repeats users.) Windows so
        long that somebody always leaves settle for two passes in a row that bring nobody new.

        Raises:
            ListingUnstable: Its token chain broke again and again.
        """
        listing = Listing(window, self.user_ids)
        chain = self._pass(listing)
        listing.atomic = chain.atomic
        quiet = 0
        for _ in range(settings.MAX_PASSES):
            if chain.atomic:
                return listing
            known = len(listing)
            before, chain = chain, self._pass(listing)
            quiet = 0 if len(listing) > known else quiet + 1
            if before.agrees_with(chain):
                # nobody left from before the place that was read, and nobody came in front of it
                listing.atomic = before.still
                return listing
            if quiet > 1 and chain.pages >= settings.LARGE_WINDOW_PAGES:
                return listing
        listing.settled = False
        return listing

    def _pass(self, listing: Listing) -> _Chain:
        """One pass over the pages, begun anew where the chain breaks."""
        for restarts in range(settings.LISTING_RESTARTS + 1):
            try:
                return self._chain(listing, may_be_short=restarts > 0)
            except _ChainBroken as broken:
                logger.info(f"Listing of {_day(listing.window.lo)} restarts: {broken}")
        raise errors.ListingUnstable(
            f"LeadBoxer's listing of {_day(listing.window.lo)} broke off {settings.LISTING_RESTARTS + 1} times; "
            "what was loaded is kept, run again later."
        )

    def _chain(self, listing: Listing, *, may_be_short: bool) -> _Chain:
        """Follows the tokens to the end of the list, or to where everything is older than the window."""
        days = days_of(listing.window)
        seen: set[str] = set()
        in_order, still, repeats, nameless = True, True, 0, 0
        sizes: list[int] = []
        previous: int | None = None
        token: str | None = None
        for _ in range(settings.PAGE_GUARD):
            asked_at = self._clock.time()
            page = self._page(days, token, listing)
            users = listing.listed(page.users)
            nameless += len(page.users) - len(users)
            if token is not None and not users and self._clock.time() - asked_at > settings.TOKEN_SECONDS:
                raise _ChainBroken("the token was too old")
            fresh = [user for user in users if user.user_id not in seen]
            still = still and len(fresh) == len(users)
            listing.add(fresh)
            seen.update(user.user_id for user in fresh)
            sizes.append(len(page.users))
            for user in users:
                last = user.last_event_ms
                in_order = in_order and last is not None and (previous is None or last <= previous)
                previous = last if last is not None else previous
            if in_order and previous is not None and previous < listing.window.lo:
                break
            # whoever comes in front pushes the others back, and a page repeats the one before; several in a row end it
            repeats = repeats + 1 if users and not fresh else 0
            # a total ends nothing: it may count the page only, or no further than so far
            if page.token is None or not users or repeats >= settings.REPEATED_PAGES:
                if page.total is not None and len(seen) < page.total and not may_be_short:
                    raise _ChainBroken("the list ended before its total")
                break
            token = page.token
        else:
            raise errors.ListingUnstable("LeadBoxer's listing does not end; tell its support, and us.")
        if nameless and not seen:
            raise errors.NotLeadBoxer("LeadBoxer's users have no use_id; upgrade leadboxer-source, or tell us.")
        if nameless:
            logger.warning(f"{nameless} users came without use_id and cannot be loaded.")
        self._largest_page = max(self._largest_page, *sizes)
        # a first page smaller than others were was not cut, whatever limit the API applies in silence
        atomic = len(sizes) == 1 or (sizes[0] < self._largest_page and not repeats)
        return _Chain(seen, len(sizes), atomic, still, repeated=repeats > 0)

    def _page(self, days: Days, token: str | None, listing: Listing) -> Page:
        try:
            page = self._api.page(days, token, self._limit)
        except errors.RequestRefused as refusal:
            if token is not None:
                raise _ChainBroken(f"status {refusal.status} to a token") from None
            if not refusal.may_be_for_its_limit or self._limit == settings.FALLBACK_PAGE_LIMIT:
                raise
            self._limit = settings.FALLBACK_PAGE_LIMIT
            return self._page(days, token, listing)
        except (errors.ApiUnavailable, errors.NotLeadBoxer):
            if token is not None:
                raise _ChainBroken("no answer to a token") from None
            raise
        if token is None and listing.started_ms is None:
            listing.started_ms = page.server_ms
        return page
