"""How much memory a day takes in which very many users were seen: the API's filter cannot cut it smaller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from benchmarks.servers import measure, sandbox
from benchmarks.table import Figure, seconds
from leadboxer_source.memory import BUFFER_ROWS, DUCKDB

_TARGET_MB = 400

_BOUNDED = {
    "DESTINATION__DUCKDB__CREDENTIALS__GLOBAL_CONFIG": json.dumps(DUCKDB),
    "DATA_WRITER__BUFFER_MAX_ITEMS": str(BUFFER_ROWS),
}
"""What docs/recipes.md advises for a small machine."""


def figures(*, quick: bool, rounds: int) -> Iterator[Figure]:  # noqa: ARG001 - a peak varies little
    """Peak resident size of the process that loads the users, in each of the ways to do so."""
    users = 10_000 if quick else 100_000
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "leadboxer sync": ("command", {}),
        "pipeline.run, configured so": ("ours", {"environment": _BOUNDED}),
        "pipeline.run, nothing configured": ("ours", {}),
    }
    with sandbox("--users", str(users), "--rate-limit", "unlimited", "--all-in-one-day") as account:
        for way, (contender, options) in ways.items():
            got = measure(contender, account, only=["users"], **options)
            assert got["users_rows"] == users
            yield Figure(
                f"peak memory, {users:,} users in one day: {way}",
                f"{got['peak_mb']:.0f} MB in {seconds(got)}",
                f"imports {got['before_mb']:.0f} MB",
                got["peak_mb"] / _TARGET_MB,
                f"< {_TARGET_MB} MB",
                got,
            )
