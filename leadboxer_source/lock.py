"""One process at a time loads with a pipeline: two would overwrite each other's state and packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dlt
from filelock import FileLock, Timeout

from leadboxer_source.errors import PipelineBusy


@contextmanager
def alone(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Holds the pipeline's lock on this machine; the system releases it when the process dies.

    Raises:
        PipelineBusy: Another process holds it.
    """
    # beside the working directory, not in it: dlt removes that one when it starts a pipeline anew
    folder = Path(pipeline.pipelines_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{pipeline.pipeline_name}.leadboxer.lock", timeout=0)
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
