"""How long dlt's own `rest_api` source takes for the same data, as it comes and tuned by hand."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.servers import measure, medians, sandbox
from benchmarks.table import Figure, seconds


def figures(*, quick: bool, rounds: int) -> Iterator[Figure]:
    """Wall time of each peer against ours."""
    users = 200 if quick else 5_000
    # a peer reads children between two pages: tokens live long, so that it comes to its end
    served = ("--users", str(users), "--rate-limit", "unlimited", "--profile", "token_life_s=86400")
    with sandbox(*served) as account:
        measure("bare_loop", account)  # the sandbox makes histories when they are first asked for
        taken = [(measure("ours", account), measure("rest_api_tuned", account)) for _ in range(rounds)]
        defaults = measure("rest_api_defaults", account)
    ours, tuned = (medians(results) for results in zip(*taken, strict=True))
    for name, peer, target in (("defaults", defaults, ">= 3"), ("tuned by hand", tuned, ">= 1")):
        for table in ("users_rows", "sessions_rows", "events_rows"):
            assert peer[table] == ours[table], f"rest_api, {name}, did not load the same {table}."
        yield Figure(
            f"dlt's rest_api, {name}, {users:,} users",
            seconds(peer),
            f"ours {seconds(ours)}",
            peer["seconds"] / ours["seconds"],
            target,
            {"seconds": peer["seconds"], "ours_seconds": ours["seconds"], "peak_mb": peer["peak_mb"]},
        )
