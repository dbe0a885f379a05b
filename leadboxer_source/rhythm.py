"""When in a week people are active, from when some of them were: pure.

A page of the listing may hold an afternoon or a weekend. What it tells of all the other hours depends on how busy those
are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple

from leadboxer_source.coverage import Stretch

_HOUR_MS = 3_600_000
_HOURS = 168
_WEEK_MS = _HOURS * _HOUR_MS
_ROUNDS = 12
_PRIOR = 10.0
"""Visits by which each hour and each day is taken to be like any other: a few seen prove nothing."""


class Sample(NamedTuple):
    """When people were active, as far as that is known for a stretch: all of them, or a fair share."""

    stretch: Stretch
    times: Sequence[int]


class Rhythm:
    """A clock that runs as visits come: fast by day, slow at night and at weekends. In a week it goes as far as others.

    Args:
        weights: How busy each hour is, from 1 January 1970 00:00 UTC on, for a week. Of any sum but 0.
    """

    def __init__(self, weights: Sequence[float] = (1.0,) * _HOURS) -> None:
        whole = sum(weights)
        self._passed = [_WEEK_MS * passed / whole for passed in accumulate(weights, initial=0.0)]

    def at(self, instant_ms: int) -> float:
        """Returns what the clock shows, in milliseconds since 1970."""
        weeks, rest = divmod(instant_ms, _WEEK_MS)
        hour, part = divmod(rest, _HOUR_MS)
        begun = self._passed[hour]
        return weeks * _WEEK_MS + begun + (self._passed[hour + 1] - begun) * part / _HOUR_MS

    def between(self, stretch: Stretch) -> float:
        """Returns how far the clock goes in a stretch."""
        return self.at(stretch.hi) - self.at(stretch.lo)


def rhythm_of(samples: Iterable[Sample]) -> Rhythm:
    """Finds the rhythm in which the samples are likely: a weight for each day of the week, and for each hour of a day.

    Where enough was seen, an hour of the week has one of its own too: weekends are more even. How many were active in
    one sample says nothing of another; only when they were within it does.
    """
    known = [(_exposure(sample.stretch), _counts(sample.times)) for sample in samples if sample.times]
    seen = [sum(counts[hour] for _, counts in known) for hour in range(_HOURS)]
    days, hours, usual = [1.0] * 7, [1.0] * 24, [0.0] * _HOURS
    for _ in range(_ROUNDS):
        weights = [day * hour for day in days for hour in hours]
        usual = [0.0] * _HOURS  # how many would be seen in each hour of the week, were it like any other
        for exposure, counts in known:
            pace = sum(counts) / sum(map(mul, exposure, weights))
            usual = [sofar + pace * exposed for sofar, exposed in zip(usual, exposure, strict=True)]
        days = [_weight(seen[day : day + 24], usual[day : day + 24], hours) for day in range(0, _HOURS, 24)]
        hours = [_weight(seen[hour::24], usual[hour::24], days) for hour in range(24)]
    weights = [day * hour for day in days for hour in hours]
    return Rhythm([weights[hour] * _weight([seen[hour]], [usual[hour]], [weights[hour]]) for hour in range(_HOURS)])


def _weight(seen: Sequence[int], usual: Sequence[float], weights: Sequence[float]) -> float:
    expected: float = sum(map(mul, usual, weights))
    return (sum(seen) + _PRIOR) / (expected + _PRIOR)


def _counts(times: Iterable[int]) -> list[int]:
    counts = [0] * _HOURS
    for at in times:
        counts[at // _HOUR_MS % _HOURS] += 1
    return counts


def _exposure(stretch: Stretch) -> list[float]:
    """How long a stretch lies in each hour of the week, in milliseconds."""
    weeks, _ = divmod(stretch.hi - stretch.lo, _WEEK_MS)
    exposure = [float(weeks * _HOUR_MS)] * _HOURS
    at = stretch.lo + weeks * _WEEK_MS
    while at < stretch.hi:
        until = min((at // _HOUR_MS + 1) * _HOUR_MS, stretch.hi)
        exposure[at // _HOUR_MS % _HOURS] += until - at
        at = until
    return exposure
