"""How much memory a day takes in which very many users were seen: the API's filter cannot cut it smaller."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.servers import measure, sandbox
from benchmarks.table import Figure

_TARGET_MB = 400


def figures(*, quick: bool, rounds: int) -> Iterator[Figure]:  # noqa: ARG001 - a peak varies little
    """Peak resident size of the process that loads the users."""
    users = 10_000 if quick else 100_000
    with sandbox("--users", str(users), "--rate-limit", "unlimited", "--all-in-one-day") as account:
        got = measure("ours", account, only=["users"])
    assert got["users_rows"] == users
    yield Figure(
        f"peak memory, {users:,} users in one day",
        f"{got['peak_mb']:.0f} MB",
        f"imports {got['before_mb']:.0f} MB",
        got["peak_mb"] / _TARGET_MB,
        f"< {_TARGET_MB} MB",
        got,
    )
