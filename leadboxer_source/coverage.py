"""Which stretches of last-activity time are loaded: set arithmetic, no clock, no client.

A stretch is half-open, `[lo, hi)` in epoch milliseconds (UTC). A coverage is a list of stretches, ascending, disjoint
and never touching. A session counts as loaded if and only if its last activity lies inside coverage.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Stretch(NamedTuple):
    """The half-open stretch of time `[lo, hi)`, in epoch milliseconds."""

    lo: int
    hi: int


Coverage = list[Stretch]


def add(covered: Iterable[Stretch], more: Iterable[Stretch]) -> Coverage:
    """Returns the union of both; stretches that touch become one, empty ones vanish."""
    union: Coverage = []
    for lo, hi in sorted([*covered, *more]):
        if lo >= hi:
            continue
        if union and lo <= union[-1].hi:
            union[-1] = Stretch(union[-1].lo, max(union[-1].hi, hi))
        else:
            union.append(Stretch(lo, hi))
    return union


def holes(covered: Sequence[Stretch], since: int, until: int) -> list[Stretch]:
    """Returns what of `[since, until)` is not covered, newest first."""
    found: list[Stretch] = []
    top = until
    for lo, hi in reversed(covered):
        if hi < top:
            found.append(Stretch(max(hi, since), top))
        top = min(top, lo)
        if top <= since:
            break
    found.append(Stretch(since, top))
    return [hole for hole in found if hole.lo < hole.hi]


def clip(covered: Sequence[Stretch], since: int, until: int) -> Coverage:
    """Returns the part of the coverage that lies in `[since, until)`."""
    clipped = (Stretch(max(lo, since), min(hi, until)) for lo, hi in covered)
    return [stretch for stretch in clipped if stretch.lo < stretch.hi]


def uncover(covered: Sequence[Stretch], gone: Stretch) -> Coverage:
    """Returns the coverage without the stretch `gone`."""
    if gone.lo >= gone.hi or not covered:
        return list(covered)
    first, last = covered[0].lo, covered[-1].hi
    return clip(covered, first, gone.lo) + clip(covered, gone.hi, last)


def common(coverages: Sequence[Sequence[Stretch]]) -> Coverage:
    """Returns what every one of the coverages covers; of no coverages, nothing."""
    if not coverages:
        return []
    shared = list(coverages[0])
    for other in coverages[1:]:
        shared = [part for lo, hi in other for part in clip(shared, lo, hi)]
    return shared


def covers(covered: Sequence[Stretch], instant: int | None) -> bool:
    """Tells whether the instant is covered; an unknown one (`None`) never is."""
    if instant is None:
        return False
    position = bisect_right(covered, instant, key=lambda stretch: stretch.lo)
    return position > 0 and instant < covered[position - 1].hi
