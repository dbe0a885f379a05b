"""Nothing is lost while the world moves; and every rule that makes it so is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from leadboxer_source import settings
from leadboxer_source.children import Children
from leadboxer_source.listing import Lister, Listing
from leadboxer_source.sandbox import Request
from leadboxer_source.slice import Slice
from tests.conftest import Desk
from tests.model import Bias, lose


def test_no_world_of_the_model_loses_anything() -> None:
    losses = {seed: told for seed in range(1_500) if (told := lose(seed))}
    assert not losses


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_no_world_of_a_long_search_loses_anything(part: int) -> None:
    first = 1_000_000 + part * 10_000
    losses = {seed: told for seed in range(first, first + 10_000) if (told := lose(seed))}
    assert not losses


def _no_last_look(patch: pytest.MonkeyPatch) -> None:
    def last_look(self: Slice) -> Any:
        yield None
        return self._start_ms - 1

    patch.setattr(Slice, "_last_look", last_look)


def _one_look_of_any_length(patch: pytest.MonkeyPatch) -> None:
    drain: Callable[[Lister, Any], Listing] = Lister.drain
    look: Callable[[Slice], Any] = Slice._last_look

    def longest(self: Lister, window: Any) -> Listing:
        listing = Listing(window, self.user_ids)
        self._pass(listing)
        listing.atomic = True
        return listing

    def last_look(self: Slice) -> Any:
        patch.setattr(Lister, "drain", longest)
        claimed = yield from look(self)
        patch.setattr(Lister, "drain", drain)
        return claimed

    patch.setattr(Slice, "_last_look", last_look)


def _one_pass(patch: pytest.MonkeyPatch) -> None:
    def drain(self: Lister, window: Any) -> Listing:
        listing = Listing(window, self.user_ids)
        listing.atomic = self._pass(listing).atomic
        return listing

    patch.setattr(Lister, "drain", drain)


def _claim_up_to_now(patch: pytest.MonkeyPatch) -> None:
    stage = Slice._conclude

    def conclude(self: Slice, claim_top: int | None) -> None:
        stage(self, None if claim_top is None else claim_top + settings.DAY_MS)

    patch.setattr(Slice, "_conclude", conclude)


def _claim_border_ties(patch: pytest.MonkeyPatch) -> None:
    stage = Slice._stage

    def wider(self: Slice, stretch: Any) -> None:
        stage(self, stretch._replace(lo=stretch.lo - 1))

    patch.setattr(Slice, "_stage", wider)


def _ignore_the_gone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Children, "gone", property(lambda self: 0, lambda self, value: None), raising=False)


def _oldest_first(patch: pytest.MonkeyPatch) -> None:
    users = Listing.users
    patch.setattr(Listing, "users", lambda self: iter(list(users(self))[::-1]))


def _end_at_a_repeated_page(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settings, "REPEATED_PAGES", 1)


PAGES_OF_ONE = Bias(page_size=1, restless=0.3)
BROKEN_RULES = [
    (_no_last_look, Bias()),
    (_one_look_of_any_length, PAGES_OF_ONE),
    (_one_pass, Bias(page_size=1, restless=0.2, span_days=40)),
    (_claim_up_to_now, Bias()),
    (_claim_border_ties, Bias()),
    (_ignore_the_gone, Bias(page_size=50, restless=0.3, merges=0.6)),
    (_oldest_first, Bias()),
    (_end_at_a_repeated_page, Bias(page_size=1, restless=0.5, users=4)),
]


@pytest.mark.parametrize(
    ("break_rule", "bias"), BROKEN_RULES, ids=lambda value: getattr(value, "__name__", "").strip("_")
)
def test_the_search_finds_a_loss_when_a_rule_is_switched_off(
    break_rule: Callable[[pytest.MonkeyPatch], None], bias: Bias, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_rule(monkeypatch)
    assert any(lose(seed, bias) for seed in range(10_000))


@pytest.mark.parametrize("list_state", [pytest.param("snapshot", marks=pytest.mark.slow), "live"])
@pytest.mark.parametrize("max_requests", [None, 25])
def test_a_quiet_run_after_a_load_in_a_moving_world_equals_the_truth(
    desk: Desk, list_state: Any, max_requests: int | None
) -> None:
    desk.reading(list_state=list_state, max_limit=5)
    count = 0

    def move(request: Request) -> None:
        nonlocal count
        count += 1
        desk.clock.advance(2)
        if count > 60 * len(desk.reports) + 60:
            return  # a world faster than the API could never be told to be loaded
        users = sorted(desk.world.user_ids())
        if count % 6 == 0:
            desk.world.return_user(users[count % len(users)], desk.now_ms)
        if count % 9 == 0:
            desk.world.continue_session(users[(3 * count) % len(users)], desk.now_ms)
        if count % 15 == 0:
            desk.world.add_user(desk.now_ms, events=2)
        if count % 40 == 0:
            desk.world.merge(users[0], users[-1], desk.now_ms)

    desk.server.on_request = move
    for _ in range(4):
        desk.load(max_requests=max_requests, chunk_size=5)
    desk.server.on_request = None
    desk.clock.advance(600)
    desk.load_until_done()
    desk.assert_equal_to_truth()


@pytest.mark.usefixtures("loaded")
def test_an_event_that_becomes_visible_late_is_loaded(desk: Desk) -> None:
    user = desk.world.user_ids()[0]
    desk.clock.advance(1_000)
    desk.world.return_user(user, desk.now_ms - 1_000, visible_at_ms=desk.now_ms + 60_000)
    desk.load()
    desk.clock.advance(120)
    desk.load()
    desk.assert_equal_to_truth()
