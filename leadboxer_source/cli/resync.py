"""`leadboxer resync`: has what was active since a day read again."""

from __future__ import annotations

from typing import Any

import click

from leadboxer_source.cli.options import names, taken_place, with_place
from leadboxer_source.cli.terminal import say
from leadboxer_source.upkeep import resync


@click.command(epilog="\b\nExample: leadboxer resync --db leadboxer.duckdb --since 2026-05-01 --only events,properties")
@with_place
@click.option("--site", help="LeadBoxer dataset id.  [default: from dlt's configuration]")
@click.option("--since", required=True, help="From when on to read again (UTC).")
@click.option("--only", help="Resources to read again, separated by commas.")
def command(*, since: str, only: str | None, site: str | None, **options: Any) -> None:
    """Mark what was active since a day as not loaded, so that it is read again. Sends no request."""
    place = taken_place(options)
    pipeline = place.loaded_pipeline()
    uncovered = resync(pipeline, since, only=names(only), **({"site": site} if site else {}))
    if uncovered:
        say(f"Read again from {since} on: {', '.join(uncovered)}. Run `{place.command('sync')}` now.")
    else:
        say(f"Nothing was loaded of {only or 'any resource'} since {since}: there is nothing to read again.")
