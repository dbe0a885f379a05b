"""How close a load comes to the quota where the quota binds: a minute of the API compressed to a second."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.servers import measure, sandbox
from benchmarks.table import Figure, seconds

_LIMIT = 10


def figures(*, quick: bool, rounds: int) -> Iterator[Figure]:  # noqa: ARG001 - a makespan in minutes varies little
    """Makespan against the bound, at the compressed and at the real rate; requests refused; requests too many."""
    users = 100 if quick else 1_000
    rate = f"{_LIMIT}/second"
    served = ("--users", str(users), "--sessions-per-user", "1.5", "--rate-limit", rate)
    # a page token lives ten minutes: here, ten seconds
    with sandbox(*served, "--profile", "token_life_s=10") as account:
        got = measure("ours", account, rate_limit=rate)
    bound = got["busiest"] / _LIMIT
    ratio = got["seconds"] / bound
    yield Figure(f"makespan, {users:,} users at {rate}", seconds(got), f"bound {bound:.1f} s", ratio, "<= 1.05", got)
    hours, bound_hours = got["seconds"] / 60, bound / 60
    yield Figure(
        f"the same at {_LIMIT}/minute (x 60)",
        f"{hours:.2f} h",
        f"bound {bound_hours:.2f} h",
        hours / bound_hours,
        "<= 1.05",
    )
    share = got["refused"] / got["requests"]
    yield Figure(
        "requests refused (429)", f"{got['refused']:.0f}", f"of {got['requests']:,.0f} requests", share, "< 0.01"
    )
    # the bound is made of the requests that were answered, so there must be none too many
    needed = got["users_rows"] + got["sessions_rows"]
    sent = got["sessions_requests"] + got["events_requests"]
    yield Figure(
        "requests for children, refused ones included", f"{sent:,.0f}", f"{needed:,.0f} parents", sent / needed, "1"
    )
