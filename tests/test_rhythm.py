"""The hours at which people are active are told by a few of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadboxer_source.coverage import Stretch
from leadboxer_source.rhythm import Rhythm, Sample, rhythm_of
from leadboxer_source.settings import DAY_MS

HOUR_MS = DAY_MS // 24
WEEK_MS = 7 * DAY_MS

times = st.integers(0, 4 * WEEK_MS)


@given(st.lists(st.floats(0, 100), min_size=168, max_size=168).filter(sum), times, times)
def test_a_rhythm_never_runs_back_and_goes_as_far_as_others_in_a_week(
    weights: list[float], one: int, other: int
) -> None:
    rhythm = Rhythm(weights)
    assert rhythm.at(min(one, other)) <= rhythm.at(max(one, other))
    assert rhythm.between(Stretch(one, one + WEEK_MS)) == pytest.approx(WEEK_MS)


@given(times, times)
def test_without_a_sample_all_hours_are_alike(one: int, other: int) -> None:
    assert rhythm_of([]).between(Stretch(one, other)) == pytest.approx(other - one)


def busy(hours: range, days: range = range(7), per_hour: int = 20) -> list[int]:
    """Activity in some hours of some days, over four weeks."""
    return [
        (week * 7 + day) * DAY_MS + hour * HOUR_MS + number * HOUR_MS // per_hour
        for week in range(4)
        for day in days
        for hour in hours
        for number in range(per_hour)
    ]


def share(rhythm: Rhythm, *stretches: Stretch) -> float:
    """How much of a week's activity lies in some stretches of it."""
    return sum(map(rhythm.between, stretches)) / WEEK_MS


def test_hours_and_days_without_activity_hardly_count() -> None:
    rhythm = rhythm_of([Sample(Stretch(0, 4 * WEEK_MS), busy(range(8, 18), range(5)))])
    mornings = [Stretch(day * DAY_MS, day * DAY_MS + 8 * HOUR_MS) for day in range(7)]
    assert share(rhythm, *mornings) < 0.02
    assert share(rhythm, Stretch(5 * DAY_MS, WEEK_MS)) < 0.02
    assert share(rhythm, Stretch(8 * HOUR_MS, 18 * HOUR_MS)) == pytest.approx(1 / 5, rel=0.05)


def test_how_many_are_in_a_sample_says_nothing_of_its_hours() -> None:
    """Evenings were listed of a busy week, mornings of a quiet one; within each, all hours are alike."""
    evening, morning = Stretch(12 * HOUR_MS, DAY_MS), Stretch(WEEK_MS, WEEK_MS + 12 * HOUR_MS)
    samples = [Sample(evening, range(*evening, HOUR_MS // 90)), Sample(morning, range(*morning, HOUR_MS // 9))]
    rhythm = rhythm_of(samples)
    assert share(rhythm, Stretch(0, 12 * HOUR_MS)) == pytest.approx(1 / 14, rel=0.02)


def test_a_few_times_prove_little() -> None:
    rhythm = rhythm_of([Sample(Stretch(0, WEEK_MS), [9 * HOUR_MS, 9 * HOUR_MS + 1])])
    assert share(rhythm, Stretch(0, DAY_MS)) == pytest.approx(1 / 7, rel=0.5)
