"""`leadboxer sync`: loads what is not loaded yet, slice by slice."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from leadboxer_source.cli import STOPPED_WITH_PROGRESS
from leadboxer_source.cli.options import names, taken_account, taken_place, with_account, with_place
from leadboxer_source.cli.progress import Progress
from leadboxer_source.sync import sync


@click.command(epilog="\b\nExample: leadboxer sync --destination duckdb --db leadboxer.duckdb --max-minutes 60")
@with_place
@with_account
@click.option("--start-date", help="Load users seen since then (UTC).")
@click.option("--end-date", help="One-off load of users seen before then; marks nothing as loaded.")
@click.option("--only", help="Resources to load, separated by commas.")
@click.option("--max-minutes", type=float, help="Stop after so long.")
@click.option("--max-requests", type=int, help="Stop after so many requests.")
@click.option(
    "--slice-minutes", type=float, default=15.0, show_default=True, help="Length of a slice: what a crash can cost."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, and nothing else.")
def command(*, only: str | None, as_json: bool, **options: Any) -> int:
    """Load what is not loaded yet, slice by slice."""
    place, account = taken_place(options), taken_account(options)
    for name in ("start_date", "end_date"):
        value = options.pop(name)
        if value is not None:
            account[name] = value
    result = sync(place.pipeline(), only=names(only), watch=None if as_json else Progress(), **options, **account)
    if as_json:
        runs = [asdict(run) for run in result.runs]
        click.echo(json.dumps({"complete": result.complete, "stopped": result.stopped, "runs": runs}))
    else:
        requests = ", ".join(f"{count} {endpoint}" for endpoint, count in result.requests.items())
        how = "All is covered" if result.complete else f"Stopped ({result.stopped}); run it again to go on"
        click.echo(f"{how}. Requests: {requests or 'none'}.")
    return 0 if result.complete else STOPPED_WITH_PROGRESS
