"""Airflow 3 (and 2.11): loads LeadBoxer datasets slice by slice, each into a schema of its own.

A run of the DAG is a round. Every dataset gets one slice, on any worker, and while more can be read the next round
follows at once. So no worker is held for the hours that a first load takes, no dataset waits for
another's history, and a crash costs a slice. What is loaded is kept in the destination; workers keep nothing.

Copy this file to the DAGs folder, install `leadboxer-source` with the destination's extra on the workers, and set:

    airflow pools set leadboxer 1 "one slice at a time for each API key"
    airflow connections add leadboxer --conn-json '{"conn_type": "http", "host": "https://api.leadboxer.com/v1",
        "password": "API KEY", "extra": {"datasets": {"acme": "DATASET ID", "globex": "DATASET ID"}}}'
    airflow connections add leadboxer_warehouse --conn-uri postgres://USER:PASSWORD@HOST:5432/DATABASE

The extra of `leadboxer` may hold any setting of `leadboxer_source` and of `sync`. If workers run on several machines,
or the pool has several slots, set `limiter_store` to an address that all of them reach, such as `redis://HOST/0`. The
type of `leadboxer_warehouse` is dlt's name of the destination; one whose credentials are no URI, such as BigQuery's and
Snowflake's, has them in its extra as dlt names them, `{"destination": "bigquery", "credentials": {...}}`.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

# the same as airflow.sdk, under a name that Airflow 2.11 knows too
from airflow.providers.common.compat.sdk import AirflowFailException, Asset, BaseHook, dag, get_current_context, task
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

ACCOUNTS = ("leadboxer",)
"""Connections, one for each API key. Each has a DAG and a pool of its own, both named like the connection."""

WAREHOUSE = "leadboxer_warehouse"
TABLES = ("users", "sessions", "events", "properties", "load_failures", "load_runs")


def slice_minutes(datasets: int) -> float:
    """Returns how long each of so many datasets may load in a round, so that the round ends in two hours if it can."""
    return max(2.0, min(15.0, 120 / datasets))


def load_slice(account_id: str, name: str, site: str, minutes: float) -> dict[str, Any]:
    """Loads one slice of a dataset into the schema `ACCOUNT_NAME`; returns how it went."""
    # imported here: the file is parsed every half minute, and importing dlt takes seconds
    import dlt
    from dlt.common.destination import Destination
    from dlt.common.exceptions import TerminalException

    from leadboxer_source import LeadBoxerError, sync

    account, warehouse = BaseHook.get_connection(account_id), BaseHook.get_connection(WAREHOUSE)
    destination = Destination.from_reference(
        warehouse.extra_dejson.get("destination", warehouse.conn_type),
        credentials=warehouse.extra_dejson.get("credentials") or warehouse.get_uri(),
    )
    settings = {"limiter_store": f"{gettempdir()}/{account_id}-rate-limit.sqlite", **account.extra_dejson}
    del settings["datasets"]
    with TemporaryDirectory() as folder:
        try:
            result = sync(
                dlt.pipeline(
                    f"{account_id}_{name}",
                    destination=destination,
                    dataset_name=f"{account_id}_{name}",
                    pipelines_dir=str(Path(folder)),
                ),
                site=site,
                api_key=account.password,
                base_url=account.host,
                **{"max_minutes": minutes, **settings},
            )
        except LeadBoxerError as error:
            if isinstance(error, TerminalException):
                raise AirflowFailException(str(error)) from error  # a wrong key stays wrong: do not retry
            raise
    return {
        "dataset": name,
        "complete": result.complete,
        "can_go_on": result.can_go_on,
        "stopped": result.stopped,
        "requests": result.requests,
    }


def rounds(account_id: str) -> None:
    """Makes the DAG of an account."""
    assets = [Asset(f"leadboxer://{account_id}/{table}") for table in TABLES]

    @dag(
        dag_id=account_id,
        schedule="@hourly",
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 3, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
        doc_md=__doc__,
        tags=["leadboxer", "dlt"],
    )
    def leadboxer() -> None:
        @task
        def datasets() -> list[dict[str, Any]]:
            ids = BaseHook.get_connection(account_id).extra_dejson["datasets"]
            for name in ids:
                # each destination spells other names its own way, and two datasets must not meet in one schema
                if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
                    raise AirflowFailException(f"Name the dataset {name!r} with a-z, 0-9 and _: a schema is called so.")
            return [{"name": name, "site": site, "minutes": slice_minutes(len(ids))} for name, site in ids.items()]

        # a statement that hangs must not hold the only slot for ever
        @task(pool=account_id, outlets=assets, map_index_template="{{ dataset }}", execution_timeout=timedelta(hours=2))
        def load(name: str, site: str, minutes: float) -> dict[str, Any]:
            context = get_current_context()
            context["dataset"] = name
            report = load_slice(account_id, name, site, minutes)
            for asset in assets:
                context["outlet_events"][asset].extra = report
            return report

        @task
        def summary(reports: Any) -> str:
            """Fails with any of the slices, and so makes the round fail."""
            done = [report["complete"] for report in reports]
            return f"{sum(done)} of {len(done)} datasets are covered"

        @task.short_circuit(trigger_rule="all_done")
        def more_to_read(reports: Any) -> bool:
            """Not where all is covered, nor where a day's quota is spent: then the schedule is soon enough."""
            return any(report["can_go_on"] for report in reports)

        loaded = load.expand_kwargs(datasets())
        summary(loaded)
        more_to_read(loaded) >> TriggerDagRunOperator(task_id="next_round", trigger_dag_id=account_id)

    leadboxer()


for account in ACCOUNTS:
    rounds(account)
