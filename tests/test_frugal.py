"""Every request counts: none is made for what is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from leadboxer_source.sandbox import World
from tests.conftest import NOW_MS, Desk


@pytest.mark.parametrize("end_of_list", ["token", "absent"])
@pytest.mark.parametrize("max_limit", [1000, 7])
def test_a_second_run_without_activity_asks_for_the_listing_only(desk: Desk, end_of_list: Any, max_limit: int) -> None:
    desk.reading(end_of_list=end_of_list, max_limit=max_limit)
    desk.load()
    for pause_s in (0, 3_600, 86_400):
        desk.clock.advance(pause_s)
        assert desk.load().complete
        assert set(desk.requests()) == {"leads"}
        assert desk.requests()["leads"] <= 3


@pytest.mark.parametrize("start_date", [None, "2026-11-10"])
def test_after_activity_exactly_the_active_users_and_their_new_sessions_are_asked_for(
    desk: Desk, start_date: str | None
) -> None:
    desk.load(start_date=start_date)
    desk.clock.advance(7_200)
    since_start = [user for user in desk.world.user_ids() if desk.world.last_ms(user) > NOW_MS - 5 * 86_400_000]
    returned, continued = since_start[:4], since_start[4:7]
    for user in returned:
        desk.world.return_user(user, desk.now_ms - 400_000)
    for user in continued:
        desk.world.continue_session(user, desk.now_ms - 400_000)
    fresh = desk.world.add_user(desk.now_ms - 400_000, events=3)
    report = desk.load(start_date=start_date)
    assert report.complete
    asked = [request.params["leadId"] for request in desk.server.requests if request.endpoint == "sessions"]
    assert sorted(asked) == sorted([*returned, *continued, fresh])
    assert desk.requests()["events"] == 8


def test_a_user_with_a_long_history_who_returns_costs_two_requests(desk: Desk) -> None:
    desk.with_world(World(seed=2, users=12, days=100, now_ms=NOW_MS, sessions_per_user=9))
    desk.load()
    desk.clock.advance(86_400 * 3)
    user = max(desk.world.user_ids(), key=lambda user: len(desk.world.session_records(user) or ()))
    desk.world.return_user(user, desk.now_ms - 900_000)
    desk.load()
    assert desk.requests() == {"leads": desk.requests()["leads"], "sessions": 1, "events": 1}
    desk.assert_equal_to_truth()


def test_users_alone_ask_for_no_sessions(desk: Desk) -> None:
    desk.load(only=("users",))
    assert set(desk.requests()) == {"leads"}
    assert desk.rows("SELECT count(*) FROM users") == [(40,)]


def test_a_filter_on_users_saves_the_requests_of_the_others(desk: Desk) -> None:
    desk.pipeline().run(_companies(desk.source()))
    employed = [user for user in desk.world.truth().users if "organizationName" in user]
    assert desk.requests()["sessions"] == len(employed)


def _companies(source: Any) -> Any:
    source.users.add_filter(lambda user: bool(user.get("organization_name")))
    return source


@pytest.mark.usefixtures("loaded")
def test_relisting_reads_changes_that_move_nothing_and_asks_for_no_sessions(desk: Desk) -> None:
    user = max(desk.world.user_ids(), key=desk.world.last_ms)
    old = min(desk.world.user_ids(), key=desk.world.last_ms)
    desk.world.retag(user, "vip")
    desk.world.retag(old, "vip")
    desk.load(relist_days=30)
    assert set(desk.requests()) == {"leads"}
    assert desk.rows("SELECT count(*) FROM users WHERE lead_tag = 'vip'") == [(2,)]
