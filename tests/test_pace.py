"""Never more than the limit in any window, as close to it as it goes, and both quotas at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadboxer_source.pace import told_by
from leadboxer_source.sandbox import Sandbox, World
from leadboxer_source.sandbox.server import Answer, Request
from leadboxer_source.settings import RateLimit
from tests.conftest import NOW_MS, Desk


def times_of(server: Sandbox) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for request in server.requests:
        found[request.endpoint].append(request.at)
    return found


def test_at_ten_a_minute_no_window_holds_more_and_nobody_is_refused(desk: Desk) -> None:
    desk.clock._IDLE_S = 0.2  # a jump while a request is on its way would shorten the window that the server sees
    desk.server.rate_limit = "10/minute"
    began = desk.clock.time()
    report = desk.load(rate_limit="10/minute")
    assert report.complete
    for times in times_of(desk.server).values():
        assert all(later - first > 60 for first, later in zip(times, times[10:], strict=False))
    assert sum(report.refusals.values()) == 0
    most = max(desk.requests().values())
    assert desk.clock.time() - began < 1.3 * 60 * (most // 10 + 1), (
        "the endpoints take turns instead of going side by side"
    )
    desk.assert_equal_to_truth()


def test_a_request_that_is_sent_elsewhere_on_the_host_is_paced_and_counted_twice(desk: Desk) -> None:
    desk.with_world(World(seed=5, users=12, days=2, now_ms=NOW_MS), rate_limit="10/minute")
    answer = desk.server._answer

    def redirecting(request: Request, now: float) -> Answer:
        if request.endpoint == "sessions" and "hop" not in request.params:
            return Answer(307, b"", {"Location": f"{request.path}?{urlencode({**request.params, 'hop': '1'})}"})
        return answer(request, now)

    desk.server._answer = redirecting  # type: ignore[method-assign]  # a server behind another one
    report = desk.load(rate_limit="10/minute")
    assert report.requests == desk.requests()
    asked = Counter(
        (request.params["leadId"], "hop" in request.params)
        for request in desk.server.requests
        if request.endpoint == "sessions"
    )
    assert len(asked) == 2 * 12
    assert all(asked[user, True] == asked[user, False] for user, _ in asked)
    assert sum(report.refusals.values()) == 0
    desk.assert_equal_to_truth()


def test_the_next_process_keeps_to_what_the_last_one_used(desk: Desk) -> None:
    desk.server.rate_limit = "10/minute"
    store = str(desk.folder / "limit.sqlite")
    for _ in range(3):
        desk.load(rate_limit="10/minute", limiter_store=store, max_requests=12, chunk_size=5)
        assert sum(desk.reports[-1].refusals.values()) == 0


@pytest.mark.parametrize("fault", ["429", "429_header", "429_bare", "429_zero", "429_negative"])
def test_a_refusal_is_waited_out_and_is_no_failed_attempt(desk: Desk, fault: str) -> None:
    desk.server.faults.fail_next("sessions", fault, times=3)
    desk.server.faults.fail_next("leads", fault, times=2)
    assert desk.load(rate_limit="10/minute").complete
    desk.assert_equal_to_truth()
    assert desk.rows("SELECT count(*) FROM load_failures") == [(0,)]


def test_a_lower_limit_that_the_api_names_is_kept_to(desk: Desk) -> None:
    desk.with_world(World(seed=5, users=12, days=2, now_ms=NOW_MS), rate_limit="2/minute")
    desk.load(rate_limit="10/minute")
    for endpoint in ("leads", "sessions", "events"):
        refused = [
            request.at for request in desk.server.requests if (request.endpoint, request.status) == (endpoint, 429)
        ]
        later = [at for at in refused if at > refused[0] + 1]
        assert len(refused) - len(later) <= 4, "each request under way may be refused before the limit is known"
        assert all(after - before > 60 for before, after in pairwise([*refused[:1], *later])), "one asks if it holds"
    desk.assert_equal_to_truth()


@pytest.mark.slow
def test_a_limit_that_was_lower_for_a_while_is_used_in_full_again(desk: Desk) -> None:
    desk.with_world(World(seed=5, users=120, days=20, now_ms=NOW_MS), rate_limit="2/minute")
    began = desk.clock.time()

    def on_request(request: Request) -> None:
        if request.at > began + 120:
            desk.server.rate_limit = "10/minute"

    desk.server.on_request = on_request
    report = desk.load(rate_limit="10/minute")
    assert report.complete
    minutes = (desk.clock.time() - began) / 60
    # a load keeps to a lower limit for a period after it was named, and evenly spaced for another one
    assert minutes < 1.2 * max(desk.requests().values()) / 10 + 7
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("fault", ["daily_quota", "429_absurd"])
@pytest.mark.parametrize("endpoint", ["leads", "sessions", "events"])
def test_a_quota_that_no_slice_outlasts_ends_it_with_what_was_read(desk: Desk, fault: str, endpoint: str) -> None:
    desk.server.faults.fail_next(endpoint, fault, after=2, times=1_000)
    report = desk.load()
    assert report.stopped == "quota"
    assert not report.can_go_on, "the next schedule is soon enough"
    assert desk.rows("SELECT count(*) > 0 FROM users") == [(True,)]
    desk.server.faults = type(desk.server.faults)()
    desk.load_until_done()
    desk.assert_equal_to_truth()


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "rate-limit", "rate-limit-period", "rate-limit-reset"]),
        st.one_of(st.none(), st.integers(), st.text(max_size=5), st.floats(), st.sampled_from(["minute", "day"])),
    )
)
def test_whatever_a_refusal_says_the_wait_is_positive_or_unknown(body: dict[str, Any]) -> None:
    told = told_by({}, body, now=1_000.0)
    assert told.wait_seconds is None or told.wait_seconds > 0
    assert told.rate is None or told.rate.requests > 0


def test_the_wait_is_read_from_the_header_then_the_body_then_the_reset() -> None:
    body = {"retry-after": 43, "rate-limit": 2, "rate-limit-period": "minute", "rate-limit-reset": 1_060}
    assert told_by({"Retry-After": "7"}, body, now=1_000.0) == (7.0, RateLimit(2, 60.0))
    assert told_by({}, body, now=1_000.0).wait_seconds == 43.0
    assert told_by({}, {"rate-limit-reset": 1_060}, now=1_000.0).wait_seconds == 60.0
    assert told_by({}, "torn", now=1_000.0) == (None, None)


def test_a_daily_quota_is_used_up_and_no_more_each_day_until_all_is_loaded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadboxer_source.settings.MAX_SET_ASIDE", 5)
    desk.with_world(World(seed=5, users=150, days=20, now_ms=NOW_MS)).reading(daily_quota=60)
    days = len(desk.world.truth().sessions) // 60 + 3
    for _ in range(days):
        report = desk.load()
        assert max(report.refusals.values()) <= 4, "one for each request under way when the first was refused"
        desk.clock.advance(90_000)
    assert desk.reports[-1].complete
    desk.assert_equal_to_truth()
