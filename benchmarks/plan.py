"""How close `leadboxer plan` comes to what a load then takes; time is virtual, so that ten a minute costs none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.table import Figure
from leadboxer_source.plan import Plan, make_plan
from leadboxer_source.sandbox import World
from leadboxer_source.settings import RateLimit, Settings
from tests.conftest import NOW_MS, Desk

_TARGET = "0.85 to 1.15"
_PERIOD_SECONDS = 60.0


def figures(*, quick: bool, rounds: int) -> Iterator[Figure]:  # noqa: ARG001 - virtual time does not vary
    """Planned against actual: requests and hours of loads that are made, visits of worlds too large for that."""
    made: list[dict[str, Any]] = [
        {"users": 200, "days": 90, "sessions_per_user": 1.5},
        {"users": 1_000, "days": 200, "sessions_per_user": 2.0},
    ]
    for limit, world in ((10, made[0]), (10, made[1]), (100, made[1])):
        if quick and world is not made[0]:
            continue
        yield from _loaded(limit, world)
    for users, days in ((5_000, 300),) if quick else ((20_000, 300), (100_000, 366)):
        yield _surveyed(users, days, hostile=True)
        yield _surveyed(users, days, hostile=False)


def _loaded(limit: int, world: dict[str, Any]) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="leadboxer-benchmark-") as folder:
        desk = Desk(Path(folder)).with_world(World(seed=3, now_ms=NOW_MS, **world), rate_limit=f"{limit}/minute")
        plan = _plan(desk, limit)
        desk.clock.advance(_PERIOD_SECONDS)
        result, seconds = desk.sync(rate_limit=f"{limit}/minute")
        hours = seconds / 3600
        desk.server.stop()
    assert result.complete
    estimate = plan.estimates[0]
    planned, actual = sum(estimate.requests.values()), sum(result.requests.values())
    what = f"{world['users']:,} users at {limit}/minute"
    raw = {"planned": planned, "actual": actual, "spent": plan.spent}
    yield Figure(f"planned requests, {what}", f"{planned:,}", f"took {actual:,}", planned / actual, _TARGET, raw)
    planned_hours = (estimate.seconds or 0.0) / 3600
    yield Figure(
        f"planned hours, {what}", f"{planned_hours:.2f} h", f"took {hours:.2f} h", planned_hours / hours, _TARGET
    )


def _surveyed(users: int, days: int, *, hostile: bool) -> Figure:
    """Hostile worlds come around the clock; in others, nights and weekends are quiet."""
    with tempfile.TemporaryDirectory(prefix="leadboxer-benchmark-") as folder:
        desk = Desk(Path(folder)).with_world(World(seed=3, users=users, days=days, now_ms=NOW_MS, hostile=hostile))
        plan = _plan(desk, 10)
        desk.server.stop()
    visits = sum(desk.world.user_record(user, NOW_MS)["total_number_visits"] for user in desk.world.user_ids())
    planned = plan.estimates[0].requests["events"]
    return Figure(
        f"planned sessions, {users:,} users over {days} days{'' if hostile else ' of work'}, {plan.spent} pages",
        f"{planned:,}",
        f"there are {visits:,}",
        planned / visits,
        _TARGET,
        {"planned": planned, "actual": visits, "spent": plan.spent},
    )


def _plan(desk: Desk, limit: int) -> Plan:
    account = (desk.world.site, desk.server.key, desk.server.url)
    return make_plan(Settings(*account, RateLimit(limit, _PERIOD_SECONDS), ":memory:"), clock=desk.clock)
