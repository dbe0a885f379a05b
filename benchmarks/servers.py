"""The sandbox as a process of its own, so that it shares no interpreter with what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sandbox(*arguments: str) -> Iterator[dict[str, str]]:
    """Serves a dataset; yields its address, dataset id and key."""
    command = [sys.executable, "-m", "leadboxer_source.sandbox", "--json", "--seed", "3", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())
    finally:
        server.terminate()
        server.wait()


def measure(contender: str, account: dict[str, str], **options: str) -> dict[str, float]:
    """Runs one contender in a fresh process; returns what it printed as JSON."""
    command = [sys.executable, "-m", "benchmarks.contenders", contender, json.dumps({**account, **options})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} failed:\n{done.stderr[-3_000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
