"""`leadboxer plan`: what a load will take, before it is made."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from leadboxer_source.cli.options import taken_account, taken_place, with_account, with_place
from leadboxer_source.cli.picture import LISTING, lasting, many, minute, moment
from leadboxer_source.cli.terminal import Terminal, say
from leadboxer_source.configured import configured
from leadboxer_source.journal import Journal
from leadboxer_source.plan import Plan, covered_of, make_plan
from leadboxer_source.settings import RateLimit


@click.command(epilog="\b\nExample: leadboxer plan --start-date 2026-01-01")
@with_place
@with_account
@click.option("--start-date", help="Plan for users seen since then (UTC).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def command(*, as_json: bool, **options: Any) -> None:
    """Tell how many requests and hours a load takes. Sends ten requests at the most."""
    place, account = taken_place(options), taken_account(options)
    if options["start_date"] is not None:
        account["start_date"] = options["start_date"]
    pipeline = place.pipeline(read_only=True)
    config = configured(**account)
    state: Mapping[str, Any] = {}
    with suppress(Exception):  # a load will tell what is wrong with the destination
        state = place.state(pipeline)
    plan = make_plan(config, covered_of(state, config.scope))
    Journal(pipeline.working_dir).keep_plan(plan.as_dict())
    if as_json:
        say(json.dumps({name: value for name, value in plan.as_dict().items() if name != "pieces"}))
    else:
        show(plan, Terminal(), time.time())


def show(plan: Plan, console: Console, now: float) -> None:
    """Prints a plan.

    Args:
        plan: The plan.
        console: Where to.
        now: Epoch seconds from which a load is taken to begin.
    """
    pace = f"{RateLimit(*plan.rate_limit)} for each endpoint" if plan.rate_limit else "with no limit to the pace"
    rest = " that are not loaded yet" if plan.span_ms < plan.made_ms - plan.since_ms else ""
    console.print(f"Users (leads) seen since {minute(plan.since_ms)} UTC{rest},")
    console.print(f"and the requests they take, {pace}:\n")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("what", no_wrap=True)
    for name in ("users", LISTING, "sessions", "events", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("done by", no_wrap=True)
    for estimate in plan.estimates:
        counts = (estimate.requests.get(endpoint, 0) for endpoint in ("leads", "sessions", "events"))
        took = estimate.seconds
        table.add_row(
            estimate.what,
            f"{estimate.users:,}",
            *(f"{count:,}" if count else "-" for count in counts),
            "?" if took is None else lasting(took),
            "" if took is None else moment(now + took, now),
        )
    console.print(table)
    console.print(f"\n{sureness(plan)}")
    for estimate in plan.estimates:
        if estimate.how:
            console.print(f"  {estimate.what + ':':<17}{estimate.how}")


def sureness(plan: Plan) -> str:
    """Says how sure a plan is."""
    users = plan.estimates[0].users
    told = f"How sure: {plan.listed_users:,} of {users:,} users were listed with {many(plan.spent, 'request')}"
    if plan.listed_users >= users:
        told += "; nothing is guessed but the listing's own cost."
    else:
        looked_at, doubt = plan.listed_ms / max(plan.span_ms, 1), max(plan.doubt, 0.01)
        told += f";\n{looked_at:.0%} of the time was looked at, the rest is taken to be like it: within {doubt:.0%}."
        if not plan.hours_told:
            told += "\nNo page holds a day, so how quiet nights are is not seen: it may be further off."
    if users and not plan.visits_told:
        told += "\nHow many visits users have is not told; one each is assumed: events will be more."
    return told
