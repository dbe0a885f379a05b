"""Small budgets, kills at random moments, lost folders: the newest comes first and nothing is lost or doubled."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from leadboxer_source import sync
from leadboxer_source.sandbox import World
from tests.conftest import NOW_MS, Desk

CHILD = """
import sys, dlt
from leadboxer_source import leadboxer_source
folder, url, site, key = sys.argv[1:]
pipeline = dlt.pipeline(
    "desk", destination=dlt.destinations.duckdb(folder + "/desk.duckdb"), dataset_name="lb",
    pipelines_dir=folder + "/pipelines",
)
while True:
    ended = []
    source = leadboxer_source(
        site, key, base_url=url, rate_limit="unlimited", limiter_store=":memory:", max_requests=30, chunk_size=5,
        watch=lambda report: report.stopped and ended.append(report.complete),
    )
    pipeline.run(source)
    if ended == [True]:
        break
"""


@pytest.mark.parametrize("budget", [{"max_requests": 25}, {"max_minutes": 1.0}], ids=str)
def test_with_a_small_budget_the_newest_users_come_first(desk: Desk, budget: dict[str, Any]) -> None:
    desk.with_world(World(seed=5, users=150, days=20, now_ms=NOW_MS))
    if "max_minutes" in budget:
        desk.server.rate_limit, budget = "10/minute", {**budget, "rate_limit": "10/minute"}
    loaded = 0
    newest_first = sorted(desk.world.user_ids(), key=desk.world.last_ms, reverse=True)
    for _ in range(3):
        assert not desk.load(chunk_size=5, **budget).complete
        users = {row[0] for row in desk.rows("SELECT user_id FROM users")}
        assert users == set(newest_first[: len(users)])
        assert len(users) > loaded
        loaded = len(users)


def test_a_spent_budget_overshoots_by_a_chunk_at_the_most(desk: Desk) -> None:
    desk.load(max_requests=40, chunk_size=5)
    most_for_a_chunk = 5 + max(len(desk.world.session_records(user) or ()) for user in desk.world.user_ids()) * 5
    assert sum(desk.requests().values()) <= 40 + most_for_a_chunk


def test_with_activity_between_slices_the_newest_comes_before_the_rest_of_the_past(desk: Desk) -> None:
    desk.load(max_requests=30, chunk_size=5)
    desk.clock.advance(86_400)
    fresh = [desk.world.add_user(desk.now_ms - 600_000 - number) for number in range(4)]
    desk.load(max_requests=4, chunk_size=2)
    desk.load(max_requests=4, chunk_size=2)
    assert {row[0] for row in desk.rows("SELECT user_id FROM users")} >= set(fresh[:2])
    assert len(desk.state()["scopes"][desk.world.site]["covered"]) == 2, "a hole lies between the two stretches"
    desk.load_until_done(max_requests=60, chunk_size=5)
    desk.assert_equal_to_truth()
    assert len(desk.state()["scopes"][desk.world.site]["covered"]) == 1


def test_a_run_that_dies_keeps_what_the_runs_before_it_loaded(desk: Desk) -> None:
    desk.load(max_requests=40, chunk_size=5)
    before = desk.rows("SELECT count(*) FROM users")
    desk.server.faults.fail_next("sessions", "401", after=3)
    with pytest.raises(Exception, match="does not know this API key"):
        desk.load()
    assert desk.rows("SELECT count(*) FROM users") == before
    desk.load_until_done()
    desk.assert_equal_to_truth()


def test_a_lost_working_folder_is_restored_from_the_destination(desk: Desk) -> None:
    desk.load(max_requests=40, chunk_size=5)
    shutil.rmtree(desk.folder / "pipelines")
    desk.load_until_done(max_requests=40, chunk_size=5)
    desk.assert_equal_to_truth()
    shutil.rmtree(desk.folder / "pipelines")
    desk.load()
    assert set(desk.requests()) == {"leads"}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))])
def test_killed_at_random_moments_it_ends_equal_to_the_truth_and_repeats_a_slice_at_most(desk: Desk, seed: int) -> None:
    dice = random.Random(seed)
    command = [sys.executable, "-c", CHILD, str(desk.folder), desk.server.url, desk.world.site, desk.server.key]
    kills = 0
    for _ in range(30):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        seen = len(desk.server.requests)
        kill_after, deadline = dice.randint(1, 60), time.monotonic() + 20
        while kills < 4 and child.poll() is None and time.monotonic() < deadline:
            if len(desk.server.requests) - seen >= kill_after:
                child.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        _, told = child.communicate(timeout=60)
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, told.decode()[-2_000:]
    desk.assert_equal_to_truth()
    needed = len(desk.world.truth().sessions)
    asked = sum(request.endpoint == "events" for request in desk.server.requests)
    assert asked <= needed + kills * 60


def test_limits_closed_from_outside_claim_nothing(desk: Desk) -> None:
    desk.pipeline().run(desk.source(chunk_size=5).add_limit(2))
    assert desk.rows("SELECT count(*) FROM users") == [(10,)]
    assert "coverage" not in str(desk.pipeline().state)
    desk.load_until_done()
    desk.assert_equal_to_truth()


def test_a_sync_whose_requests_are_spent_to_the_last_one_sends_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.with_world(World(seed=5, users=10, days=1, now_ms=NOW_MS))
    desk.configure(monkeypatch, rate_limit="unlimited", limiter_store=":memory:")
    result = sync(desk.pipeline(), only=("users", "sessions"), max_requests=5, clock=desk.clock)
    assert (result.stopped, len(result.runs), result.requests) == ("requests", 1, {"leads": 1, "sessions": 4})


@pytest.mark.parametrize("section", ["SOURCES__LEADBOXER__", "SOURCES__", ""])
def test_a_sync_keeps_to_the_requests_and_the_slices_that_are_configured_wherever_the_source_finds_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    desk.configure(monkeypatch, rate_limit="10/minute", limiter_store=":memory:", chunk_size="5")
    monkeypatch.setenv(f"{section}MAX_REQUESTS", "30")
    monkeypatch.setenv(f"{section}MAX_MINUTES", "1")
    result = sync(desk.pipeline(), only=("users", "sessions"), clock=desk.clock)
    assert result.stopped == "requests"
    assert 30 <= sum(result.requests.values()) < 40
    assert len(result.runs) > 1


@pytest.mark.parametrize(
    ("only", "start_date"),
    [(("users",), "2026-10-09"), (("users", "sessions", "events"), "2026-11-13")],
    ids=["users", "children"],
)
@pytest.mark.parametrize("budget", [{"max_requests": 1}, {"max_minutes": 0}], ids=str)
def test_each_run_gets_further_however_small_its_budget_is(
    desk: Desk, budget: dict[str, Any], only: tuple[str, ...], start_date: str
) -> None:
    desk.with_world(World(seed=5, users=4, days=4, now_ms=NOW_MS))
    runs = desk.load_until_done(only=only, chunk_size=1, start_date=start_date, **budget)
    assert runs > 3
    assert desk.rows("SELECT count(*) FROM users") == [(4,)]


@pytest.mark.parametrize("sessions_each", [2, 10])
def test_a_slice_lasts_as_long_as_it_may_however_many_visits_users_have(desk: Desk, sessions_each: int) -> None:
    world = World(seed=5, users=60, days=20, now_ms=NOW_MS, sessions_per_user=sessions_each)
    desk.with_world(world, rate_limit="10/minute")
    longest = max(len(world.session_records(user) or ()) for user in world.user_ids()) / 10
    for _ in range(3):
        report = desk.load(rate_limit="10/minute", max_minutes=15)
        assert (report.ended_ms - report.started_ms) / 60_000 <= 15 + max(longest, 2)
        if not report.complete:
            assert (report.ended_ms - report.started_ms) / 60_000 >= 14, "none is given away"


def test_what_lies_below_a_window_is_not_claimed_with_the_covered_users_around_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadboxer_source.slice._ROWS_AT_ONCE", 10)
    desk.with_world(World(seed=5, users=0, days=1, now_ms=NOW_MS))
    for minute in range(60):
        desk.world.add_user(desk.now_ms - 3_600_000 - minute * 60_000)
    assert desk.load(start_date="2026-11-15").complete
    for minute in range(30):
        desk.world.add_user(desk.now_ms + minute * 60_000)
    desk.clock.advance(86_400)
    unknown = desk.world.add_user(desk.now_ms - 600_000)
    desk.world._users[unknown].changes.update(lastEvent="soon", eventEsTimestamp="soon", eventUnixTimestamp="soon")
    desk.load(start_date="2026-11-15")
    assert desk.rows("SELECT count(DISTINCT session_id) FROM events") == [(91,)]


def test_a_sync_goes_on_at_once_after_a_spent_budget_and_not_after_a_spent_quota(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.configure(monkeypatch, rate_limit="unlimited", limiter_store=":memory:")
    result = sync(desk.pipeline(), max_requests=5, clock=desk.clock)
    assert (result.stopped, result.can_go_on) == ("requests", True)
    desk.server.faults.fail_next("events", "daily_quota", times=1_000)
    result = sync(desk.pipeline(), clock=desk.clock)
    assert (result.stopped, result.complete, result.can_go_on, len(result.runs)) == ("quota", False, False, 1)
    desk.server.faults = type(desk.server.faults)()
    result = sync(desk.pipeline(), clock=desk.clock)
    assert (result.complete, result.can_go_on) == (True, False)
