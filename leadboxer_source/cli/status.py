"""`leadboxer status`: what is covered, what is missing, and what it took."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import click
import dlt
from rich.console import Console
from rich.table import Table

from leadboxer_source.cli.options import taken_place, with_place
from leadboxer_source.cli.picture import (
    ENDED,
    LISTING,
    bar,
    between,
    lasting,
    legend,
    many,
    minute,
    moment,
    percent,
    share,
)
from leadboxer_source.cli.progress import trouble
from leadboxer_source.cli.terminal import Terminal, say
from leadboxer_source.coverage import Coverage, Stretch, clip, common, holes
from leadboxer_source.destination import states_there
from leadboxer_source.journal import Journal
from leadboxer_source.lock import is_held
from leadboxer_source.plan import Plan
from leadboxer_source.report import ENDPOINTS
from leadboxer_source.rows import instant
from leadboxer_source.settings import SETTLE_SECONDS
from leadboxer_source.state import COVERED, KEY, SetAside, remember, resources_of

_RUNS = 5
_HOLES = 5
_UNSETTLED_SECONDS = 2 * SETTLE_SECONDS
"""A run leaves out the last minutes, as events take a while to become visible; it takes a while itself to end."""
_FIGURES = ("requests", "refusals", "waited_seconds")


class Scope(NamedTuple):
    """One dataset under its listing filters.

    Attributes:
        name: Of the scope.
        span: From when on users are wanted, and up to when any resource was ever claimed: what is newer is no hole.
        now_ms: Epoch milliseconds.
        covered: What each resource covers.
        set_aside: What could not be read, by resource.
        again: What is marked to be read again, by resource.
    """

    name: str
    span: Stretch
    now_ms: int
    covered: dict[str, Coverage]
    set_aside: dict[str, SetAside]
    again: dict[str, Stretch]


@click.command(epilog="\b\nExample: leadboxer status --db leadboxer.duckdb")
@with_place
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def command(*, as_json: bool, **options: Any) -> None:
    """Show what is covered, what is missing and what it took. Sends nothing, also while a load runs."""
    place = taken_place(options)
    pipeline = place.pipeline(read_only=True)
    journal = Journal(pipeline.working_dir)
    kept, now, is_busy = journal.read(), time.time(), is_held(pipeline)
    unended = journal.unended()
    running = unended if is_busy else None
    # whoever opens a DuckDB file keeps a load from writing it
    looks_there = not is_busy and not place.is_missing
    scopes = scopes_of(place.state(pipeline, looks_there=looks_there), kept, int(now * 1000))
    loaded = _loaded_runs(pipeline) if looks_there else []
    runs = loaded or [_told_run(run) for run in kept.get("runs", [])]
    plan = journal.plan()
    if as_json:
        say(json.dumps(as_dict(scopes, runs, running, plan, kept.get("spent"))))
    else:
        if place.is_missing:
            say(f"There is no {place.db or place.file}.")
        if others := _others(pipeline) if loaded and not scopes else []:
            say("What is here was loaded by a pipeline of another name; see what it covers with")
            for name in others:
                say(f"  {place._replace(name=name).command('status')}")
            say()
        whose = f"into {place.dataset}, by any pipeline" if loaded else "of this pipeline"
        show(Terminal(), scopes, runs[-_RUNS:], running, now, whose)
        if is_busy and not running:
            say("\nAnother process is at work with this pipeline.")
        elif unended and not is_busy:
            say(f"\n{_killed(unended)}")
        show_plan(Terminal(), plan, kept.get("spent"), scopes, now)
        if scopes or runs:
            say(f"\nFor dlt this is the pipeline {pipeline.pipeline_name}.")


def _others(pipeline: dlt.Pipeline) -> list[str]:
    """Names the pipelines that cover something of what is in the same place."""
    return sorted(name for name, state in states_there(pipeline).items() if scopes_of(state, {}, 0))


def scopes_of(state: Mapping[str, Any], kept: Mapping[str, Any], now_ms: int) -> list[Scope]:
    """Reads a pipeline's state.

    Args:
        state: Of the pipeline.
        kept: Its journal, which knows from when on users were wanted.
        now_ms: Epoch milliseconds.
    """
    resources = resources_of(state)
    names = sorted({scope for name in COVERED for scope in resources.get(name, {}).get(KEY, {}).get("scopes", {})})
    scopes = []
    for name in names:
        memories = {resource: remember(resources.get(resource, {}), name) for resource in COVERED}
        covered = {resource: memory.covered for resource, memory in memories.items()}
        again = {resource: memory.again for resource, memory in memories.items() if memory.again}
        ever = [*chain(*covered.values()), *again.values()]
        oldest = min((stretch.lo for stretch in ever), default=now_ms)
        wanted = [run["since_ms"] for run in kept.get("runs", []) if run["scope"] == name]
        settled = max((stretch.hi for stretch in ever), default=now_ms)
        span = Stretch(min([oldest, settled, *wanted[-1:]]), settled)
        set_aside = {resource: memory.set_aside for resource, memory in memories.items() if memory.set_aside}
        scopes.append(Scope(name, span, now_ms, covered, set_aside, again))
    return scopes


def show(
    console: Console,
    scopes: Sequence[Scope],
    runs: Sequence[dict[str, Any]],
    running: dict[str, Any] | None,
    now: float,
    whose: str,
) -> None:
    """Prints what is covered and the last runs."""
    if not scopes and not runs and not running:
        console.print("Nothing is loaded yet; `leadboxer plan` tells what it would take, `leadboxer sync` begins.")
    elif not scopes:
        console.print("This pipeline covers nothing here, so its next run begins anew.", soft_wrap=True)
        console.print("(A run with an end date loads without covering anything.)\n", soft_wrap=True)
    for scope in scopes:
        _show_scope(console, scope)
    if runs:
        console.print(f"Last runs {whose} (UTC)\n", soft_wrap=True)
        console.print(_table(runs))
    if running:
        began = moment(running["started_ms"] / 1000, now)
        doing = "is writing what it read" if running["stopped"] else f"has begun {many(running['handed'], 'user')}"
        requests = many(sum(running["requests"].values()), "request")
        console.print(f"\nA load is under way: its slice of {began} {doing} with {requests}.")
        if not running["stopped"] and (told := trouble(running.get("failing", {}))):
            console.print(f"{told}.")
        elif not running["stopped"] and running["waiting_until"] > now + 1:
            console.print(f"It waits for quota for {lasting(running['waiting_until'] - now)}.")


def _killed(report: Mapping[str, Any]) -> str:
    if report["stopped"]:
        return (
            "The last load was killed while it wrote what it had read.\nThe next one finishes that, or reads it again."
        )
    return "The last load was killed; nothing of its slice is kept."


def _show_scope(console: Console, scope: Scope) -> None:
    plain = not console.encoding.lower().startswith("utf")
    width = max(10, min(console.width, 100) - 20)
    edges = f"{instant(scope.span.lo):%Y-%m-%d}", minute(scope.span.hi)
    console.print(f"Dataset {scope.name}: time covered, by last activity (UTC)\n", soft_wrap=True)
    console.print(f"{'':<11}{edges[0]}{edges[1]:>{width - len(edges[0])}}")
    for resource, covered in scope.covered.items():
        drawn = bar(covered, scope.span, width, plain=plain)
        console.print(f"{resource:<11}[green]{drawn}[/] {percent(share(covered, scope.span)):>7}")
    if found := missing(scope):
        console.print(f"{'':<11}{legend(plain=plain)}", style="dim")
    console.print()
    for hole, whose, is_marked in found[:_HOLES]:
        console.print(f"{'read again' if is_marked else 'missing':<11}{between(hole)}: {whose}", soft_wrap=True)
    if len(found) > _HOLES:
        console.print(f"           and {len(found) - _HOLES} more (--json lists all)")
    if scope.again:
        console.print(f"{'':<11}what was marked to be read again is read by the next run")
    if never := [resource for resource in scope.covered if not _was_loaded(scope, resource)]:
        console.print(f"missing    {', '.join(never)}: never loaded")
    if later := not_yet(scope):
        console.print(later)
    for resource, failures in scope.set_aside.items():
        since = min(entry["since"] for entry in failures.values())
        console.print(
            f"set aside  {resource} of {len(failures)}, since {minute(since)}; tried first in the next run",
            soft_wrap=True,
        )
    console.print()


def not_yet(scope: Scope) -> str:
    """Says why the time since the last claim is not covered; empty if nothing was claimed."""
    since = Stretch(scope.span.hi, max(scope.span.hi, scope.now_ms))
    ago = (since.hi - since.lo) / 1000
    if not any(_was_loaded(scope, resource) for resource in scope.covered):
        return ""
    why = "not settled yet" if ago < _UNSETTLED_SECONDS else "newer than the last run"
    return f"{why}: since {minute(since.lo)} ({lasting(ago)}); the next run reads it"


def missing(scope: Scope) -> list[tuple[Stretch, str, bool]]:
    """Returns the holes of what was ever loaded, newest first: whose each is, and whether it was marked as one."""
    found: dict[tuple[Stretch, bool], list[str]] = {}
    for resource, covered in scope.covered.items():
        if _was_loaded(scope, resource):
            for hole in holes(covered, scope.span.lo, scope.span.hi):
                is_marked = resource in scope.again and hole.hi > scope.again[resource].lo
                found.setdefault((hole, is_marked), []).append(resource)
    told = [
        (hole, "all" if len(names) == len(COVERED) else ", ".join(names), is_marked)
        for (hole, is_marked), names in found.items()
    ]
    return sorted(told, reverse=True)


def _was_loaded(scope: Scope, resource: str) -> bool:
    return bool(scope.covered[resource] or resource in scope.again)


def _table(runs: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("began", no_wrap=True)
    for name in ("took", "requests", "refused", "waited", "failures"):
        table.add_column(name, justify="right")
    table.add_column("ended", no_wrap=True)
    for run in runs:
        figures = run["resources"].values()
        requests, refusals = (sum(figure.get(name) or 0 for figure in figures) for name in _FIGURES[:2])
        # the endpoints wait side by side
        waited = max((figure.get("waited_seconds") or 0.0 for figure in figures), default=0.0)
        table.add_row(
            minute(run["started_ms"]),
            lasting((run["ended_ms"] - run["started_ms"]) / 1000),
            f"{requests:,}",
            f"{refusals:,}",
            lasting(waited),
            f"{run['failures']:,}",
            ENDED.get(run["stopped"], run["stopped"]),
        )
    return table


def show_plan(
    console: Console, plan: Plan | None, spent: dict[str, Any] | None, scopes: Sequence[Scope], now: float
) -> None:
    """Prints what was planned beside what it took."""
    scope = next((scope for scope in scopes if plan and scope.name == plan.scope), None)
    if plan is None or spent is None or not spent["requests"] or scope is None:
        return
    covered = clip(common(list(scope.covered.values())), plan.since_ms, plan.made_ms)
    wanted, remaining = plan.estimates[0], plan.remaining(covered)
    unread, left = sum(remaining.values()) >= 1, plan.seconds_left(covered)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("plan", "requests", LISTING, "sessions", "events", "time"):
        table.add_column(name, justify="left" if name == "plan" else "right", no_wrap=True)
    table.add_row(f"made {minute(plan.made_ms)} UTC", *_amounts(wanted.requests, wanted.seconds))
    table.add_row("took so far" if unread else "took", *_amounts(spent["requests"], spent["seconds"]))
    if unread:
        each = (f"{count:,.0f}" for count in remaining.values())
        table.add_row("left, about", "", "", *each, lasting(left) if left else "")
    else:
        off = (sum(spent["requests"].values()) / max(1, sum(wanted.requests.values())) - 1) * 100
        longer = f"{(spent['seconds'] / wanted.seconds - 1) * 100:+.0f} %" if wanted.seconds else ""
        table.add_row("difference", f"{off:+.0f} %", "", "", "", longer)
    console.print()
    console.print(table)
    if left:
        console.print(f"Without a break it is done {moment(now + left, now)}.")


def _amounts(requests: Mapping[str, int], seconds: float | None) -> list[str]:
    each = [requests.get(endpoint, 0) for endpoint in ("leads", "sessions", "events")]
    return [f"{count:,}" for count in (sum(requests.values()), *each)] + ["" if seconds is None else lasting(seconds)]


def as_dict(
    scopes: Sequence[Scope],
    runs: Sequence[dict[str, Any]],
    running: dict[str, Any] | None,
    plan: Plan | None,
    spent: dict[str, Any] | None,
) -> dict[str, Any]:
    """Returns the same for machines; instants are epoch milliseconds."""
    told = [
        {
            "scope": scope.name,
            "since_ms": scope.span.lo,
            "settled_ms": scope.span.hi,
            "covered": scope.covered,
            "missing": {name: holes(covered, *scope.span) for name, covered in scope.covered.items()},
            "set_aside": scope.set_aside,
        }
        for scope in scopes
    ]
    planned = None
    if plan is not None:
        planned = {
            "made_ms": plan.made_ms,
            "requests": plan.estimates[0].requests,
            "seconds": plan.estimates[0].seconds,
        }
    return {"scopes": told, "runs": list(runs), "running": running, "plan": planned, "spent": spent}


def _loaded_runs(pipeline: dlt.Pipeline) -> list[dict[str, Any]]:
    """The last runs as the destination knows them, also those of other machines; none if it cannot be read."""
    with suppress(Exception), pipeline.sql_client() as sql:  # locked, unreachable, or loaded by an older version
        names = ("run_id", "resource", "started_at", "ended_at", "stopped", "rows_read", "failures", *_FIGURES)
        table = sql.make_qualified_table_name("load_runs")
        found = sql.execute_sql(
            f"SELECT {', '.join(names)} FROM {table} WHERE stretch <= 1 "  # noqa: S608 - names of our own
            f"ORDER BY started_at DESC, run_id LIMIT {4 * _RUNS}"
        )
        runs: dict[str, dict[str, Any]] = {}
        for row in reversed(found or ()):
            run_id, resource, started, ended, stopped, rows, failures, *figures = row
            run = runs.setdefault(
                run_id,
                {
                    "started_ms": round(started.timestamp() * 1000),
                    "ended_ms": round(ended.timestamp() * 1000),
                    "stopped": stopped,
                    "failures": 0,
                    "resources": {},
                },
            )
            run["failures"] += failures or 0
            run["resources"][resource] = {"rows_read": rows, **dict(zip(_FIGURES, figures, strict=True))}
        return list(runs.values())
    return []


def _told_run(report: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the journal knows it, in the same form."""
    return {
        "started_ms": report["started_ms"],
        "ended_ms": report["ended_ms"],
        "stopped": report["stopped"],
        "failures": report["set_aside"],
        "resources": {
            name: {
                "rows_read": report["loaded"].get(name, 0),
                **{figure: report[figure].get(endpoint, 0) for figure in _FIGURES},
            }
            for name, endpoint in ENDPOINTS.items()
        },
    }
