"""What a simpler cursor gets wrong, one scenario each."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from leadboxer_source.rows import instant
from leadboxer_source.sandbox import Request, Sandbox, World
from tests.conftest import NOW_MS, Desk, SkewedClock

DAY_S = 86_400


def test_a_user_with_an_old_session_who_returns_during_the_backfill_is_loaded_whole(desk: Desk) -> None:
    oldest = min(desk.world.user_ids(), key=desk.world.last_ms)

    def come_back(request: Request) -> None:
        if request.endpoint == "sessions" and desk.world.last_ms(oldest) < NOW_MS - DAY_S * 1000:
            desk.clock.advance(5)
            desk.world.return_user(oldest, desk.now_ms)

    desk.server.on_request = come_back
    desk.load(max_requests=30, chunk_size=5)
    desk.server.on_request = None
    desk.clock.advance(DAY_S)
    desk.load_until_done()
    desk.assert_equal_to_truth()


def test_a_user_seen_in_two_slices_stands_once_in_every_table(desk: Desk) -> None:
    user = max(desk.world.user_ids(), key=desk.world.last_ms)
    desk.load(max_requests=20, chunk_size=5)
    desk.clock.advance(3_600)
    desk.world.return_user(user, desk.now_ms - 600_000)
    desk.load_until_done(max_requests=40, chunk_size=5)
    desk.assert_equal_to_truth()


def test_moving_the_start_back_after_a_full_load_reads_only_the_difference(desk: Desk) -> None:
    assert desk.load(start_date="2026-11-08").complete
    first = {r.params["leadId"] for r in desk.server.requests if r.endpoint == "sessions"}
    assert desk.load(start_date="2026-10-01").complete
    second = {r.params["leadId"] for r in desk.server.requests if r.endpoint == "sessions"}
    assert first
    assert second
    assert not first & second
    desk.assert_equal_to_truth()


def test_events_selected_later_are_read_for_the_past_too(desk: Desk) -> None:
    assert desk.load(only=("users", "sessions")).complete
    assert set(desk.requests()) == {"leads", "sessions"}
    assert desk.load().complete
    desk.assert_equal_to_truth()
    assert desk.load().complete
    assert set(desk.requests()) == {"leads"}


def test_properties_selected_later_are_read_for_the_past_too(desk: Desk) -> None:
    desk.load(only=("users", "sessions", "events"))
    desk.load()
    desk.assert_equal_to_truth()


def test_two_datasets_share_a_destination(desk: Desk) -> None:
    other = World(seed=5, users=15, days=20, now_ms=NOW_MS, site="f" * 32)
    desk.load()
    with Sandbox(other, rate_limit=None, clock=desk.clock.time) as server:
        desk.load(site=other.site, base_url=server.url)
        desk.load(site=other.site, base_url=server.url)
        assert {request.endpoint for request in server.requests[-1:]} == {"leads"}
    counted = dict(desk.rows("SELECT site, count(*) FROM users GROUP BY 1"))
    assert counted == {desk.world.site: 40, other.site: 15}
    sessions = dict(desk.rows("SELECT site, count(*) FROM sessions GROUP BY 1"))
    assert sessions[other.site] == len(other.truth().sessions)


@pytest.mark.parametrize("given", ["company;person", "company, person", '["company", "person"]', ["person", "company"]])
def test_kinds_of_users_can_be_given_in_any_notation(desk: Desk, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"display": given}
    if isinstance(given, str):
        monkeypatch.setenv("SOURCES__LEADBOXER__DISPLAY", settings.pop("display"))
    desk.load(only=("users",), **settings)
    assert {request.params["criteriaDisplayFilter"] for request in desk.server.requests} == {"company;person"}


def test_another_listing_filter_is_another_scope(desk: Desk) -> None:
    desk.load(display="company")
    companies = {user for user in desk.world.user_ids() if desk.world.kind(user) == "company"}
    assert {row[0] for row in desk.rows("SELECT user_id FROM users")} == companies
    desk.load()
    desk.assert_equal_to_truth()
    assert len(desk.state()["scopes"]) == 2


@pytest.mark.parametrize("merged_lead", ["404", "empty", "winner"])
def test_after_a_merge_the_sessions_have_moved_and_none_is_doubled(desk: Desk, merged_lead: Any) -> None:
    desk.reading(merged_lead=merged_lead)
    desk.load()
    users = desk.world.user_ids()
    desk.clock.advance(DAY_S)
    desk.world.merge(users[3], users[8], desk.now_ms - 600_000)
    desk.load()
    assert desk.requests()["events"] == 1
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("merged_lead", ["404", "empty", "winner"])
def test_a_merge_between_the_listing_and_the_sessions_loses_nothing(desk: Desk, merged_lead: Any) -> None:
    desk.reading(merged_lead=merged_lead)
    users = sorted(desk.world.user_ids(), key=desk.world.last_ms)

    def merge(request: Request) -> None:
        if request.endpoint == "sessions" and desk.world.has_user(users[0]):
            desk.clock.advance(30)
            desk.world.merge(users[0], users[-1], desk.now_ms)

    desk.server.on_request = merge
    desk.load()
    desk.server.on_request = None
    desk.clock.advance(600)
    desk.load_until_done()
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
def test_users_of_one_millisecond_on_both_sides_of_a_border_are_all_loaded(desk: Desk, chunk_size: int) -> None:
    desk.with_world(World(seed=1, users=0, now_ms=NOW_MS))
    for second in (10, 10, 10, 20, 20, 20, 20):
        desk.world.add_user(NOW_MS - DAY_S * 1000 - second)
    desk.load_until_done(max_requests=5, chunk_size=chunk_size, start_date="2026-11-14")
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("wrong_by_hours", [-9, 9, 24 * 400])
def test_a_clock_that_is_hours_wrong_loses_nothing_and_claims_nothing_too_new(desk: Desk, wrong_by_hours: int) -> None:
    wrong: Any = SkewedClock(desk.clock, wrong_by_hours * 3_600)
    assert desk.load(clock=wrong).complete
    desk.assert_equal_to_truth()
    assert desk.reports[-1].covered[-1].hi <= desk.now_ms
    desk.clock.advance(3_600)
    desk.world.add_user(desk.now_ms - 400_000, events=2)
    desk.load(clock=wrong)
    desk.assert_equal_to_truth()


def test_a_start_that_is_in_the_future_of_a_wrong_clock_only_is_no_mistake(desk: Desk) -> None:
    wrong: Any = SkewedClock(desk.clock, -13 * 3_600)
    start_ms = desk.now_ms - 6 * 3_600_000
    recent = desk.world.add_user(desk.now_ms - 3_600_000)
    assert desk.load(clock=wrong, start_date=instant(start_ms)).complete
    assert (recent,) in desk.rows("SELECT user_id FROM users")
    assert desk.reports[-1].covered[0].lo == start_ms


@pytest.mark.parametrize(
    "reading", [{}, {"ignores_time_zone": True, "range_end": "exclusive"}], ids=["utc", "amsterdam"]
)
@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 18, 0, 0, 1, tzinfo=timezone.utc),
        datetime(2026, 3, 29, 1, 0, 0, tzinfo=timezone.utc),
        datetime(2026, 10, 24, 22, 0, 0, tzinfo=timezone.utc),
    ],
    ids=str,
)
def test_nothing_is_lost_around_midnight_and_when_the_clocks_change(
    desk: Desk, moment: datetime, reading: dict[str, Any]
) -> None:
    now_ms = int(moment.timestamp() * 1000)
    desk.clock.advance(now_ms / 1000 - desk.clock.time() - 3 * DAY_S)
    desk.with_world(World(seed=1, users=12, days=5, now_ms=desk.now_ms)).reading(**reading)
    desk.load()
    for hours in (30, 20, 12, 6, 3, 2, 1, 0.5, 0):
        desk.world.add_user(now_ms - int(hours * 3_600_000), events=2)
    desk.clock.advance(3 * DAY_S)
    desk.load()
    desk.clock.advance(600)
    assert desk.load().complete
    desk.assert_equal_to_truth()


def test_an_end_makes_the_run_a_one_off_that_marks_nothing(desk: Desk) -> None:
    report = desk.load(start_date="2026-11-05", end_date="2026-11-10")
    assert report.complete
    lo, hi = (int(datetime(2026, 11, day, tzinfo=timezone.utc).timestamp() * 1000) for day in (5, 10))
    wanted = {user for user in desk.world.user_ids() if lo <= desk.world.last_ms(user) < hi}
    assert {row[0] for row in desk.rows("SELECT user_id FROM users")} == wanted
    assert "coverage" not in str(desk.pipeline().state)
    desk.load()
    desk.assert_equal_to_truth()


def test_a_one_off_is_read_in_one_run_however_long_it_takes(desk: Desk) -> None:
    report = desk.load(start_date="2026-11-01", end_date="2026-11-19", rate_limit="10/minute", max_minutes=1.0)
    assert report.complete
    assert desk.requests()["sessions"] == report.handed > 20


def test_a_budget_of_requests_is_exceeded_by_little(desk: Desk) -> None:
    """By what one user has done at the most, and by the last look."""
    desk.with_world(World(seed=4, users=60, days=20, now_ms=NOW_MS, sessions_per_user=3, hostile=False))
    most_visits = max(len(desk.world.session_records(user) or ()) for user in desk.world.user_ids())
    taken = []
    while not (report := desk.load(max_requests=60)).complete:
        taken.append(sum(report.requests.values()))
        assert len(taken) < 10
    desk.assert_equal_to_truth()
    assert 60 <= min(taken) <= max(taken) <= 60 + most_visits + 10


@pytest.mark.parametrize("end_date", ["2026-11-21", "2999-01-01"])
@pytest.mark.parametrize("wrong_by_s", [0, -5 * DAY_S, 5 * DAY_S])
def test_a_one_off_that_ends_in_the_future_reads_all_there_is(desk: Desk, end_date: str, wrong_by_s: int) -> None:
    wrong: Any = SkewedClock(desk.clock, wrong_by_s)
    report = desk.load(end_date=end_date, clock=wrong)
    assert report.complete
    desk.assert_equal_to_truth()
    assert desk.requests()["leads"] < 40


def test_a_one_off_tells_what_it_could_not_read(desk: Desk) -> None:
    poisoned = max(desk.world.truth().sessions, key=lambda session: session["lastEvent"])["session_id"]
    desk.server.faults.poison(poisoned, "400")
    report = desk.load(start_date="2026-11-05", end_date="2026-11-19")
    assert (report.stopped, report.set_aside, report.complete) == ("covered", 1, False)
    desk.server.faults.heal(poisoned)
    assert desk.load(start_date="2026-11-05", end_date="2026-11-19").complete
    desk.load()
    desk.assert_equal_to_truth()


def test_who_matches_a_filter_only_later_comes_with_all_they_did_before(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = desk.world.add_user(desk.now_ms - 86_400_000, events=3)
    desk.world.return_user(visitor, desk.now_ms - 7_200_000, events=4)
    known = desk.world.kind
    monkeypatch.setattr(desk.world, "kind", lambda user: "unidentified" if user == visitor else known(user))
    assert desk.load(display="person").complete
    desk.clock.advance(86_400)
    desk.world.return_user(visitor, desk.now_ms - 3_600_000, events=2)
    monkeypatch.setattr(desk.world, "kind", lambda user: "person" if user == visitor else known(user))
    assert desk.load(display="person").complete
    loaded = "SELECT count(*) FROM events WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = '{}')"
    assert desk.rows(loaded.format(visitor)) == [(9,)]


def test_who_has_no_session_keeps_nobody_from_being_claimed(desk: Desk) -> None:
    imported = desk.world.add_user(desk.now_ms - 60_000)
    sessions = desk.world.session_records

    def records(user_id: str) -> list[dict[str, Any]] | None:
        return [] if user_id == imported else sessions(user_id)

    desk.world.session_records = records  # type: ignore[method-assign]  # the world is data here
    assert desk.load().complete
    desk.clock.advance(900)
    assert desk.load().complete
    assert desk.requests()["events"] == 0, "all was claimed"
    assert desk.requests()["leads"] <= 3


def test_a_session_that_tells_its_start_alone_is_read_on_when_it_goes_on(desk: Desk) -> None:
    desk.reading(session_times="start_as_event")
    user = desk.world.add_user(desk.now_ms - 400_000)
    desk.load_until_done()
    desk.clock.advance(600)
    desk.world.continue_session(user, desk.now_ms)
    desk.clock.advance(600)
    desk.load_until_done()
    desk.assert_equal_to_truth()
