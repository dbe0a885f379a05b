"""Coverage by properties: each is what one of the rules rests on."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from leadboxer_source.coverage import Coverage, Stretch, add, clip, common, covers, holes, uncover

instants = st.integers(0, 60)
stretches = st.builds(lambda a, b: Stretch(min(a, b), max(a, b)), instants, instants)
coverages = st.lists(stretches, max_size=6).map(lambda found: add([], found))
EVERY = range(-1, 62)


def instants_of(covered: Coverage) -> set[int]:
    return {instant for instant in EVERY if covers(covered, instant)}


@given(st.lists(stretches, max_size=6), st.lists(stretches, max_size=6))
def test_a_union_covers_what_either_covers_and_is_ascending_disjoint_and_never_touches(
    some: list[Stretch], more: list[Stretch]
) -> None:
    union = add(some, more)
    assert instants_of(union) == {i for i in EVERY if any(lo <= i < hi for lo, hi in [*some, *more])}
    assert all(lo < hi for lo, hi in union)
    assert all(before.hi < after.lo for before, after in pairwise(union))


@given(coverages, instants, instants)
def test_holes_are_what_is_not_covered_newest_first(covered: Coverage, since: int, until: int) -> None:
    found = holes(covered, since, until)
    assert instants_of(add([], found)) == {i for i in range(since, until) if not covers(covered, i)}
    assert found == sorted(found, reverse=True)
    assert all(lo < hi for lo, hi in found)


@given(coverages, instants, instants)
def test_everything_above_the_newest_hole_is_covered(covered: Coverage, since: int, until: int) -> None:
    for hole in holes(covered, since, until)[:1]:
        assert all(covers(covered, instant) for instant in range(hole.hi, until))


@given(coverages, instants, instants)
def test_filling_every_hole_leaves_none(covered: Coverage, since: int, until: int) -> None:
    assert holes(add(covered, holes(covered, since, until)), since, until) == []


@given(coverages, stretches)
def test_what_is_uncovered_is_a_hole_and_nothing_else_changes(covered: Coverage, gone: Stretch) -> None:
    left = uncover(covered, gone)
    assert instants_of(left) == instants_of(covered) - set(range(gone.lo, gone.hi))
    assert left == add([], left)


@given(st.lists(coverages, min_size=1, max_size=4))
def test_common_is_what_every_resource_covers(several: list[Coverage]) -> None:
    shared = common(several)
    assert instants_of(shared) == set.intersection(*(instants_of(one) for one in several))
    assert shared == add([], shared)


@given(coverages, instants, instants)
def test_a_clip_keeps_what_lies_inside(covered: Coverage, since: int, until: int) -> None:
    assert instants_of(clip(covered, since, until)) == instants_of(covered) & set(range(since, until))


def test_an_unknown_instant_is_never_covered_and_nothing_covers_nothing() -> None:
    assert not covers([Stretch(0, 10**15)], None)
    assert common([]) == []
    assert holes([], 5, 5) == []


def test_stretches_that_touch_become_one_and_empty_ones_vanish() -> None:
    assert add([Stretch(0, 5)], [Stretch(5, 9)]) == [Stretch(0, 9)]
    assert add([Stretch(0, 5)], [Stretch(6, 9), Stretch(7, 7)]) == [Stretch(0, 5), Stretch(6, 9)]
