"""`python -m benchmarks`: measures everything and prints one table. `--only NAME ...` and `--quick` measure less."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.servers import measure, sandbox


class Figure(NamedTuple):
    """A measured ratio beside what it should be."""

    name: str
    measured: str
    against: str
    ratio: str
    aim: str


def paced(*, quick: bool) -> Iterator[Figure]:
    """Makespan where quotas bind: a minute compressed to a second."""
    users = "150" if quick else "1000"
    served = ("--users", users, "--rate-limit", "10/second", "--profile", "token_life_s=10")
    with sandbox(*served) as account:
        got = measure("ours", account, rate_limit="10/second")
    bound = got["most"] / 10
    yield Figure(
        f"makespan, {users} users at 10/second", f"{got['seconds']:.1f} s", f"bound {bound:.1f} s",
        f"{got['seconds'] / bound:.3f}", "1.05",
    )  # fmt: skip
    yield Figure(
        "the same at 10/minute", f"{got['seconds'] / 60:.2f} h", f"bound {bound / 60:.2f} h", "extrapolated x 60", "",
    )  # fmt: skip
    refused = got["refused"] / got["requests"]
    yield Figure(
        "requests refused", f"{got['refused']:.0f}", f"of {got['requests']:.0f}", f"{refused:.4f}", "below 0.01"
    )


def throughput(*, quick: bool) -> Iterator[Figure]:
    """Wall time where nothing binds, against floors and peers on the same server."""
    users, rounds = ("500", 1) if quick else ("5000", 1)
    with (
        sandbox("--users", users, "--rate-limit", "unlimited", "--profile", "end_of_list=absent") as account,
        tempfile.TemporaryDirectory() as folder,
    ):
        rows = f"{folder}/rows.pickle"
        measure("rows_from_memory", account, rows=rows)  # captures the rows

        def seconds(contender: str, **options: str) -> float:
            return statistics.median(measure(contender, account, **options)["seconds"] for _ in range(rounds))

        network, destination = seconds("bare_loop"), seconds("rows_from_memory", rows=rows)
        got = measure("ours", account)
        tuned, defaults = seconds("rest_api_tuned"), seconds("rest_api_defaults")
    floor = network + destination
    took = got["seconds"]
    load = f"load of {users} users, unlimited"
    parts = f"bare loop {network:.1f} s + dlt from memory {destination:.1f} s"
    yield Figure(load, f"{took:.1f} s", parts, f"{took / floor:.2f}", "1.2")
    yield Figure(
        "dlt's rest_api, defaults", f"{defaults:.1f} s", f"ours {took:.1f} s", f"{defaults / took:.2f}", "3 or more"
    )
    yield Figure("dlt's rest_api, tuned", f"{tuned:.1f} s", f"ours {took:.1f} s", f"{tuned / took:.2f}", "1 or more")
    yield Figure("peak memory of that load", f"{got['peak_mb']:.0f} MB", "", "", "")


def memory(*, quick: bool) -> Iterator[Figure]:
    """Peak memory of a day in which very many users were seen."""
    users = "10000" if quick else "100000"
    with sandbox("--users", users, "--rate-limit", "unlimited", "--all-in-one-day") as account:
        got = measure("ours", account, only="users")
    peak = got["peak_mb"]
    yield Figure(f"peak memory, {int(users):,} users in one day", f"{peak:.0f} MB", "", f"{peak / 400:.2f}", "400 MB")


def server(*, quick: bool) -> Iterator[Figure]:
    """The sandbox itself: it has to measure clients."""
    with sandbox("--users", "10", "--rate-limit", "unlimited") as account:
        got = measure("small_requests", account, count="1000" if quick else "5000")
    yield Figure("sandbox, small requests", f"{got['per_second']:.0f}/s", "", "", "1000/s or more")


BENCHMARKS: dict[str, Callable[..., Iterator[Figure]]] = {
    function.__name__: function for function in (server, memory, throughput, paced)
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small sizes: for a look, not for quoting")
    arguments = parser.parse_args()
    table = Table("figure", "measured", "against", "ratio", "aim", "made by")
    for name in arguments.only:
        command = f"python -m benchmarks --only {name}{' --quick' if arguments.quick else ''}"
        for figure in BENCHMARKS[name](quick=arguments.quick):
            table.add_row(*figure, command)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
