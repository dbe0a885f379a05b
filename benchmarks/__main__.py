"""`python -m benchmarks`: measures everything on this machine and prints one table.

Everything runs on loopback, each contender in a process of its own; times compare within one run only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import memory, paced, peers, plan, sandbox, throughput
from benchmarks.table import Figure, Measured, show, write

BENCHMARKS: dict[str, Callable[..., Iterator[Figure]]] = {
    "sandbox": sandbox.figures,
    "memory": memory.figures,
    "throughput": throughput.figures,
    "peers": peers.figures,
    "paced": paced.figures,
    "plan": plan.figures,
}


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures, and prints one table.")
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: for a look, not for quoting")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many, where a round is cheap (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    arguments = parser.parse_args()
    results: list[Measured] = []
    failed = False
    for name in arguments.only:
        print(name, file=sys.stderr)
        command = f"python -m benchmarks --only {name}{' --quick' if arguments.quick else ''}"
        try:
            figures = BENCHMARKS[name](quick=arguments.quick, rounds=arguments.rounds)
            for figure in figures:
                results.append(Measured(command, figure))
                print(f"  {figure.figure}: {figure.measured}", file=sys.stderr)
        except (AssertionError, RuntimeError) as error:
            # what the others measured is worth showing
            failed = True
            print(f"{name} failed: {error}", file=sys.stderr)
    show(results)
    if arguments.json:
        write(results, arguments.json)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
