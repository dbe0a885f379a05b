"""A simulated LeadBoxer, loaded into `demo.duckdb`, and what came of it. Run by `make demo`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dlt
import duckdb
from rich.console import Console
from rich.table import Table

from leadboxer_source import Report, SyncResult, sync
from leadboxer_source.cli.options import DATASET, Place
from leadboxer_source.cli.progress import describe
from leadboxer_source.profile import read
from leadboxer_source.profile_views import as_text
from leadboxer_source.rows import instant

# a file of its own, so that nothing of a real account's is touched; `--db` of the commands finds it
PLACE = Place("duckdb", "demo.duckdb", DATASET, None)
USERS = 150
RATE_LIMIT = "10/second"
QUERY = f"SELECT organization_name, count(*) AS users FROM {DATASET}.users GROUP BY ALL ORDER BY users DESC LIMIT 9"
COUNTED = {"users": "leads", "sessions": "sessions", "events": "events", "properties": ""}


@contextmanager
def sandbox() -> Iterator[dict[str, Any]]:
    """Serves a dataset in which a second stands for a minute; yields its address, dataset id and key."""
    command = [sys.executable, "-m", "leadboxer_source.sandbox", "--json", "--rate-limit", RATE_LIMIT]
    server = subprocess.Popen([*command, "--users", str(USERS), "--seed", "7"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())
    finally:
        server.terminate()
        server.wait()


def begin_anew() -> None:
    """Drops what an earlier demonstration loaded, and nothing else that the file may hold."""
    with duckdb.connect(str(PLACE.file)) as connection:
        for schema in (DATASET, f"{DATASET}_staging"):
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def load(console: Console, pipeline: dlt.Pipeline, account: dict[str, Any]) -> SyncResult:
    """Loads the dataset and shows how it goes."""
    with console.status("Listing users ...") as status:

        def show(report: Report) -> None:
            status.update(describe(report, 1))

        return sync(pipeline, watch=show, rate_limit=RATE_LIMIT, limiter_store=":memory:", **account)


def summary(rows: Any, result: SyncResult) -> Table:
    """What was loaded, and what it cost."""
    table = Table("table", "rows", "requests", title="What was loaded", title_justify="left")
    for name, endpoint in COUNTED.items():
        count = rows(f"SELECT count(*) FROM {name}")[0][0]
        table.add_row(name, f"{count:,}", f"{result.requests.get(endpoint, 0):,}" if endpoint else "none")
    return table


def somebody(rows: Any) -> str:
    """The id of a known lead whose clickstream fits on a screen."""
    [(user_id,)] = rows(
        "SELECT u.user_id FROM users u JOIN sessions s USING (user_id) JOIN events e ON e.session_id = s.session_id "
        "WHERE u.email IS NOT NULL "
        "GROUP BY ALL HAVING count(*) BETWEEN 8 AND 14 ORDER BY count(DISTINCT s.session_id) DESC, 1 LIMIT 1"
    )
    return str(user_id)


def main() -> None:
    """Loads, shows, and says how to go on."""
    console = Console()
    begin_anew()
    console.print(
        f"A simulated LeadBoxer with {USERS} users, a minute compressed to a second: {RATE_LIMIT} an endpoint."
    )
    # begins anew each time, whatever an earlier demonstration left in dlt's data folder
    pipeline = PLACE.pipeline().drop()
    with sandbox() as account:
        result = load(console, pipeline, account)
    with pipeline.sql_client() as sql:
        console.print(summary(sql.execute_sql, result))
        covered = result.runs[-1].covered[-1]
        refused = sum(sum(run.refusals.values()) for run in result.runs)
        console.print(
            f"Complete from {instant(covered.lo):%Y-%m-%d} to {instant(covered.hi):%Y-%m-%d %H:%M} UTC; "
            f"refused requests: {refused}. Another run would ask for the newest page and nothing else.\n"
        )
        user_id = somebody(sql.execute_sql)
        console.print(as_text(read(sql, user_id)))
    # not wrapped: they are there to be copied
    console.print(
        f"\nIt is all in {PLACE.db}, dataset {DATASET}. Look at it:\n\n"
        f"  .venv/bin/leadboxer status --db {PLACE.db}\n"
        f"  .venv/bin/leadboxer profile {user_id} --db {PLACE.db}\n"
        f"  .venv/bin/python -c \"import duckdb; duckdb.connect('{PLACE.db}').sql('{QUERY}').show()\"\n\n"
        "To load a real account, put this into .dlt/secrets.toml\n\n"
        "  [sources.leadboxer]\n"
        '  site = "your dataset id: 32 letters and digits"\n'
        '  api_key = "from the LeadBoxer App: Integrations, Data, API key"\n\n'
        "and run: .venv/bin/leadboxer sync",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
