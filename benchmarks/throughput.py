"""How long a load takes where no quota binds, against what the network and the destination take at least."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from benchmarks.servers import measure, medians, sandbox
from benchmarks.table import Figure, seconds


def figures(*, quick: bool, rounds: int) -> Iterator[Figure]:
    """Wall time of a first load against the sum of two floors; its rows in a second and its peak memory."""
    users = 500 if quick else 5_000
    with (
        sandbox("--users", str(users), "--rate-limit", "unlimited") as account,
        tempfile.TemporaryDirectory() as folder,
    ):
        rows = f"{folder}/rows.pickle"
        # also makes the sandbox's histories, which it does when they are first asked for
        measure("capture", account, rows=rows)
        taken = [
            (measure("ours", account), measure("bare_loop", account), measure("from_memory", account, rows=rows))
            for _ in range(rounds)
        ]
        plain = measure("ours", account, plain=True)
    ours, network, destination = (medians(results) for results in zip(*taken, strict=True))
    for table in ("users_rows", "sessions_rows", "events_rows"):
        assert ours[table] == network[table] == destination[table], f"Not the same {table} were loaded."
    floor = network["seconds"] + destination["seconds"]
    yield Figure(
        f"first load, {users:,} users, no limit",
        seconds(ours),
        f"floors {floor:.1f} s: bare loop {network['seconds']:.1f} s + dlt from memory {destination['seconds']:.1f} s",
        ours["seconds"] / floor,
        "<= 1.2",
        {**ours, "network_seconds": network["seconds"], "destination_seconds": destination["seconds"]},
    )
    yield Figure(
        "requests in a second of that load",
        f"{ours['requests'] / ours['seconds']:,.0f}/s",
        f"of {ours['requests']:,.0f} requests",
    )
    yield Figure("peak memory of that load", f"{ours['peak_mb']:.0f} MB", f"imports {ours['before_mb']:.0f} MB")
    yield Figure(
        "that load in the file format that dlt takes",
        seconds(plain),
        f"as `sync` loads {seconds(ours)}",
        plain["seconds"] / ours["seconds"],
        raw=plain,
    )
    yield Figure("peak memory of that", f"{plain['peak_mb']:.0f} MB", f"as `sync` loads {ours['peak_mb']:.0f} MB")
