"""How fast the sandbox itself is: it has to be faster than what it measures."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import servers
from benchmarks.table import Figure

_TARGET = 1_000


def figures(*, quick: bool, rounds: int) -> Iterator[Figure]:
    """Small requests in a second, one after the other, on one core."""
    count = 1_000 if quick else 10_000
    with servers.sandbox("--users", "10", "--rate-limit", "unlimited") as account:
        got = servers.medians([servers.measure("small_requests", account, count=count) for _ in range(rounds)])
    yield Figure(
        "sandbox, small requests in a second",
        f"{got['per_second']:,.0f}/s",
        f"{_TARGET:,}/s",
        got["per_second"] / _TARGET,
        ">= 1",
        got,
    )
