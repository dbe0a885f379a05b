"""How many users were last seen when, from a few pages of the listing: pure.

A page shows the newest users of a window, so it lists a stretch of time completely. A survey chooses windows that
together bound the rest best, and estimates what lies between two listed stretches from the density in both, as busy as
the hours between them are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from leadboxer_source.client import Page
from leadboxer_source.coverage import Stretch, add, clip, holes
from leadboxer_source.rhythm import Rhythm, Sample, rhythm_of
from leadboxer_source.rows import last_activity_ms, number_or_none
from leadboxer_source.settings import DAY_MS

MOST_REQUESTS = 10
_SURE_ENOUGH = 0.02
_CUTS = 16


class Seen(NamedTuple):
    """A listed user: when last and first active (epoch milliseconds), with how many visits, and whether a company."""

    user_id: str
    last_ms: int
    first_ms: int | None
    visits: int | None
    company: bool


class Ask(NamedTuple):
    """The next page to ask for: the newest of a window, or what follows an earlier page.

    Attributes:
        window: What the page is to tell about.
        asked: What to ask for: with a token, the window that the first page was asked for.
        token: Of the page before.
    """

    window: Stretch
    asked: Stretch
    token: str | None = None


class Piece(NamedTuple):
    """A stretch of time with those last seen in it, spread evenly.

    Attributes:
        stretch: When they were last seen.
        users: How many.
        visits: Their visits that are owed.
        companies: How many of the users are identified companies.
        company_visits: The visits of these.
        listed: Whether they were listed, not estimated.
    """

    stretch: Stretch
    users: float
    visits: float
    companies: float
    company_visits: float
    listed: bool

    def part(self, within: Stretch) -> float:
        """Returns the share of the piece that lies within a stretch."""
        lo, hi = max(self.stretch.lo, within.lo), min(self.stretch.hi, within.hi)
        return max(0, hi - lo) / (self.stretch.hi - self.stretch.lo)


class _Listed(NamedTuple):
    """A stretch in which everybody was listed; `cut` counts its ends that lie at a user, because the page was full."""

    stretch: Stretch
    seen: list[Seen]
    cut: int

    @property
    def inside(self) -> int:
        """Users without those at its ends: a stretch that ends where a user is seen holds more than its share."""
        return max(len(self.seen) - self.cut, 0)


class Point(NamedTuple):
    """A density (users in a millisecond) and the age at which it was found, in milliseconds of the rhythm."""

    age: float
    density: float


class Survey:
    """Chooses which windows to list, and tells what they amount to.

    Args:
        spans: Stretches of last activity that are to be loaded.
        covered: Where events are loaded already; older visits of somebody who came back cost nothing.
        limit: Users asked for on a page.
        most: Pages that may be asked for.

    Attributes:
        spent: Requests so far.
        visits_told: Whether the listing tells how many visits a user has.
    """

    def __init__(
        self, spans: Sequence[Stretch], covered: Sequence[Stretch], limit: int, most: int = MOST_REQUESTS
    ) -> None:
        self.spent = 0
        self.visits_told = False
        self._largest = 0
        self._cut_at = 0
        self._covered = covered
        self._limit = limit
        self._most = most
        self._spans = add([], spans)
        self._listed: list[_Listed] = []
        self._rhythm = Rhythm()
        self._known: set[str] = set()
        self._token: str | None = None
        self._reached = self._spans[-1].hi if self._spans else 0
        self._total: int | None = None

    @property
    def hours_told(self) -> bool:
        """Whether it was seen how busy the hours of a day are."""
        return any(sample.stretch.hi - sample.stretch.lo >= DAY_MS for sample in self._samples())

    @property
    def page_size(self) -> int:
        """Users that come on a page, as far as any page was full."""
        return self._cut_at or self._limit

    def refused(self, limit: int) -> None:
        """Notes that the API refused the limit, and which one is asked for from now on."""
        self.spent += 1
        self._limit = limit

    def next(self) -> Ask | None:
        """Returns what to ask for next, or `None` once nothing more can or need be learned."""
        if not self._spans or self.spent >= self._most:
            return None
        whole = Stretch(self._spans[0].lo, self._spans[-1].hi)
        if not self._listed:
            return Ask(whole, whole)
        gaps = self._gaps()
        expected = sum(self._estimate(gap) for gap in gaps)
        on = Ask(Stretch(whole.lo, self._reached), whole, self._token) if self._token else None
        left = (self._most - self.spent) * self._largest
        if not gaps or (on and expected <= 0.9 * left):
            return on if gaps else None
        if self.doubt() <= _SURE_ENOUGH * (self._users_listed + expected):
            return None
        for gap in sorted(gaps, key=lambda gap: self._bias(gap) + self._chance(gap), reverse=True):
            if middle := self._middle(gap):
                window = Stretch(gap.lo, middle)
                return Ask(window, window)
        return on

    def add(self, ask: Ask, page: Page) -> None:
        """Takes in a page."""
        self.spent += 1
        known = self._known
        seen = [user for user in map(seen_of, page.users) if user is not None and user.user_id not in known]
        known.update(user.user_id for user in seen)
        oldest = min((user.last_ms for user in seen), default=ask.window.hi)
        top = ask.window.hi
        first = not self._listed
        self.visits_told = self.visits_told or any(user.visits for user in seen)
        if first:
            self._total = page.total
        # the API may cap the limit in silence: only a page smaller than another is known to be whole
        is_chain = first or ask.token is not None
        whole = not page.users or not seen or oldest < ask.window.lo
        whole = whole or (page.token is None and len(page.users) < self._limit)
        whole = whole or (not first and len(page.users) < self._largest)
        whole = whole or (first and page.total is not None and page.total <= len(page.users))
        self._largest = max(self._largest, len(page.users))
        if not whole:
            self._cut_at = max(self._cut_at, len(page.users))
        if not whole and not is_chain:
            top = max(user.last_ms for user in seen) + 1  # days may end early in the API's reading
        lo = ask.window.lo if whole else oldest
        if is_chain:
            self._token, self._reached = (None if whole else page.token), lo
        if lo < top:
            cut = 0 if whole else 1 if is_chain else 2
            self._listed.append(_Listed(Stretch(lo, top), [user for user in seen if lo <= user.last_ms < top], cut))
            self._listed.sort(key=lambda part: part.stretch)
            self._rhythm = rhythm_of(self._samples())

    def pieces(self) -> list[Piece]:
        """Returns what is to be loaded, newest first."""
        found = [piece for part in self._listed for piece in self._cut(part)]
        gaps = self._gaps()
        scale = 1.0
        expected = sum(self._estimate(gap) for gap in gaps)
        if self._counted is not None and expected:
            scale = max(0.0, self._counted - self._users_listed) / expected
        for gap in gaps:
            found += self._between(gap, scale)
        return sorted(found, key=lambda piece: piece.stretch, reverse=True)

    def doubt(self) -> float:
        """Returns by how many users the pieces may be wrong."""
        if self._counted is not None:
            return 0.0
        gaps = self._gaps()
        return sum(self._bias(gap) for gap in gaps) + math.hypot(*(self._chance(gap) for gap in gaps))

    @property
    def _users_listed(self) -> int:
        return sum(len(part.seen) for part in self._listed)

    @property
    def _counted(self) -> int | None:
        """How many users are to be loaded, if the API tells."""
        return None if self._covered else self._total

    def _gaps(self) -> list[Stretch]:
        """What is to be loaded and was not listed."""
        listed = add([], [part.stretch for part in self._listed])
        return [gap for span in self._spans for gap in holes(clip(listed, span.lo, span.hi), span.lo, span.hi)]

    def _neighbours(self, gap: Stretch) -> tuple[_Listed | None, _Listed | None]:
        """The listed stretches before and after a gap."""
        before = [part for part in self._listed if part.stretch.hi <= gap.lo]
        after = [part for part in self._listed if part.stretch.lo >= gap.hi]
        return (before[-1] if before else None), (after[0] if after else None)

    def _samples(self) -> Iterator[Sample]:
        """When people were active: all in what was listed, and whoever was listed when they were first seen.

        That moment is of any hour, where the listed stretches may all be evenings; but not if it lies in one itself.
        """
        for part in self._listed:
            if part.inside:
                yield Sample(part.stretch, [user.last_ms for user in part.seen])
        firsts = [
            user.first_ms
            for part in self._listed
            for user in part.seen
            if user.first_ms is not None and user.first_ms < part.stretch.lo - DAY_MS
        ]
        if firsts:
            yield Sample(Stretch(min(firsts), max(firsts) + 1), firsts)

    def _age(self, instant_ms: float) -> float:
        """How long ago that is, by the rhythm."""
        return self._rhythm.at(self._spans[-1].hi) - self._rhythm.at(int(instant_ms))

    def _borders(self, gap: Stretch) -> tuple[Point, Point]:
        """What is known of the density at the newer and at the older end."""
        before, after = self._neighbours(gap)
        known = [
            Point(
                (self._age(part.stretch.lo) + self._age(part.stretch.hi)) / 2,
                part.inside / max(1.0, self._rhythm.between(part.stretch)),  # a moment at night may be none
            )
            for part in (after, before)
            if part
        ]
        return known[0], known[-1]

    def _estimate(self, gap: Stretch, within: Stretch | None = None) -> float:
        """Users in a gap, or in a part of it."""
        part = within or gap
        newer, older = self._borders(gap)
        ages = (self._age(end) for end in (gap.hi, gap.lo, part.hi, part.lo))
        return users_between(newer, older, *ages)

    def _bias(self, gap: Stretch) -> float:
        """By how many users the estimate may be wrong: as if either border's density held all the way."""
        newer, older = (border.density for border in self._borders(gap))
        length = self._rhythm.between(gap)
        if None in self._neighbours(gap):
            return max(older, newer) * length
        return abs(older - newer) / 2 * length

    def _chance(self, gap: Stretch) -> float:
        """By how many users it may be wrong as few were seen at the borders: twice the standard error of their mean."""
        few = sum(1 / (part.inside + 1) for part in self._neighbours(gap) if part)
        return self._estimate(gap) * math.sqrt(few)

    def _middle(self, gap: Stretch) -> int | None:
        """The end of the day in the middle of a gap, as its age counts; `None` where days cannot cut it."""
        now = self._spans[-1].hi
        young, old = max(now - gap.hi, DAY_MS), now - gap.lo
        age = (young * old) ** 0.5 if old > 3 * young else (young + old) / 2
        middle = -int(-(now - age) // DAY_MS) * DAY_MS
        return middle if gap.lo + DAY_MS <= middle <= gap.hi - DAY_MS else None

    def _cut(self, part: _Listed) -> list[Piece]:
        """A listed stretch in pieces of a day or more, without what is loaded already."""
        lo, hi = part.stretch
        step = max(DAY_MS, (hi - lo) // _CUTS + 1)
        found: list[Piece] = []
        for start in range(lo, hi, step):
            found += [
                self._piece(span, [user for user in part.seen if span.lo <= user.last_ms < span.hi])
                for span in clip(self._spans, start, min(start + step, hi))
            ]
        return found

    def _piece(self, span: Stretch, seen: Sequence[Seen]) -> Piece:
        companies = [user for user in seen if user.company]
        owed, company_owed = (sum(self._owed(user) for user in users) for users in (seen, companies))
        return Piece(span, len(seen), owed, len(companies), company_owed, listed=True)

    def _between(self, gap: Stretch, scale: float) -> list[Piece]:
        """A gap in pieces, its density and its users as those around it."""
        near = [user for part in self._neighbours(gap) if part for user in part.seen]
        near = near or [user for part in self._listed for user in part.seen]
        if not near:
            return []
        alike = self._piece(gap, near)
        step = max(DAY_MS, (gap.hi - gap.lo) // _CUTS + 1)
        found = []
        for start in range(gap.lo, gap.hi, step):
            span = Stretch(start, min(start + step, gap.hi))
            users = self._estimate(gap, span) * scale
            each = users / len(near)
            visits, companies, theirs = alike.visits * each, alike.companies * each, alike.company_visits * each
            found.append(Piece(span, users, visits, companies, theirs, listed=False))
        return found

    def _owed(self, user: Seen) -> float:
        """Visits whose events are not loaded: those after the newest covered moment, if the user was there then."""
        visits = user.visits or 1
        below = max((hi for _, hi in self._covered if hi <= user.last_ms), default=None)
        if below is None or user.first_ms is None or user.first_ms >= below or visits < 2:
            return visits
        # the last visit is where the user was seen; the others are taken to lie evenly before it
        return 1 + (visits - 2) * (user.last_ms - below) / (user.last_ms - user.first_ms)


def users_between(newer: Point, older: Point, youngest: float, oldest: float, young: float, old: float) -> float:
    """Integrates the density of last visits over a part of a gap between two listed stretches.

    It falls with age, as people come back: steeply first. So it is taken for a power of the age, or for a line where
    one of the densities is 0.

    Args:
        newer: The listed stretch after the gap.
        older: The one before it.
        youngest: Age at which the gap begins.
        oldest: Age at which it ends.
        young: Age at which the part begins.
        old: Age at which it ends.
    """
    if min(newer.density, older.density) <= 0 or older.age <= newer.age:
        middle = ((young + old) / 2 - youngest) / max(1, oldest - youngest)
        return (old - young) * (newer.density + (older.density - newer.density) * middle)
    power = math.log(older.density / newer.density) / math.log(older.age / newer.age)
    power = min(max(power, -0.9), 2.0)
    factor = newer.density / math.pow(newer.age, power) / (power + 1)
    return factor * (math.pow(old, power + 1) - math.pow(young, power + 1))


def seen_of(record: dict[str, object]) -> Seen | None:
    """Reads a listed user; one without id or time cannot be placed."""
    user_id, last = record.get("use_id"), last_activity_ms(record)
    if not user_id or last is None:
        return None
    filled = {name.lower() for name, value in record.items() if value not in (None, "")}
    person = bool(filled & {"email", "firstname", "lastname"})
    company = not person and bool(filled & {"organizationname", "last_most_likely_company"})
    first = number_or_none(record.get("first_session_unix_timestamp"))
    visits = number_or_none(record.get("total_number_visits"))
    return Seen(str(user_id), last, first, visits if visits and visits > 0 else None, company)
