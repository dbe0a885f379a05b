"""A plan asks for ten pages at the most and comes close to what the load then costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import limits
from leadboxer_source.cli import main
from leadboxer_source.client import Page
from leadboxer_source.coverage import Stretch, add
from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.plan import Plan, covered_of, make_plan
from leadboxer_source.sandbox import World
from leadboxer_source.sandbox.chance import Dice, moment
from leadboxer_source.settings import DAY_MS, RateLimit, Settings, parse_instant
from leadboxer_source.survey import MOST_REQUESTS, Survey
from leadboxer_source.sync import RESOURCES
from tests.conftest import NOW_MS, Desk, SkewedClock

CLOSE = 0.15


def planned(desk: Desk, covered: Any = (), wrong_by_s: float = 0.0, **settings: Any) -> Plan:
    desk.server.clear_requests()
    account = Settings(desk.world.site, desk.server.key, desk.server.url, RateLimit(10, 60.0), ":memory:", **settings)
    plan = make_plan(account, covered, clock=SkewedClock(desk.clock, wrong_by_s))
    assert set(desk.requests()) <= {"leads"}
    assert desk.requests()["leads"] == plan.spent <= MOST_REQUESTS
    return plan


def needed(world: World, since_ms: int = 0, kind: str = "") -> dict[str, int]:
    """What a first load has to ask for, by the world itself."""
    users = [
        user for user in world.user_ids() if world.last_ms(user) >= since_ms and (not kind or world.kind(user) == kind)
    ]
    return {"sessions": len(users), "events": sum(len(world.session_records(user) or ()) for user in users)}


def of_children(plan: Plan, what: str = "everything") -> dict[str, int]:
    [estimate] = [estimate for estimate in plan.estimates if estimate.what == what]
    return {name: count for name, count in estimate.requests.items() if name != "leads"}


def test_what_fits_on_ten_pages_is_planned_exactly(desk: Desk) -> None:
    plan = planned(desk)
    assert of_children(plan) == needed(desk.world)
    assert plan.listed_users == len(desk.world.user_ids())
    assert plan.doubt == 0
    assert plan.visits_told


@pytest.mark.parametrize(
    ("world", "reading"),
    [
        ({"users": 3_000, "days": 90}, {}),
        ({"users": 12_000, "days": 300}, {}),
        ({"users": 12_000, "days": 300}, {"show_total": True}),
        ({"users": 12_000, "days": 300, "sessions_per_user": 1}, {"envelope": "legacy"}),
        ({"users": 12_000, "days": 300}, {"range_end": "exclusive", "ignores_time_zone": True}),
        ({"users": 2_000, "days": 200}, {"max_limit": 50}),
        ({"users": 2_000, "days": 200}, {"max_limit": 50, "limit_rule": "reject"}),
        ({"users": 2_000, "days": 200}, {"max_limit": 50, "limit_rule": "reject", "too_large": 422}),
        ({"users": 5_000, "all_in_one_day": True}, {}),
    ],
    ids=str,
)
def test_what_does_not_fit_is_estimated_within_15_percent(
    desk: Desk, world: dict[str, Any], reading: dict[str, Any]
) -> None:
    desk.with_world(World(seed=7, now_ms=NOW_MS, **world)).reading(**reading)
    plan, truth = planned(desk), needed(desk.world)
    assert of_children(plan) == {name: pytest.approx(count, rel=CLOSE) for name, count in truth.items()}
    # and it knows how far off it may be
    assert abs(plan.estimates[0].users / truth["sessions"] - 1) <= max(plan.doubt, 0.02)


def test_cheaper_ways_are_estimated_too(desk: Desk) -> None:
    desk.with_world(World(seed=7, users=800, days=200, now_ms=NOW_MS))
    plan = planned(desk)
    today = NOW_MS // DAY_MS
    for days in (30, 90):
        truth = needed(desk.world, (today - days) * DAY_MS)
        assert of_children(plan, f"last {days} days") == {
            name: pytest.approx(count, rel=CLOSE) for name, count in truth.items()
        }
    assert of_children(plan, "companies only") == needed(desk.world, kind="company")
    assert of_children(plan, "users only") == {}
    desk.load(only=("users",))
    [users_only] = [estimate for estimate in plan.estimates if estimate.what == "users only"]
    assert users_only.requests["leads"] == pytest.approx(desk.requests()["leads"], abs=5)


@pytest.mark.parametrize("days", [1, 10])
def test_a_listing_of_many_pages_a_day_is_counted_with_its_second_pass(desk: Desk, days: int) -> None:
    desk.with_world(World(seed=3, users=2_500, days=days, now_ms=NOW_MS))
    plan = planned(desk)
    [users_only] = [estimate for estimate in plan.estimates if estimate.what == "users only"]
    desk.load(only=("users",))
    assert users_only.requests["leads"] == pytest.approx(desk.requests()["leads"], rel=CLOSE)


@pytest.mark.parametrize(
    ("users", "sessions_per_user"), [(150, 1.5), (100, 3), pytest.param(400, 3, marks=pytest.mark.slow)]
)
def test_the_load_then_takes_as_many_requests_and_hours(desk: Desk, users: int, sessions_per_user: float) -> None:
    desk.with_world(
        World(seed=3, users=users, days=90, now_ms=NOW_MS, sessions_per_user=sessions_per_user), rate_limit="10/minute"
    )
    plan = planned(desk)
    desk.clock.advance(60)
    result, seconds = desk.sync()
    assert result.complete
    [everything] = plan.estimates[:1]
    assert sum(everything.requests.values()) == pytest.approx(sum(result.requests.values()), rel=CLOSE)
    assert everything.seconds == pytest.approx(seconds, rel=CLOSE)


def test_time_in_which_a_busy_dataset_is_listed_again_and_again_is_counted(desk: Desk) -> None:
    """Each slice lists some days anew before it goes on; at the limit that takes minutes of each quarter of an hour."""
    desk.with_world(World(seed=3, users=200, days=3, now_ms=NOW_MS), rate_limit="10/minute").reading(max_limit=10)
    plan = planned(desk)
    [everything] = plan.estimates[:1]
    desk.clock.advance(60)
    result, seconds = desk.sync()
    assert sum(everything.requests.values()) == pytest.approx(sum(result.requests.values()), rel=CLOSE)
    assert everything.seconds == pytest.approx(seconds, rel=CLOSE)


def test_what_is_loaded_costs_nothing_more(desk: Desk) -> None:
    desk.load(max_requests=60, chunk_size=5)
    rest = planned(desk, covered_of(desk.pipeline().state, desk.world.site))
    desk.load()
    actual = {name: count for name, count in desk.requests().items() if name != "leads"}
    assert of_children(rest) == {name: pytest.approx(count, abs=2) for name, count in actual.items()}
    assert [estimate.what for estimate in rest.estimates if estimate.what == "companies only"] == []
    nothing = planned(desk, covered_of(desk.pipeline().state, desk.world.site))
    assert sum(of_children(nothing).values()) <= 2


def test_a_returned_user_costs_the_new_visit_only(desk: Desk) -> None:
    desk.with_world(World(seed=2, users=12, days=100, now_ms=NOW_MS, sessions_per_user=9))
    desk.load()
    desk.clock.advance(86_400 * 3)
    desk.world.return_user(max(desk.world.user_ids(), key=desk.world.last_ms), desk.now_ms - 900_000)
    plan = planned(desk, covered_of(desk.pipeline().state, desk.world.site))
    assert of_children(plan)["sessions"] == 1
    assert 1 <= of_children(plan)["events"] <= 2


def test_the_rest_of_a_load_is_told_from_its_coverage(desk: Desk) -> None:
    plan = planned(desk)
    everything = of_children(plan)
    assert plan.remaining([]) == {name: pytest.approx(count, abs=1) for name, count in everything.items()}
    assert plan.remaining([Stretch(plan.since_ms, plan.made_ms)]) == {"sessions": 0, "events": 0}
    desk.load(max_requests=60, chunk_size=5)
    done = {name: desk.requests()[name] for name in everything}
    left = plan.remaining(covered_of(desk.pipeline().state, desk.world.site))
    for name, count in everything.items():
        assert done[name] + left[name] == pytest.approx(count, abs=0.15 * count)


def test_a_plan_comes_back_from_json_as_it_was(desk: Desk) -> None:
    plan = planned(desk)
    assert Plan.of(json.loads(json.dumps(plan.as_dict()))) == plan


def test_nobody_there_is_no_work(desk: Desk) -> None:
    desk.with_world(World(users=0, now_ms=NOW_MS))
    plan = planned(desk)
    assert of_children(plan) == {"sessions": 0, "events": 0}
    assert plan.estimates[0].seconds == 0


def test_a_start_in_the_future_cannot_be_planned(desk: Desk) -> None:
    with pytest.raises(ConfigurationInvalid, match="in the future"):
        planned(desk, start_ms=parse_instant("2031-01-01", "start_date"))
    with pytest.raises(ConfigurationInvalid, match="in the future"):
        planned(desk, wrong_by_s=7_200, start_ms=NOW_MS + 3_600_000)


def test_what_has_begun_by_leadboxers_clock_can_be_planned(desk: Desk) -> None:
    desk.world.add_user(NOW_MS - 600_000)
    plan = planned(desk, wrong_by_s=-7_200, start_ms=NOW_MS - 3_600_000)
    assert of_children(plan)["sessions"] == needed(desk.world, NOW_MS - 3_600_000)["sessions"] >= 1
    assert plan.made_ms == pytest.approx(NOW_MS, abs=2_000)


def test_what_is_covered_later_than_this_machines_clock_can_be_planned(desk: Desk) -> None:
    desk.load()
    plan = planned(desk, covered_of(desk.pipeline().state, desk.world.site), wrong_by_s=-7_200)
    assert sum(of_children(plan).values()) <= 2


def test_the_command_prints_requests_hours_and_how_sure_it_is(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.configure(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan"]) == 0
    told = capsys.readouterr().out
    assert "everything" in told
    assert "40 of 40 users were listed" in told
    assert max(map(len, told.splitlines())) <= 80
    assert main(["plan", "--json", "--start-date", "2026-11-10"]) == 0
    assert json.loads(capsys.readouterr().out)["estimates"][0]["what"] == "everything"


def surveyed(times: Sequence[int], spans: list[Stretch], page_size: int, first_ms: Sequence[int] = ()) -> Survey:
    """A survey of users of two visits who were last active then, and first at the same place of `first_ms`."""
    survey = Survey(spans, [], page_size)
    users = [
        {"use_id": f"{at}.{number}", "lastEvent": at, "total_number_visits": 2, "first_session_unix_timestamp": first}
        for number, (at, first) in enumerate(zip_longest(times, first_ms))
    ]
    users.sort(key=lambda user: -int(str(user["lastEvent"])))
    rests: dict[str, list[dict[str, Any]]] = {}
    while (ask := survey.next()) is not None:
        if ask.token is None:
            rest = [user for user in users if ask.asked.lo <= int(str(user["lastEvent"])) < ask.asked.hi]
        else:
            rest = rests[ask.token]
        token = str(len(rests))
        rests[token] = rest[page_size:]
        survey.add(ask, Page(rest[:page_size], token, None, None))
    return survey


@given(
    st.lists(st.integers(0, 40 * DAY_MS - 1), max_size=60, unique=True),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)), max_size=3),
)
def test_a_survey_ends_and_its_pieces_lie_side_by_side_in_what_is_to_be_loaded(
    times: list[int], page_size: int, stretches: list[tuple[int, int]]
) -> None:
    spans = add([], [Stretch(lo * DAY_MS, (lo + days) * DAY_MS) for lo, days in stretches]) or [Stretch(0, 40 * DAY_MS)]
    survey = surveyed(times, spans, page_size)
    assert survey.spent <= MOST_REQUESTS
    pieces = survey.pieces()
    assert sum(piece.stretch.hi - piece.stretch.lo for piece in pieces) == sum(span.hi - span.lo for span in spans)
    assert add([], [piece.stretch for piece in pieces]) == spans
    wanted = [at for at in times if any(lo <= at < hi for lo, hi in spans)]
    listed = [piece for piece in pieces if piece.listed]
    assert all(piece.users >= 0 and piece.visits >= 0 for piece in pieces)
    assert sum(piece.users for piece in listed) <= len(wanted)
    if len(listed) == len(pieces):
        assert sum(piece.users for piece in pieces) == len(wanted)
        assert sum(piece.visits for piece in pieces) == 2 * len(wanted)


def at_work(count: int, since_ms: int, until_ms: int, seed: int) -> list[int]:
    """When people visit a website of use at work, who live in Europe or America."""
    dice = Dice(seed, count)
    return [moment(since_ms, until_ms, dice.random(), dice.pick((1, 1, -5))) for _ in range(count)]


@pytest.mark.parametrize("age_days", [0, 2, 5])
@pytest.mark.parametrize(("users", "days", "page_size"), [(20_000, 300, 500), (60_000, 60, 500), (3_000, 120, 100)])
def test_nights_and_weekends_are_known_to_be_quiet(users: int, days: int, page_size: int, age_days: int) -> None:
    """A page lists the end of a day, or a few days: it says little of mornings and weekends by itself."""
    until = NOW_MS - age_days * DAY_MS + age_days * 3_600_000
    span = Stretch((until // DAY_MS - days) * DAY_MS, until)
    firsts = at_work(users, span.lo - 200 * DAY_MS, span.lo, seed=1)
    survey = surveyed(at_work(users, *span, seed=2), [span], page_size, firsts)
    found = sum(piece.users for piece in survey.pieces())
    assert found == pytest.approx(users, rel=CLOSE)
    assert abs(found - users) <= max(survey.doubt(), 0.02 * users)


def test_a_plan_says_when_it_could_not_see_how_quiet_the_nights_are(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody came twice, and no page holds a day."""
    desk.with_world(World(seed=3, users=2_000, days=20, now_ms=NOW_MS, sessions_per_user=0)).reading(max_limit=20)
    desk.configure(monkeypatch)
    assert main(["plan"]) == 0
    assert "how quiet nights are is not seen" in capsys.readouterr().out


def test_the_page_on_limits_shows_what_the_planner_counts() -> None:
    page = limits.PAGE.read_text(encoding="utf-8")
    assert page == limits.rewritten(page), "run `make limits`"


def test_the_page_on_limits_counts_as_a_load_does(desk: Desk) -> None:
    """A dataset spread evenly over the year, as the page takes it to be, loaded at ten a minute."""
    desk.with_world(World(users=0, now_ms=NOW_MS), rate_limit="10/minute")
    for number in range(200):
        user = desk.world.add_user(NOW_MS - (number + 1) * 366 * DAY_MS // 200)
        desk.world.return_user(user, NOW_MS - number * 366 * DAY_MS // 200 - 600_000)
    began = desk.clock.time()
    report = desk.load(rate_limit="10/minute")
    assert report.complete
    first = limits.first_load(200, 10, users_only=False)
    assert desk.clock.time() - began == pytest.approx(first.seconds, rel=CLOSE)
    assert sum(desk.requests().values()) == pytest.approx(sum(first.requests.values()), rel=CLOSE)
    # on a busy machine a request can arrive after the clock has jumped: it is refused, and sent again
    answered = [request for request in desk.server.requests if request.status == 200]
    assert sum(request.endpoint == "events" for request in answered) == 400


@pytest.mark.parametrize(
    ("users", "limit"), [(10_000, 10), (50_000, 100), pytest.param(100_000, 10, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("only", [RESOURCES, ("users",)], ids=["whole", "users"])
def test_the_page_on_limits_counts_a_day_as_a_run_does(
    desk: Desk, users: int, limit: int, only: tuple[str, ...]
) -> None:
    """The last days of such a dataset; on the next, users return who were last seen on the first of them."""
    desk.with_world(World(users=0, now_ms=NOW_MS), rate_limit=f"{limit}/minute")
    between_ms = 366 * DAY_MS // users
    loaded = [desk.world.add_user(NOW_MS - 600_000 - number * between_ms) for number in range(users * 4 // 366)]
    assert desk.load(only=only).complete
    active = users * 2 // 366
    desk.clock.advance(86_400)
    for number, user in enumerate(loaded[-active:]):
        desk.world.return_user(user, desk.now_ms - 600_000 - number * between_ms // 2)
    desk.server.clear_requests()
    result, seconds = desk.sync(rate_limit=f"{limit}/minute", only=only)
    assert result.complete
    day = limits.steady_day(users, limit, users_only=only == ("users",))
    assert sum(result.requests.values()) == pytest.approx(sum(day.requests.values()), rel=CLOSE)
    assert day.seconds is not None
    # on a busy machine the clock can jump over a period of the quota while a request is on its way
    assert day.seconds * (1 - CLOSE) <= seconds <= day.seconds * (1 + CLOSE) + 60
