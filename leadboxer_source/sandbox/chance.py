"""Chance from a seed: cheap dice, and the hours at which people visit a website of use at work."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

Option = TypeVar("Option")

_MASK = 2**64 - 1
_HOUR_MS = 3_600_000
_WEEK_MS = 168 * _HOUR_MS
_MONDAY_MS = 4 * 24 * _HOUR_MS  # 1970 began on a Thursday
_WORKDAY = (1, 1, 1, 1, 1, 2, 6, 14, 34, 52, 56, 50, 34, 46, 54, 50, 42, 28, 16, 13, 12, 9, 5, 2)
_WEEKEND = (1, 1, 1, 1, 1, 1, 1, 2, 4, 6, 7, 7, 6, 6, 7, 7, 7, 7, 8, 9, 8, 6, 3, 2)
_PASSED = list(accumulate((*_WORKDAY * 5, *_WEEKEND * 2), initial=0))
"""How many of a week's visits lie before each of its hours."""


class Dice:
    """Numbers that look random and are the same for the same keys. `random.Random` takes long to begin."""

    def __init__(self, *keys: int) -> None:
        self._state = 0
        for key in keys:
            self._state = (self._state ^ key) * 0x9E3779B97F4A7C15 & _MASK
            self._state ^= self._state >> 32

    def random(self) -> float:
        """Returns a number of at least 0 and less than 1."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 33) / 2**31

    def pick(self, options: Sequence[Option]) -> Option:
        """Returns one of some things, each as likely as the others."""
        return options[int(self.random() * len(options))]

    def weighted(self, options: Sequence[Option], passed: Sequence[float]) -> Option:
        """Returns one of some things; `passed` has the sum of the weights up to and with each of them."""
        return options[bisect_right(passed, self.random() * passed[-1])]


def moment(lo_ms: int, hi_ms: int, share: float, utc_offset: int | None) -> int:
    """Returns when in `[lo_ms, hi_ms)` this share of the visits has been, by the hours of a place's week.

    Without a place, visits come evenly around the clock.
    """
    if utc_offset is None:
        found = lo_ms + int(share * (hi_ms - lo_ms))
    else:
        shift = utc_offset * _HOUR_MS - _MONDAY_MS
        lo, hi = _visits(lo_ms + shift), _visits(hi_ms + shift)
        found = _when(lo + share * (hi - lo)) - shift
    return max(min(lo_ms, hi_ms - 1), min(hi_ms - 1, found))


def _visits(at_ms: int) -> float:
    """How many visits there are until a moment, in weights of hours."""
    weeks, rest = divmod(at_ms, _WEEK_MS)
    hour, part = divmod(rest, _HOUR_MS)
    return weeks * _PASSED[-1] + _PASSED[hour] + (_PASSED[hour + 1] - _PASSED[hour]) * part / _HOUR_MS


def _when(visits: float) -> int:
    """The moment until which there are so many visits."""
    weeks, rest = divmod(visits, _PASSED[-1])
    hour = min(bisect_right(_PASSED, rest), 168) - 1
    part = (rest - _PASSED[hour]) / (_PASSED[hour + 1] - _PASSED[hour])
    return int(weeks) * _WEEK_MS + hour * _HOUR_MS + int(part * _HOUR_MS)
