"""Slices until all is covered: each run of the pipeline is a checkpoint, so a crash costs one slice at the most."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dlt
from dlt.pipeline.exceptions import PipelineStepFailed

from leadboxer_source import settings
from leadboxer_source.configured import found
from leadboxer_source.errors import ConfigurationInvalid, LeadBoxerError
from leadboxer_source.journal import Journal
from leadboxer_source.lock import alone
from leadboxer_source.memory import checkpoint, lifted
from leadboxer_source.report import Report, Watch, total
from leadboxer_source.source import leadboxer_source
from leadboxer_source.state import COVERED
from leadboxer_source.warehouses import create_indexes

BOOKS = ("load_failures", "load_runs")
"""What a run keeps about itself; loaded whatever else is."""

RESOURCES = (*COVERED, *BOOKS)

_RUNS_WITHOUT_EXTRACT = 3


@dataclass
class SyncResult:
    """How a sync went.

    Attributes:
        complete: All that there was is loaded and marked as such.
        stopped: Why the last run ended; see `Report.stopped`.
        runs: One report for each run.
        only: Resources that were loaded.
    """

    complete: bool = False
    stopped: str = ""
    runs: list[Report] = field(default_factory=list)
    only: Sequence[str] = RESOURCES

    @property
    def can_go_on(self) -> bool:
        """Whether another call would get further at once; not so where all is covered, or a day's quota is spent."""
        return bool(self.runs) and self.runs[-1].can_go_on

    @property
    def set_aside(self) -> int:
        """Users whose sessions, and sessions whose events, could not be read so far; `load_failures` names them."""
        return self.runs[-1].set_aside if self.runs else 0

    @property
    def requests(self) -> dict[str, int]:
        """Requests of all runs, by endpoint."""
        return total(run.requests for run in self.runs)

    @property
    def loaded(self) -> dict[str, int]:
        """Rows of them that all runs have read, by resource; a row that was read twice counts twice."""
        read = total(run.loaded for run in self.runs)
        return {name: count for name, count in read.items() if name in self.only}


def sync(
    pipeline: dlt.Pipeline,
    *,
    only: Sequence[str] | None = None,
    max_minutes: float | None = None,
    max_requests: int | None = None,
    slice_minutes: float | None = None,
    file_format: Any = None,
    watch: Watch | None = None,
    **config: Any,
) -> SyncResult:
    """Runs a pipeline, slice by slice, until the dataset is covered or a budget is spent.

    Args:
        pipeline: Where to load.
        only: Resources to load; all if not given.
        max_minutes: After how long to stop; no limit if not given.
        max_requests: After how many requests to stop; what is configured if not given.
        slice_minutes: Length of a slice: what a crash can cost. The configured `max_minutes` if not given.
        file_format: Of the files that are loaded, such as `parquet`; what suits the destination if not given.
        watch: Is called with a `Report` while a slice goes on and when it ends.
        **config: Arguments of `leadboxer_source`; what is missing comes from dlt's configuration.

    Returns:
        How it went; `complete` tells whether to run again.

    Raises:
        PipelineBusy: Another process is at work with the pipeline.
        LeadBoxerError: The API or the configuration stands in the way; what earlier slices loaded is kept.
    """
    unknown = set(only or ()) - set(RESOURCES)
    if unknown:
        raise ConfigurationInvalid(
            f"There is no resource {', '.join(sorted(unknown))}; there are {', '.join(COVERED)}."
        )
    if only and not set(only) & set(COVERED):
        raise ConfigurationInvalid(
            f"{' and '.join(BOOKS)} come with any load: name one of {', '.join(COVERED)}, or leave `only` out."
        )
    configured = found(**config)
    max_minutes = settings.parse_number(max_minutes, "max_minutes")
    max_requests = settings.parse_number(
        configured["max_requests"] if max_requests is None else max_requests, "max_requests"
    )
    slice_minutes = settings.parse_number(
        configured["max_minutes"] if slice_minutes is None else slice_minutes, "slice_minutes", "max_minutes"
    )
    is_whole = is_plannable(only, configured["end_date"])
    run = partial(_run, pipeline, only, watch, file_format, is_whole=is_whole, **config)
    with alone(pipeline):
        result = SyncResult(only=only or RESOURCES)
        return _until_covered(result, pipeline.pipeline_name, run, max_minutes, max_requests, slice_minutes)


def is_plannable(only: Sequence[str] | None, end_date: object) -> bool:
    """Whether a load is of the kind that plans are made for: of all resources, and no one-off."""
    return not only and not end_date


def _until_covered(
    result: SyncResult,
    name: str,
    run: Callable[..., Report | None],
    max_minutes: float | None,
    max_requests: int | None,
    slice_minutes: float,
) -> SyncResult:
    started, idle_runs = time.monotonic(), 0
    while True:
        minutes_left = None if max_minutes is None else max_minutes - (time.monotonic() - started) / 60
        requests_left = None if max_requests is None else max_requests - sum(result.requests.values())
        if result.runs and any(left is not None and left <= 0 for left in (minutes_left, requests_left)):
            return result
        report = run(
            max_minutes=slice_minutes if minutes_left is None else max(0.0, min(slice_minutes, minutes_left)),
            max_requests=requests_left,
        )
        if report is None:
            # dlt first loads what an earlier run had extracted, and does not touch the source in that run
            idle_runs += 1
            if idle_runs > _RUNS_WITHOUT_EXTRACT:
                raise LeadBoxerError(f"Packages of an earlier run cannot be loaded; see `dlt pipeline {name} info`.")
            continue
        result.runs.append(report)
        result.stopped = report.stopped
        result.complete = report.complete
        if not report.can_go_on:
            return result


def _run(
    pipeline: dlt.Pipeline,
    only: Sequence[str] | None,
    watch: Watch | None,
    file_format: Any,
    *,
    is_whole: bool,
    **config: Any,
) -> Report | None:
    """One run; returns its report, or `None` if the source was not touched."""
    ended: list[Report] = []
    journal = Journal(pipeline.working_dir)

    def note(report: Report) -> None:
        if report.stopped:
            ended.append(report)
        journal.note(report, is_whole=is_whole)
        if watch is not None:
            watch(report)

    source = leadboxer_source(watch=note, **config)
    try:
        wanted = source.with_resources(*only, *BOOKS) if only else source
        try:
            pipeline.run(wanted, loader_file_format=file_format)
        except PipelineStepFailed as failed:
            if not lifted(failed):
                raise
            pipeline.load()
        create_indexes(pipeline)
        checkpoint(pipeline)
    except PipelineStepFailed as failed:
        cause: BaseException | None = failed
        while cause is not None and not isinstance(cause, LeadBoxerError):
            if isinstance(cause, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None
    finally:
        journal.close()
    return ended[-1] if ended else None
