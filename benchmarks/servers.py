"""The processes of a benchmark: the sandbox, and each contender for itself, so that none shares an interpreter."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Account = Mapping[str, str]
"""Address, dataset and key of a sandbox."""

Result = dict[str, float]
"""What a contender measured, by name."""

_ROOT = Path(__file__).resolve().parent.parent
_LONGEST_SECONDS = 3_600


@contextmanager
def sandbox(*arguments: str) -> Iterator[Account]:
    """Serves a dataset; yields where."""
    command = [sys.executable, "-m", "leadboxer_source.sandbox", "--json", "--seed", "3", "--hostile", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment())
    try:
        assert server.stdout is not None
        told = server.stdout.readline()
        assert told, "The sandbox did not start."
        yield json.loads(told)
    finally:
        server.terminate()
        server.wait()


def measure(contender: str, account: Account, **options: Any) -> Result:
    """Runs one contender in a fresh process and folder; returns what it measured.

    Raises:
        RuntimeError: It failed.
    """
    print(f"  {contender} ...", end="", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.contender", contender, json.dumps({**account, **options})]
    with tempfile.TemporaryDirectory(prefix="leadboxer-benchmark-") as folder:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**_environment(), "DLT_DATA_DIR": folder, "DLT_PROJECT_DIR": folder},
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONGEST_SECONDS,
        )
    if done.returncode:
        raise RuntimeError(f"{contender} failed:\n{done.stderr[-3_000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    print(f" {result['seconds']:.1f} s", file=sys.stderr)
    return result


def medians(results: Sequence[Result]) -> Result:
    """The median of each number over the rounds."""
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def _environment() -> dict[str, str]:
    # telemetry would be network traffic in the middle of a measurement
    return {**os.environ, "PYTHONPATH": str(_ROOT), "RUNTIME__DLTHUB_TELEMETRY": "false"}
