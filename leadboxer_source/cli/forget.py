"""`leadboxer forget`: deletes a person and keeps them out."""

from __future__ import annotations

from typing import Any

import click

from leadboxer_source.cli.options import taken_place, with_place
from leadboxer_source.cli.terminal import say
from leadboxer_source.upkeep import forget


@click.command(epilog="\b\nExample: leadboxer forget --db leadboxer.duckdb 1783024862163.757717719")
@with_place
@click.option("--site", help="LeadBoxer dataset id.  [default: from dlt's configuration]")
@click.argument("user_id")
def command(*, user_id: str, site: str | None, **options: Any) -> None:
    """Delete a person from all tables, and keep them out of later loads. Sends no request."""
    pipeline = taken_place(options).loaded_pipeline()
    deleted = forget(pipeline, user_id, **({"site": site} if site else {}))
    told = ", ".join(f"{count} of {table}" for table, count in deleted.items() if count)
    if told:
        say(f"Rows deleted: {told}. The person is kept out of later loads.")
    else:
        say(f"No rows of a user {user_id} were found: is the id right? It is kept out of later loads all the same.")
