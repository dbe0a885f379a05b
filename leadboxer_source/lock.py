"""One process at a time loads with a pipeline: two would overwrite each other's state and packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dlt
from filelock import FileLock, Timeout

from leadboxer_source.errors import PipelineBusy

_PATIENCE_SECONDS = 0.3
"""Whoever only looks whether the lock is held has it for an instant."""


@contextmanager
def alone(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Holds the pipeline's lock on this machine; the system releases it when the process dies.

    Raises:
        PipelineBusy: Another process holds it.
    """
    lock = _lock_of(pipeline)
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        raise PipelineBusy(
            f"Another process is at work with the pipeline {pipeline.pipeline_name}: wait until it has ended, "
            "or load to another place with a pipeline of its own."
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_held(pipeline: dlt.Pipeline) -> bool:
    """Whether a process is at work with the pipeline on this machine."""
    lock = _lock_of(pipeline)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock:
            return False
    except Timeout:
        return True


def _lock_of(pipeline: dlt.Pipeline) -> FileLock:
    # beside the working directory, not in it: dlt removes that one when it starts a pipeline anew
    name = f".{pipeline.pipeline_name}.leadboxer.lock"
    return FileLock(Path(pipeline.pipelines_dir) / name, timeout=_PATIENCE_SECONDS)
