"""`leadboxer sync`: loads what is not loaded yet, slice by slice."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from typing import Any

import click
import dlt
from dlt.common.configuration.exceptions import ConfigurationException

from leadboxer_source.cli import STOPPED_WITH_PROGRESS
from leadboxer_source.cli.options import names, taken_account, taken_place, with_account, with_place
from leadboxer_source.cli.picture import ENDED, LISTING
from leadboxer_source.cli.progress import Progress
from leadboxer_source.cli.sentences import ignored
from leadboxer_source.cli.terminal import say
from leadboxer_source.configured import configured, found
from leadboxer_source.configured import names as setting_names
from leadboxer_source.destination import states_there
from leadboxer_source.journal import Journal
from leadboxer_source.memory import bound
from leadboxer_source.plan import Plan, covered_of
from leadboxer_source.report import Report
from leadboxer_source.sync import SyncResult, is_plannable, sync


@click.command(epilog="\b\nExample: leadboxer sync --destination duckdb --db leadboxer.duckdb --max-minutes 60")
@with_place
@with_account
@click.option("--start-date", help="Load users seen since then (UTC).")
@click.option("--end-date", help="One-off load of users seen before then; marks nothing as loaded.")
@click.option("--only", help="Some of users, sessions, events, properties, separated by commas.")
@click.option("--max-minutes", type=click.FloatRange(min=0), help="Stop after so long; what is begun then is finished.")
@click.option(
    "--max-requests",
    type=click.IntRange(min=0),
    help="Stop after so many requests; what is begun then is finished, so it takes some more.",
)
@click.option(
    "--slice-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Length of a slice: what a crash can cost. (15 unless configured)",
)
@click.option(
    "--file-format",
    type=click.Choice(["jsonl", "parquet"]),
    help="Of files in a folder or bucket.  [default: what suits the destination]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, and nothing else.")
def command(*, only: str | None, as_json: bool, **options: Any) -> int:
    """Load what is not loaded yet, slice by slice.

    Ctrl-C or SIGTERM ends the slice early and keeps it; a second one stops at once and loses it.
    """
    # dlt would abort a load at the first signal; here the second does
    os.environ.setdefault("RUNTIME__INTERCEPT_SIGNALS", "false")
    place, account = taken_place(options), taken_account(options)
    bound(place.destination)
    for name in ("start_date", "end_date"):
        value = options.pop(name)
        if value is not None:
            account[name] = value
    for sentence in ignored(setting_names()):
        say(sentence, err=True)
    pipeline = place.pipeline()
    for name in () if as_json or place.is_missing else _others(pipeline, account):
        instead = place._replace(name=name).command("sync")
        told = f"The pipeline {name} has loaded this dataset here already; this one begins anew."
        say(f"{told} `{instead}` goes on where that one is.", err=True)
    progress = None if as_json else Progress(_plan(pipeline, only, account))
    stop = _Stop(progress)
    try:
        with stop.on_signals(), place.leaving_no_empty_file(), progress or nullcontext():
            result = sync(pipeline, only=names(only), watch=stop.watch, **options, **account)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(stop.told()) from None
    if as_json:
        runs = [asdict(run) for run in result.runs]
        ended = {"complete": result.complete, "stopped": result.stopped, "set_aside": result.set_aside}
        say(json.dumps({**ended, "runs": runs}))
    else:
        named = {"leads": LISTING}
        requests = ", ".join(f"{count:,} {named.get(name, name)}" for name, count in result.requests.items())
        say(_ending(result, is_one_off=bool(account.get("end_date"))))
        say(f"Read {_rows(result.loaded)} into {place}.\nRequests: {requests or 'none'}.")
    return 0 if result.complete else STOPPED_WITH_PROGRESS


def _ending(result: SyncResult, *, is_one_off: bool) -> str:
    """Says how a sync ended, and what it could not read."""
    why = ENDED.get(result.stopped, result.stopped).capitalize()
    if is_one_off:
        is_all = result.stopped == "covered"
        how = "All of that stretch is loaded" if is_all else f"{why}; run it again, it begins anew"
    else:
        is_all = result.complete
        how = "All is covered" if is_all else f"{why}; run it again to go on"
    if not result.set_aside:
        return f"{how}."
    left = "1 user or session" if result.set_aside == 1 else f"{result.set_aside:,} users or sessions"
    joint = ", but" if is_all else "."
    return f"{how}{joint} {left} could not be read whole yet: the table load_failures names them."


_ONE = {"users": "user", "sessions": "session", "events": "event", "properties": "property"}


def _rows(loaded: dict[str, int]) -> str:
    told = [f"{loaded[name]:,} {one if loaded[name] == 1 else name}" for name, one in _ONE.items() if loaded.get(name)]
    return ", ".join(told) or "nothing"


class _Stop:
    """Ends a sync: after what is under way at the first signal, at once at the second."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._asked = False
        self._report: Report | None = None
        self._slices = 0

    def told(self) -> str:
        """Says what is kept of a sync that was stopped at once."""
        if self._report is not None and self._report.stopped not in {"", "closed"}:
            return "Stopped while it wrote what it had read; the next run finishes that, or reads it again."
        if self._slices > 1:
            return "Stopped; the slices that were finished are kept. Run it again to go on."
        return "Stopped; no slice was finished, so nothing of this load is kept. Run it again."

    def watch(self, report: Report) -> None:
        """Passes a report on, and lets its run end if that was asked for."""
        self._slices += self._report is not report
        self._report = report
        report.stopping = report.stopping or self._asked
        if self._progress is not None:
            self._progress(report)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listens to Ctrl-C and SIGTERM."""
        before = {}
        with suppress(ValueError):  # not the main thread: whoever embeds the command line has signals of their own
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, self._signalled)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        if self._report is not None:
            self._report.stopping = True  # also after the slice's last word: then no other begins
        if self._progress is not None:
            self._progress.stopping()


def _others(pipeline: dlt.Pipeline, account: dict[str, Any]) -> list[str]:
    """Names the pipelines that have covered some of this dataset in the same place, if this one never loaded there."""
    with suppress(Exception):  # the load will tell what is wrong
        config = configured(**account)
        if config.end_ms is None and not pipeline.state.get("sources"):  # a one-off goes by no coverage
            states = states_there(pipeline)
            if pipeline.pipeline_name not in states:
                return [name for name, state in states.items() if covered_of(state, config.scope)]
    return []


def _plan(pipeline: dlt.Pipeline, only: str | None, account: dict[str, Any]) -> Plan | None:
    """The plan that was made for such a load, if one was."""
    with suppress(ConfigurationException):  # the load will tell what is wrong
        return Journal(pipeline.working_dir).plan() if is_plannable(names(only), found(**account)["end_date"]) else None
    return None
