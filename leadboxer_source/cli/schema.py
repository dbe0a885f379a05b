"""`leadboxer schema`: the tables as a picture or a dictionary."""

from __future__ import annotations

import click

from leadboxer_source.cli.terminal import say
from leadboxer_source.schema import FORMATS


@click.command(epilog="\b\nExample: leadboxer schema --format dbml > leadboxer.dbml")
@click.option(
    "--format",
    "name",
    type=click.Choice(list(FORMATS)),
    default="markdown",
    show_default=True,
    help="Dictionary (markdown), diagram of keys and references (mermaid), or all columns (dbml).",
)
def command(*, name: str) -> None:
    """Print the tables: columns, keys, references, descriptions."""
    say(FORMATS[name]().removesuffix("\n"))
