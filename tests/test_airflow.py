"""The Airflow example, run by Airflow: parsed, tested, and scheduled over two workers that share one key's budget."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from leadboxer_source.sandbox import Sandbox, World
from leadboxer_source.sync import RESOURCES
from tests.outside import (
    PIPELINES,
    assert_equal_to_truth,
    duckdb_rows,
    environment,
    orchestrator,
    postgres_rows,
    run,
    world,
)
from tests.servers import free_port

pytestmark = pytest.mark.orchestrators

DECISIONS = """
import json, sys
from datetime import datetime, timezone
from types import SimpleNamespace
sys.path.insert(0, {folder!r})
import airflow_dag as example

for names in ("acme", "Acme GmbH"), ("acme-eu", "Acme.EU"), ("...", "acme"):
    try:
        print("named", *example.schemas(("leadboxer_2", name) for name in names).values())
    except example.AirflowFailException as refused:
        print("refused", refused)
try:
    example.schemas([("leadboxer", "eu_main"), ("leadboxer_eu", "main")])
except example.AirflowFailException as refused:
    print("refused", refused)
began = datetime.fromtimestamp(10_000, timezone.utc)
for conf in None, {{}}, {{"full_round": 6_500.0}}, {{"full_round": 6_300.0}}:
    print("full", example.full_round(SimpleNamespace(start_date=began, conf=conf)))
print("minutes", [example.slice_minutes(datasets) for datasets in (0, 1, 4, 10, 200)])
from airflow.sdk import Connection
plain = dict(conn_id="w", conn_type="postgres", host="h", login="u", password="p", schema="d")
print("given", example.credentials(Connection(**plain, extra='{{"destination": "postgres"}}')))
print("given", example.credentials(Connection(**plain, extra='{{"destination": "x", "sslmode": "require"}}')))
print("given", example.credentials(Connection(**plain, extra='{{"destination": "snowflake", "credentials": "c"}}')))
form = dict(account="org-acme", region="", database="d", warehouse="w", role="r")
key = dict(project_id="p", client_email="e", private_key="k")
for kind, extra in (
    ("snowflake", {{"warehouse": "w"}}),
    ("snowflake", form),
    ("snowflake", {{**form, "region": "eu", "private_key_content": "k"}}),
    ("google_cloud_platform", {{"keyfile_dict": json.dumps(key)}}),
    ("google_cloud_platform", {{"keyfile_dict": key, "project": "other"}}),
    ("google_cloud_platform", {{}}),
):
    connection = Connection(**{{**plain, "conn_type": kind}}, extra=json.dumps(extra))
    given = example.credentials(connection)
    print("given", given if isinstance(given, str) else json.dumps(given, sort_keys=True))
    if "account" in extra:
        from dlt.destinations.impl.snowflake.configuration import SnowflakeCredentials
        assert given.keys() <= SnowflakeCredentials().keys()
"""

PARSING = """
import socket, sys, time
import airflow.dag_processing.processor, airflow.models.dagbag  # what parses DAGs has these already
def offline(*_): raise AssertionError("parsing must not reach for the network")
socket.socket.connect = offline
sys.path.insert(0, {folder!r})
started = time.perf_counter()
import airflow_dag
print("seconds", time.perf_counter() - started)
print("heavy", [name for name in ("dlt", "leadboxer_source", "pyarrow") if name in sys.modules])
"""


class Airflow:
    """An Airflow of one's own, with the example as its only DAG."""

    def __init__(self, home: Path, server: Sandbox, worlds: list[World], warehouse: dict[str, Any], **settings: Any):
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        dags = home / "dags"
        dags.mkdir()
        (dags / "airflow_dag.py").write_text((PIPELINES / "airflow_dag.py").read_text())
        datasets = {f"client{number}": world.site for number, world in enumerate(worlds)}
        account = {"conn_type": "http", "host": server.url, "password": server.key}
        self.env = environment(
            home,
            AIRFLOW_HOME=str(home),
            AIRFLOW_CONN_LEADBOXER=json.dumps({**account, "extra": {"datasets": datasets, **settings}}),
            AIRFLOW_CONN_LEADBOXER_WAREHOUSE=json.dumps(warehouse),
            AIRFLOW__API__HOST="127.0.0.1",
            AIRFLOW__API__PORT=str(self.port),
            AIRFLOW__API__WORKERS="1",
            AIRFLOW__API__BASE_URL=self.url,
            AIRFLOW__CORE__DAGS_FOLDER=str(dags),
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{self.url}/execution/",
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__CORE__PARALLELISM="2",
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
            PATH=f"{Path(orchestrator('airflow')).parent}:/usr/bin:/bin",
        )

    def command(self, *arguments: str, may_fail: bool = False) -> str:
        return run([orchestrator("airflow"), *arguments], self.env, self.home, may_fail=may_fail)

    @contextmanager
    def running(self, slots: int) -> Iterator[Callable[..., Any]]:
        """Runs API server, DAG processor and scheduler; yields a way to ask what the grid shows."""
        with ExitStack() as servers:
            servers.enter_context(self._serving("api-server"))
            servers.enter_context(self._serving("dag-processor"))
            wait_for(lambda: self._ask("version"), 120)
            self._ask("pools", name="leadboxer", slots=slots)
            servers.enter_context(self._serving("scheduler", "--skip-serve-logs"))
            yield self._ask

    @contextmanager
    def _serving(self, *arguments: str) -> Iterator[None]:
        command = [orchestrator("airflow"), *arguments]
        with (self.home / f"{arguments[0]}.log").open("w") as log:
            server = subprocess.Popen(
                command, env=self.env, cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )
            try:
                yield
            finally:
                # with its workers, which have its process group
                os.killpg(server.pid, signal.SIGTERM)
                try:
                    server.wait(15)
                except subprocess.TimeoutExpired:
                    os.killpg(server.pid, signal.SIGKILL)
                    server.wait()

    def _ask(self, path: str, **body: Any) -> Any:
        token = requests.get(f"{self.url}/auth/token", timeout=60).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        if body:
            return requests.post(f"{self.url}/api/v2/{path}", json=body, headers=headers, timeout=60).json()
        return requests.get(f"{self.url}/api/v2/{path}", headers=headers, timeout=60).json()


def wait_for(what: Callable[[], Any], seconds: float) -> Any:
    """Asks again until the answer is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if answer := what():
                return answer
        except (requests.RequestException, KeyError):
            pass  # the API server is not up yet
        time.sleep(2)
    raise AssertionError("it never came to that")


def test_the_dag_is_parsed_in_a_second_without_network_and_secrets(tmp_path: Path) -> None:
    env = environment(tmp_path, AIRFLOW_HOME=str(tmp_path), AIRFLOW__CORE__LOAD_EXAMPLES="False")
    told = run([orchestrator("python"), "-c", PARSING.format(folder=str(PIPELINES))], env, tmp_path)
    seconds = float(next(line for line in told.splitlines() if line.startswith("seconds")).split()[1])
    assert seconds < 1
    assert "heavy []" in told


def test_names_slices_and_credentials_are_decided_as_the_documentation_says(tmp_path: Path) -> None:
    env = environment(tmp_path, AIRFLOW_HOME=str(tmp_path), AIRFLOW__CORE__LOAD_EXAMPLES="False")
    told = run([orchestrator("python"), "-c", DECISIONS.format(folder=str(PIPELINES))], env, tmp_path)
    lines = [line for line in told.splitlines() if line.startswith(("named", "refused", "full", "minutes", "given"))]
    assert lines == [
        "named leadboxer_2_acme leadboxer_2_acme_gmbh",
        "refused Rename 'Acme.EU' of leadboxer_2 or 'acme-eu' of leadboxer_2: "
        "both would be loaded into the schema leadboxer_2_acme_eu.",
        "refused Give dataset '...' of leadboxer_2 a name with a letter or a digit.",
        "refused Rename 'main' of leadboxer_eu or 'eu_main' of leadboxer: "
        "both would be loaded into the schema leadboxer_eu_main.",
        *("full 10000.0", "full 10000.0", "full 6500.0", "full 10000.0"),
        "minutes [15.0, 15.0, 15.0, 6.0, 2.0]",
        "given postgres://u:p@h/d",
        "given postgres://u:p@h/d?sslmode=require",
        "given c",
        "given snowflake://u:p@h/d?warehouse=w",
        'given {"database": "d", "host": "org-acme", "password": "p", "role": "r", "username": "u", "warehouse": "w"}',
        'given {"database": "d", "host": "org-acme.eu", "private_key": "k", "private_key_passphrase": "p", '
        '"role": "r", "username": "u", "warehouse": "w"}',
        'given {"client_email": "e", "private_key": "k", "project_id": "p"}',
        'given {"client_email": "e", "private_key": "k", "project_id": "other"}',
        "given null",
    ]


def test_the_task_group_of_dlt_loads_a_slice(tmp_path: Path) -> None:
    dataset, database = world(1), tmp_path / "warehouse.duckdb"
    with Sandbox(dataset, rate_limit=None) as server:
        env = environment(
            tmp_path,
            server,
            dataset.site,
            AIRFLOW_HOME=str(tmp_path),
            AIRFLOW__CORE__DAGS_FOLDER=str(PIPELINES),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            DESTINATION__DUCKDB__CREDENTIALS=str(database),
        )
        run([orchestrator("airflow"), "db", "migrate"], env, tmp_path)
        told = run([orchestrator("airflow"), "dags", "test", "leadboxer_task_group"], env, tmp_path)
    assert "state=success" in told
    assert_equal_to_truth(duckdb_rows(database), dataset)


def test_dag_test_runs_a_round_where_one_dataset_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    mine, foreign = world(1), world(2)
    with Sandbox(mine, rate_limit=None, foreign_sites=[foreign.site]) as server:
        warehouse = {"conn_type": "duckdb", "extra": {"credentials": str(tmp_path / "warehouse.duckdb")}}
        settings = {"rate_limit": "unlimited", "max_requests": 20, "chunk_size": 3}
        airflow = Airflow(tmp_path, server, [mine, foreign], warehouse, **settings)
        airflow.command("db", "migrate")
        airflow.command("pools", "set", "leadboxer", "1", "one slice at a time")
        told = airflow.command("dags", "test", "leadboxer", may_fail=True)
    refusals = [request for request in server.requests if request.params["site"] == foreign.site]
    assert len(refusals) == 1, "what a retry cannot help is not retried"
    assert "AirflowFailException: This API key may not read this dataset (403)" in told
    assert "Dag Run triggered successfully" in told, "the other dataset is not covered yet"
    assert "state=failed" in told
    assert server.key not in told
    rows = duckdb_rows(tmp_path / "warehouse.duckdb", "leadboxer_client0")
    newest = sorted(mine.user_ids(), key=mine.last_ms, reverse=True)
    loaded = {row[0] for row in rows("SELECT user_id FROM users")}
    assert 0 < len(loaded) < len(newest)
    assert loaded == set(newest[: len(loaded)])


def test_a_round_after_a_spent_quota_is_left_to_the_schedule(tmp_path: Path) -> None:
    dataset = world(1)
    with Sandbox(dataset, rate_limit=None) as server:
        server.faults.fail_next("events", "daily_quota", times=1_000)
        warehouse = {"conn_type": "duckdb", "extra": {"credentials": str(tmp_path / "warehouse.duckdb")}}
        airflow = Airflow(tmp_path, server, [dataset], warehouse, rate_limit="unlimited")
        airflow.command("db", "migrate")
        airflow.command("pools", "set", "leadboxer", "1", "one slice at a time")
        told = airflow.command("dags", "test", "leadboxer")
    assert "state=success" in told
    assert "Left to the next schedule: {'client0': 'quota'}" in told
    assert "Dag Run triggered successfully" not in told


def test_a_scheduler_loads_four_datasets_of_one_key_over_two_workers(tmp_path: Path, postgres: str) -> None:
    datasets = [world(number, users=5) for number in range(1, 5)]
    server_of = urlsplit(postgres)
    with Sandbox(datasets, rate_limit="12/minute") as server:
        airflow = Airflow(
            tmp_path,
            server,
            datasets,
            {
                "conn_type": "postgres",
                "host": server_of.hostname,
                "port": server_of.port,
                "login": server_of.username,
                "password": "any",
                "schema": server_of.path.strip("/"),
            },
            rate_limit="12/minute",
            limiter_store=postgres,
            max_requests=20,
            chunk_size=3,
        )
        airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = postgres.replace("postgresql", "postgresql+psycopg2")
        airflow.command("db", "migrate")
        with airflow.running(slots=2) as ask:
            runs = wait_for(lambda: ended(ask("dags/leadboxer/dagRuns")["dag_runs"]), 600)
            grid = [
                ask(f"dags/leadboxer/dagRuns/{each['dag_run_id']}/taskInstances")["task_instances"] for each in runs
            ]
            events = ask("assets/events?limit=100")["asset_events"]

    refused = [request for request in server.requests if request.status == 429]
    assert not refused, f"{len(refused)} of {len(server.requests)} requests went over the limit"
    assert busiest_minute(server, "events") == 12, "nothing is shown where the limit was never reached"
    for number, dataset in enumerate(datasets):
        assert_equal_to_truth(postgres_rows(postgres, f"leadboxer_client{number}"), dataset)

    assert {each["state"] for each in runs} == {"success"}
    went_on = [states(tasks)["next_round", "success"] for tasks in grid]
    assert sum(went_on) == [each["run_type"] for each in runs].count("operator_triggered") > 0, (
        "one round was not enough"
    )
    assert went_on[-1] == 0, "the last round leaves nothing to do"
    slices = [states(tasks)["load", "success"] for tasks in grid]
    assert slices[0] == 4
    for tasks, number, triggered in zip(grid, slices, went_on, strict=True):
        assert 0 < number <= 4
        assert states(tasks) == {
            ("datasets", "success"): 1,
            ("load", "success"): number,
            ("summary", "success"): 1,
            ("unfinished", "success"): 1,
            ("next_round", "success" if triggered else "skipped"): 1,
        }
    assert {event["name"] for event in events} == {f"leadboxer://leadboxer/{table}" for table in RESOURCES}
    loads = [task for tasks in grid for task in tasks if task["task_id"] == "load"]
    assert Counter(event["extra"]["dataset"] for event in events) == Counter(
        task["rendered_map_index"] for task in loads for _ in RESOURCES
    )
    assert {task["rendered_map_index"] for task in loads} == {f"client{number}" for number in range(4)}
    assert any(overlap(one, other) for one in loads for other in loads if one is not other), "nothing ran side by side"
    assert not any(server.key in path.read_text() for path in (tmp_path / "logs").rglob("*.log"))


def ended(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs in their order, if there are any and all of them ended."""
    if not runs or any(run["state"] not in {"success", "failed"} for run in runs):
        return []
    return sorted(runs, key=lambda run: str(run["start_date"]))


def busiest_minute(server: Sandbox, endpoint: str) -> int:
    """The most requests to an endpoint that any minute saw."""
    times = [request.at for request in server.requests if request.endpoint == endpoint]
    return max(sum(begin <= at < begin + 60 for at in times) for begin in times)


def states(tasks: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((task["task_id"], task["state"]) for task in tasks)


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return str(one["start_date"]) < str(other["start_date"]) < str(one["end_date"])
