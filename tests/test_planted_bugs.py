"""The search of `test_oracle.py` can fail: it finds each of these bugs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase

from leadboxer_source.client import Page
from leadboxer_source.coverage import Stretch, add
from leadboxer_source.failures import Failures
from leadboxer_source.listing import Lister, _ChainBroken
from leadboxer_source.slice import Slice
from leadboxer_source.state import COVERED
from leadboxer_source.transport import Transport
from tests.oracle import DAY_MS
from tests.test_oracle import InMemoryMachine, search


def _one_high_water_mark(patch: pytest.MonkeyPatch) -> None:
    def covers(covered: Any, instant: int | None) -> bool:
        return instant is not None and bool(covered) and instant < covered[-1].hi

    for module in ("slice", "children"):
        patch.setattr(f"leadboxer_source.{module}.covers", covers)


def _a_hole_is_closed_too_far(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "leadboxer_source.slice.add", lambda covered, more: add(covered, [Stretch(lo - DAY_MS, hi) for lo, hi in more])
    )


def _settle_is_dropped(patch: pytest.MonkeyPatch) -> None:
    conclude = Slice._conclude

    def settled_at_once(self: Slice, claim_top: int | None) -> None:
        self._stage(Stretch(self._start_ms, self._start_ms + 1))
        conclude(self, None if claim_top is None else claim_top + int(self._config.settle_seconds * 1_000))

    patch.setattr(Slice, "_conclude", settled_at_once)


def _a_token_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    get = Transport.get

    def resend(self: Transport, endpoint: str, path: str, params: Any, **_: Any) -> Any:
        return get(self, endpoint, path, params)

    patch.setattr(Transport, "get", resend)


def _sorted_asc(patch: pytest.MonkeyPatch) -> None:
    get = Transport.get

    def ascending(self: Transport, endpoint: str, path: str, params: Any, **more: Any) -> Any:
        return get(self, endpoint, path, {**params, "sortBy": "lastEvent|asc"}, **more)

    patch.setattr(Transport, "get", ascending)


def _claimed_before_it_was_fetched(patch: pytest.MonkeyPatch) -> None:
    hand_out = Slice._hand_out

    def hand_out_claimed(self: Slice, listing: Any, **more: Any) -> Any:
        self._stage(listing.window)
        return (yield from hand_out(self, listing, **more))

    patch.setattr(Slice, "_hand_out", hand_out_claimed)


def _claimed_for_everybody(patch: pytest.MonkeyPatch) -> None:
    memories = Slice.memories

    def all_of_them(self: Slice) -> Any:
        self._selected = list(COVERED)
        return memories(self)

    patch.setattr(Slice, "memories", all_of_them)


def _a_dead_token_ends_the_list(patch: pytest.MonkeyPatch) -> None:
    page = Lister._page

    def ended(self: Lister, days: Any, token: str | None, listing: Any) -> Any:
        try:
            return page(self, days, token, listing)
        except _ChainBroken:
            return Page([], None, None, None)

    patch.setattr(Lister, "_page", ended)


def _failures_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Failures, "put_aside", lambda self, name, parent_id, reason: None)


def _settled_by_anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slice, "_claimed_elsewhere", lambda self, endpoint: False)


def _read_once_is_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slice, "_ask_again", lambda self, unsettled: None)


def _no_last_look(patch: pytest.MonkeyPatch) -> None:
    def last_look(self: Slice) -> Any:
        yield None
        return self._start_ms - int(self._config.settle_seconds * 1_000)

    patch.setattr(Slice, "_last_look", last_look)


def _time_zones_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("leadboxer_source.settings.OVERLAP_BEFORE_DAYS", 0)
    patch.setattr("leadboxer_source.settings.OVERLAP_AFTER_DAYS", 0)


CALM: dict[str, Any] = {"dies_at": None, "max_requests": None, "faulty": 0.0}
SLOW = pytest.mark.slow  # hundreds of examples until one of them shows it
ONE_ON_A_PAGE = {**CALM, "max_limit": 1}
BUGS = [
    (_one_high_water_mark, {}),
    (_a_hole_is_closed_too_far, {}),
    (_settle_is_dropped, {}),
    (_a_token_is_sent_again, {**ONE_ON_A_PAGE, "token_style": "constant", "lost_answers": [False, True, False] * 8}),
    (_sorted_asc, {**ONE_ON_A_PAGE, "list_state": "live"}),
    (_claimed_before_it_was_fetched, {}),
    (_claimed_for_everybody, {}),
    pytest.param(_a_dead_token_ends_the_list, {**ONE_ON_A_PAGE, "only": COVERED}, marks=SLOW),
    pytest.param(_failures_are_forgotten, CALM, marks=SLOW),
    pytest.param(_settled_by_anybody, {**CALM, "lost_answers": []}, marks=SLOW),
    pytest.param(_read_once_is_read, {**CALM, "seconds_a_request": 30, "lost_answers": []}, marks=SLOW),
    pytest.param(_no_last_look, {**CALM, "seconds_a_request": 30, "lost_answers": [], "only": COVERED}, marks=SLOW),
    (_time_zones_do_not_matter, {}),
]


@pytest.mark.parametrize(("plant", "fixed"), BUGS, ids=lambda value: getattr(value, "__name__", "").strip("_"))
def test_the_search_finds_a_planted_bug(
    plant: Callable[[pytest.MonkeyPatch], None], fixed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    machine = type("Biased", (InMemoryMachine,), {"fixed": fixed})
    with pytest.raises(AssertionError):
        search(machine, examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)
