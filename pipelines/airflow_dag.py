"""Airflow 3 (and 2.11): loads LeadBoxer datasets slice by slice, each into a schema of its own.

A run of the DAG is a round. Every dataset gets one slice, on any worker, and the next round follows at once for those
that can go on. So no worker is held for the hours that a first load takes, no dataset waits for another's history, and
a crash costs a slice. What is loaded is kept in the destination; workers keep nothing.

Copy this file to the DAGs folder, install `leadboxer-source` with the destination's extra on the workers, and set:

    airflow pools set leadboxer 1 "one slice at a time for each API key"
    airflow connections add leadboxer --conn-json '{"conn_type": "http", "host": "https://api.leadboxer.com/v1",
        "password": "API KEY", "extra": {"datasets": {"acme": "DATASET ID", "globex": "DATASET ID"}}}'
    airflow connections add leadboxer_warehouse --conn-uri postgres://USER:PASSWORD@HOST:5432/DATABASE

Each dataset gets a schema `CONNECTION_NAME`, such as `leadboxer_acme`. The extra of `leadboxer` may hold any setting of
`leadboxer_source`. If workers run on several machines, or the pool has several slots, set `limiter_store` to an address
that all of them reach, such as `redis://HOST/0`. `leadboxer_warehouse` may be any connection to PostgreSQL, Snowflake
or Google Cloud (for BigQuery). For other destinations its type is dlt's name of them, or its extra says what dlt is to
take, as `{"destination": "databricks", "credentials": {...}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
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
HUNG_AFTER = timedelta(hours=1)
"""Then a slice is given up: it may wait a quarter of an hour for quota and has to be written to the destination."""

TABLES = ("users", "sessions", "events", "properties", "load_failures", "load_runs")

Dataset = tuple[str, str]
"""Connection and name."""


def slice_minutes(datasets: int) -> float:
    """Length of a slice, so that a round takes an hour at the most; over 30 datasets it takes two minutes for each."""
    return max(2.0, min(15.0, 60 / max(1, datasets)))


def schemas(datasets: Iterable[Dataset]) -> dict[Dataset, str]:
    """Names each dataset's schema in letters that dlt leaves as they are; two datasets must not share one."""
    owners: dict[str, Dataset] = {}
    for account_id, name in datasets:
        schema = re.sub("[^a-z0-9]+", "_", f"{account_id}_{name}".lower()).strip("_")
        if not re.search("[A-Za-z0-9]", name):
            raise AirflowFailException(f"Give dataset {name!r} of {account_id} a name with a letter or a digit.")
        if schema in owners:
            raise AirflowFailException(
                f"Rename {name!r} of {account_id} or {owners[schema][1]!r} of {owners[schema][0]}: "
                f"both would be loaded into the schema {schema}."
            )
        owners[schema] = (account_id, name)
    return {dataset: schema for schema, dataset in owners.items()}


def credentials(warehouse: Any) -> Any:
    """The destination's credentials as dlt takes them: from extra, else what Airflow's form holds, else the URI."""
    extra = {name: value for name, value in warehouse.extra_dejson.items() if name != "destination" and value}
    if "credentials" in extra:
        return extra["credentials"]
    if warehouse.conn_type == "google_cloud_platform":
        path = extra.get("key_path")
        key = extra.get("keyfile_dict") or (Path(path).read_text() if path else None)
        key = json.loads(key) if isinstance(key, str) else key
        return key and {**key, "project_id": extra.get("project", key["project_id"])}  # without, dlt asks Google
    if warehouse.conn_type == "snowflake" and "account" in extra:
        names = {"private_key_file": "private_key_path", "private_key_content": "private_key"}
        secret = "private_key_passphrase" if names.keys() & extra.keys() else "password"
        given = {names.get(name, name): value for name, value in extra.items() if name not in ("account", "region")}
        host = ".".join(extra[name] for name in ("account", "region") if name in extra)
        return {**given, "host": host, "username": warehouse.login, secret: warehouse.password or None}
    warehouse.extra = json.dumps(extra) if extra else None  # what is left belongs into the URI
    return warehouse.get_uri()


def load_slice(account_id: str, name: str, site: str, schema: str, minutes: float) -> dict[str, Any]:
    """Loads one slice of a dataset into its schema; returns how it went."""
    # imported here: the file is parsed every half minute, and importing dlt takes seconds
    import dlt
    from dlt.common.destination import Destination
    from dlt.common.exceptions import TerminalException

    from leadboxer_source import sync

    account, warehouse = BaseHook.get_connection(account_id), BaseHook.get_connection(WAREHOUSE)
    kind = "bigquery" if warehouse.conn_type == "google_cloud_platform" else warehouse.conn_type
    destination = Destination.from_reference(
        warehouse.extra_dejson.get("destination", kind), credentials=credentials(warehouse)
    )
    settings = {
        "limiter_store": f"{gettempdir()}/{account_id}-rate-limit.sqlite",
        "max_minutes": minutes,
        **account.extra_dejson,
    }
    del settings["datasets"]
    with TemporaryDirectory() as folder:
        try:
            result = sync(
                dlt.pipeline(schema, destination=destination, dataset_name=schema, pipelines_dir=folder),
                site=site,
                api_key=account.password,
                base_url=account.host,
                slice_minutes=settings["max_minutes"],  # one slice, however long it is
                **settings,
            )
        except TerminalException as error:
            raise AirflowFailException(str(error)) from error  # a wrong key stays wrong: do not retry
    return {
        "dataset": name,
        "complete": result.complete,
        "stopped": result.stopped,
        "can_go_on": result.can_go_on,
        "requests": result.requests,
    }


def full_round(run: Any) -> float:
    """When the last round over all datasets began: within the hour before the run, else the run is one."""
    began, last = run.start_date.timestamp(), (run.conf or {}).get("full_round", 0.0)
    return float(last if began - last < 3600 else began)


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
            """The datasets of this round: all, or those that the round before could not finish."""
            extras = {each: BaseHook.get_connection(each).extra_dejson for each in ACCOUNTS}
            names = schemas((each, name) for each, extra in extras.items() for name in extra.get("datasets", {}))
            run, sites = get_current_context()["dag_run"], extras[account_id].get("datasets", {})
            if not sites:
                raise AirflowFailException(f"The extra of the connection {account_id} names no datasets.")
            if full_round(run) < run.start_date.timestamp():
                sites = {name: site for name, site in sites.items() if name in run.conf["datasets"]}
            minutes = slice_minutes(len(sites))
            return [
                {"name": name, "site": site, "schema": names[account_id, name], "minutes": minutes}
                for name, site in sites.items()
            ]

        @task(pool=account_id, outlets=assets, map_index_template="{{ dataset }}", execution_timeout=HUNG_AFTER)
        def load(name: str, site: str, schema: str, minutes: float) -> dict[str, Any]:
            context = get_current_context()
            context["dataset"] = name
            report = load_slice(account_id, name, site, schema, minutes)
            for asset in assets:
                context["outlet_events"][asset].extra = report
            return report

        @task
        def summary(reports: Any) -> str:
            """Fails with any of the slices, and so makes the round fail."""
            done = [report["complete"] for report in reports]
            return f"{sum(done)} of {len(done)} datasets are covered"

        @task.short_circuit(trigger_rule="all_done")
        def unfinished(reports: Any) -> dict[str, Any]:
            """What the next round is for; nothing if nobody can go on at once."""
            ready = [report["dataset"] for report in reports if report["can_go_on"]]
            later = {each["dataset"]: each["stopped"] for each in reports if not each["complete"] | each["can_go_on"]}
            print(f"{len(ready)} datasets go on at once. Left to the next schedule: {later or 'none'}.")
            return {"datasets": ready, "full_round": full_round(get_current_context()["dag_run"])} if ready else {}

        loaded = load.expand_kwargs(datasets())
        summary(loaded)
        TriggerDagRunOperator(task_id="next_round", trigger_dag_id=account_id, conf=unfinished(loaded))

    leadboxer()


for account in ACCOUNTS:
    rounds(account)
