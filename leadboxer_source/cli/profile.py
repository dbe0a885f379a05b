"""`leadboxer profile`: all that is known of one user (lead), read from the destination."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from leadboxer_source.cli.options import Place, taken_place, with_place
from leadboxer_source.cli.terminal import Terminal, say
from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.profile import Profile, read
from leadboxer_source.profile_views import as_html, as_text


@click.command(epilog="\b\nExample: leadboxer profile ada.moreau@widgets.example --db demo.duckdb --html ada.html")
@click.argument("who", metavar="USER_ID_OR_EMAIL")
@with_place
@click.option("--site", help="LeadBoxer dataset id, where the destination holds several.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one self-contained page instead.")
def command(*, who: str, site: str | None, as_json: bool, html: Path | None, **options: Any) -> None:
    """Show a user's (lead's) whole profile: who it is, each visit, each hit. Reads what was loaded; sends nothing."""
    if html is not None and not html.absolute().parent.is_dir():
        raise ConfigurationInvalid(f"The folder of {html} does not exist: make it, or choose another with --html.")
    profile = _read(taken_place(options), who, site)
    if html is not None:
        html.write_text(as_html(profile, datetime.now(timezone.utc)), encoding="utf-8")
        say(f"Wrote {html}: {profile.name}.")
    elif as_json:
        say(json.dumps(profile.as_dict(), ensure_ascii=False))
    else:
        Terminal().print(as_text(profile))


def _read(place: Place, who: str, site: str | None) -> Profile:
    pipeline = place.loaded_pipeline(read_only=True)
    with pipeline.sql_client() as sql:
        if not sql.has_dataset():
            raise ConfigurationInvalid(f"Nothing is loaded in dataset {place.dataset}: run `leadboxer sync` first.")
        return read(sql, who, site)
