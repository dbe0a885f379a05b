"""The command `leadboxer`.

Exit codes: 0 all covered, 3 stopped with progress, 4 configuration, 5 credentials, 6 not LeadBoxer, 1 anything else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from leadboxer_source.errors import ConfigurationInvalid, LeadBoxerError
from leadboxer_source.rows import instant
from leadboxer_source.slice import Report

STOPPED_WITH_PROGRESS = 3
_QUIET_LINE_SECONDS = 15.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="leadboxer", description="Loads a LeadBoxer dataset with dlt.")
    parser.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_sync(commands.add_parser("sync", help="load what is not loaded yet, slice by slice", epilog=_SYNC_EXAMPLE))
    sandbox = commands.add_parser("sandbox", help="serve a made-up LeadBoxer on this machine", add_help=False)
    sandbox.add_argument("rest", nargs=argparse.REMAINDER)
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "sandbox":
        return _sandbox([*rest, *arguments.rest])
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return _sync(arguments)
    except Exception as error:
        if arguments.debug:
            raise
        print(f"leadboxer: {_sentence(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, LeadBoxerError) else _exit_code(error)
    except KeyboardInterrupt:
        print("leadboxer: Stopped; the slices that were finished are kept. Run it again to go on.", file=sys.stderr)
        return STOPPED_WITH_PROGRESS


_SYNC_EXAMPLE = "Example: leadboxer sync --destination duckdb --db leadboxer.duckdb --max-minutes 60"


def _add_sync(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--destination", default="duckdb", help="any dlt destination (default: duckdb)")
    parser.add_argument("--db", help="file of a DuckDB destination (default: leadboxer.duckdb)")
    parser.add_argument("--dataset", default="leadboxer_data", help="dataset (schema) in the destination")
    parser.add_argument("--pipeline", help="name of the pipeline (default: made of where it loads to)")
    parser.add_argument("--site", help="LeadBoxer dataset id (default: from dlt's configuration)")
    parser.add_argument("--base-url", help="the API's address")
    parser.add_argument("--rate-limit", help="requests that each endpoint allows (default: 10/minute)")
    parser.add_argument("--start-date", help="load users seen since then (UTC)")
    parser.add_argument("--end-date", help="one-off load of users seen before then; marks nothing as loaded")
    parser.add_argument("--only", help="resources to load, separated by commas")
    parser.add_argument("--max-minutes", type=float, help="stop after so long")
    parser.add_argument("--max-requests", type=int, help="stop after so many requests")
    parser.add_argument("--slice-minutes", type=float, default=15.0, help="length of a slice: what a crash can cost")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, and nothing else")


def _sync(arguments: argparse.Namespace) -> int:
    # imported late: `leadboxer sandbox` and `--help` need no dlt
    import dlt

    from leadboxer_source.sync import sync

    names = ("site", "base_url", "rate_limit", "start_date", "end_date")
    config = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    show = None if arguments.json else Progress()
    result = sync(
        pipeline_for(dlt, arguments.destination, arguments.db, arguments.dataset, arguments.pipeline),
        only=[name.strip() for name in arguments.only.split(",")] if arguments.only else None,
        max_minutes=arguments.max_minutes,
        max_requests=arguments.max_requests,
        slice_minutes=arguments.slice_minutes,
        watch=show,
        **config,
    )
    if arguments.json:
        print(
            json.dumps(
                {"complete": result.complete, "stopped": result.stopped, "runs": [asdict(r) for r in result.runs]}
            )
        )
    else:
        requests = ", ".join(f"{count} {endpoint}" for endpoint, count in result.requests.items())
        how = "All is covered" if result.complete else f"Stopped ({result.stopped}); run it again to go on"
        print(f"{how}. Requests: {requests or 'none'}.")
    return 0 if result.complete else STOPPED_WITH_PROGRESS


def pipeline_for(dlt: Any, destination: str, db: str | None, dataset: str, name: str | None = None) -> Any:
    """Returns the pipeline for a place to load to; each place has its own, as what is covered there differs."""
    if db is not None and destination != "duckdb":
        raise ConfigurationInvalid("--db names a DuckDB file; for other destinations configure dlt's credentials.")
    path = Path(db or "leadboxer.duckdb").absolute()
    if destination == "duckdb" and path.stem == dataset:
        raise ConfigurationInvalid(
            f"DuckDB cannot tell the dataset {dataset} from the file {path.name}: name one of them otherwise."
        )
    place = f"{destination}|{path if destination == 'duckdb' else ''}|{dataset}"
    target = dlt.destinations.duckdb(str(path)) if destination == "duckdb" else destination
    digest = hashlib.blake2b(place.encode(), digest_size=3).hexdigest()
    return dlt.pipeline(name or f"leadboxer_{digest}", destination=target, dataset_name=dataset)


def _sandbox(argv: Sequence[str]) -> int:
    try:
        from leadboxer_source.sandbox.__main__ import main as serve
    except ImportError:
        print("leadboxer: The sandbox needs an extra: pip install 'leadboxer-source[sandbox]'.", file=sys.stderr)
        return ConfigurationInvalid.exit_code
    return serve(argv)


class Progress:
    """Shows how a sync goes: one moving line on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._moving = sys.stderr.isatty()
        self._shown_at = 0.0
        self._slices = 1

    def __call__(self, report: Report) -> None:
        """Shows a report."""
        line = describe(report, self._slices)
        if report.stopped:
            self._slices += 1
            self._print(line, end="\n")
        elif self._moving:
            self._print(line, end="")
        elif time.monotonic() - self._shown_at > _QUIET_LINE_SECONDS:
            self._shown_at = time.monotonic()
            self._print(line, end="\n")

    def _print(self, line: str, end: str) -> None:
        print(f"\r\x1b[2K{line}" if self._moving else line, end=end, file=sys.stderr, flush=True)


def describe(report: Report, slice_number: int) -> str:
    """Returns a report as one line."""
    asked, loaded = report.asked, report.loaded
    told = [
        f"slice {slice_number}: {report.handed} users",
        f"{loaded.get('sessions', 0)} sessions of {asked.get('sessions', 0)}",
        f"{loaded.get('events', 0)} events of {asked.get('events', 0)} sessions",
        f"{sum(report.requests.values())} requests",
    ]
    if report.set_aside:
        told.append(f"{report.set_aside} set aside")
    wait = report.waiting_until - time.time()
    if not report.stopped and wait > 1:
        told.append(f"waiting for quota until {datetime.fromtimestamp(report.waiting_until).astimezone():%H:%M:%S}")
    if report.stopped and report.covered:
        told.append(f"covered down to {instant(report.covered[-1].lo):%Y-%m-%d %H:%M}")
    return ", ".join(told)


def _sentence(error: BaseException) -> str:
    """What went wrong, in one line; for dlt's own errors the cause, with what to do about the usual ones."""
    if isinstance(error, LeadBoxerError):
        return str(error)
    name, missing = type(error).__name__, getattr(error, "fields", None)
    if name == "ConfigFieldMissingException" and missing:
        return (
            f"No {' and no '.join(missing)}: set it under [sources.leadboxer] in .dlt/secrets.toml, "
            f"or as SOURCES__LEADBOXER__{next(iter(missing)).upper()}."
        )
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    cause = getattr(cause, "inner_exc", cause)
    first_line = next(iter(str(cause).strip().splitlines()), "")
    return f"{type(cause).__name__}: {first_line[:300]} (--debug shows where)"


def _exit_code(error: BaseException) -> int:
    return ConfigurationInvalid.exit_code if type(error).__name__ == "ConfigFieldMissingException" else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
