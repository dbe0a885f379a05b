"""`leadboxer check`: whether a load would work, before it costs anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import click

from leadboxer_source import settings
from leadboxer_source.check import NAMES, Finding, check_account, check_destination, worst
from leadboxer_source.cli.options import Place, taken_account, taken_place, with_account, with_place
from leadboxer_source.cli.sentences import ignored, missing, tell
from leadboxer_source.cli.terminal import say
from leadboxer_source.configured import found, names
from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.settings import Settings
from leadboxer_source.source import leadboxer_source

_MARKS = {"fine": ("✓", "green"), "doubtful": ("!", "yellow"), "wrong": ("✗", "red"), "unknown": ("·", "bright_black")}


@click.command(epilog="\b\nExample: leadboxer check --destination duckdb --db leadboxer.duckdb")
@with_place
@with_account
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def command(*, as_json: bool, **options: Any) -> int:
    """Check settings, key, dataset, quota and destination. Sends three requests at the most."""
    place, account = taken_place(options), taken_account(options)
    findings = []
    for finding in (*_account(account), _destination(place)):
        findings.append(finding)
        if not as_json:
            mark, colour = _MARKS[finding.state]
            told = finding.told.replace("\n", f"\n{'':<14}")
            say(f" {finding.name:<11} {told}", mark=click.style(mark, fg=colour))
    code = worst(findings)
    if as_json:
        say(json.dumps({"fine": code == 0, "findings": [finding._asdict() for finding in findings]}))
    return code


_STAND_INS = {
    "base_url": settings.BASE_URL,
    "api_key": "unknown",
    "site": "0" * 32,
    "limiter_store": settings.IN_PROCESS_ONLY,
    "rate_limit": settings.RATE_LIMIT,
}
"""What can be used in the place of a setting that cannot, so that it does not hide what else is wrong."""


def _account(given: dict[str, Any]) -> Iterator[Finding]:
    """What is configured; if that can be right, what LeadBoxer says to it."""
    try:
        configured = found(**given)
    except Exception as error:
        yield _wrong("settings", error)
        yield from _findings({})
        return
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
            wrong[name] = _wrong(name, error)
    others = _settings({**given, **{name: value for name, value in _STAND_INS.items() if name not in parsed}})
    if wrong and others.state == "fine":
        others = Finding("settings", "unknown", "some are missing or wrong, see below; the others are well-formed")
    yield others
    if wrong:
        yield from _findings(wrong)
    else:
        yield from check_account(Settings(**parsed), say=lambda error: tell(error).text)


def _settings(given: dict[str, Any]) -> Finding:
    """Whether a load would begin with what is configured: building the source sends nothing."""
    unknown = ignored(names())
    try:
        leadboxer_source(**given)
    except Exception as error:
        wrong = _wrong("settings", error)
        return wrong._replace(told="\n".join([wrong.told, *unknown]))
    if unknown:
        return Finding("settings", "doubtful", "\n".join(unknown))
    return Finding("settings", "fine", "none is missing, all are well-formed")


def _findings(known: dict[str, Finding]) -> Iterator[Finding]:
    yield from (known.get(name, Finding(name, "unknown", "not checked")) for name in NAMES)


def _wrong(name: str, error: Exception) -> Finding:
    told = tell(error)
    return Finding(name, "wrong", told.text, told.exit_code or ConfigurationInvalid.exit_code)


def _destination(place: Place) -> Finding:
    """Whether it can be written."""
    try:
        with place.leaving_no_empty_file():
            return check_destination(place.pipeline())
    except Exception as error:
        return _wrong("destination", error)
