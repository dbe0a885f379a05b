"""`leadboxer check`: whether a load would work, before it costs anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import click

from leadboxer_source import settings
from leadboxer_source.check import NAMES, Finding, check_account, check_destination, worst
from leadboxer_source.cli.options import Place, taken_account, taken_place, with_account, with_place
from leadboxer_source.cli.sentences import missing, tell
from leadboxer_source.configured import found
from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.settings import Settings

_MARKS = {"fine": ("✓", "green"), "doubtful": ("!", "yellow"), "wrong": ("✗", "red"), "unknown": ("·", "bright_black")}


@click.command(epilog="\b\nExample: leadboxer check --destination duckdb --db leadboxer.duckdb")
@with_place
@with_account
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def command(*, as_json: bool, **options: Any) -> int:
    """Check key, dataset, quota and destination. Sends three requests at the most."""
    place, account = taken_place(options), taken_account(options)
    findings = []
    for finding in (*_account(account), _destination(place)):
        findings.append(finding)
        if not as_json:
            mark, colour = _MARKS[finding.state]
            click.echo(f"{click.style(mark, fg=colour)} {finding.name:<11} {finding.told}")
    code = worst(findings)
    if as_json:
        click.echo(json.dumps({"fine": code == 0, "findings": [finding._asdict() for finding in findings]}))
    return code


def _account(given: dict[str, Any]) -> Iterator[Finding]:
    """What is configured; if that can be right, what LeadBoxer says to it."""
    configured = found(**given)
    key = configured["api_key"] or ""
    parsers: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("address", "base_url", settings.parse_base_url),
        ("key", "api_key", settings.parse_key),
        ("dataset", "site", lambda site: settings.parse_site(site, key)),
        ("rate limit", "limiter_store", settings.parse_limiter_store),
        ("rate limit", "rate_limit", settings.parse_rate_limit),
    )
    parsed: dict[str, Any] = {}
    wrong: dict[str, Finding] = {}
    for name, argument, parse in parsers:
        value = configured[argument]
        try:
            if value is None and argument in ("api_key", "site"):
                raise ConfigurationInvalid(missing(argument))
            parsed[argument] = parse(value)
        except ConfigurationInvalid as error:
            told = tell(error)
            wrong[name] = Finding(name, "wrong", told.text, told.exit_code)
    if wrong:
        yield from (wrong.get(name, Finding(name, "unknown", "not checked")) for name in NAMES)
        return
    yield from check_account(Settings(**parsed), say=lambda error: tell(error).text)


def _destination(place: Place) -> Finding:
    """Whether it can be written."""
    try:
        with place.leaving_no_empty_file():
            return check_destination(place.pipeline())
    except Exception as error:
        told = tell(error)
        return Finding("destination", "wrong", told.text, told.exit_code or ConfigurationInvalid.exit_code)
