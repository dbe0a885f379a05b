"""The examples for Dagster, Prefect, cron and GitHub Actions, each run as its reader would run it."""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from leadboxer_source.sandbox import Sandbox, World
from leadboxer_source.sync import RESOURCES
from tests.outside import (
    PIPELINES,
    assert_equal_to_truth,
    build_wheel,
    duckdb_rows,
    environment,
    make_venv,
    orchestrator,
    postgres_rows,
    run,
    world,
)

pytestmark = pytest.mark.orchestrators

DAGSTER = """
import json, sys
sys.path.insert(0, {folder!r})
import dagster as dg
import dagster_assets as example

with dg.instance_for_test() as instance:
    job, runs, materialized = example.defs.resolve_job_def("load_leadboxer"), 0, set()
    while True:
        result = job.execute_in_process(instance=instance)
        runs += 1
        materialized |= {{event.asset_key.path[-1] for event in result.get_asset_materialization_events()}}
        ended = dg.build_run_status_sensor_context(
            "until_covered", result.get_run_success_event(), instance, result.dagster_run
        )
        if not any(isinstance(answer, dg.RunRequest) for answer in example.until_covered(ended)):
            break
    print("told", json.dumps([runs, sorted(materialized)]))
"""

PREFECT = """
import sys
sys.path.insert(0, {folder!r})
import prefect_flow
print("covered", prefect_flow.leadboxer(slice_minutes={slice_minutes}))
"""


@pytest.fixture
def dataset() -> World:
    return world(1)


@pytest.fixture
def server(dataset: World) -> Iterator[Sandbox]:
    with Sandbox(dataset, rate_limit=None) as made:
        yield made


def runs_of_dagster(home: Path, server: Sandbox, dataset: World, **settings: str) -> tuple[int, set[str]]:
    """Runs the job until its sensor asks for no more; returns how often, and what was materialised."""
    (temporary := home / "temporary").mkdir()
    env = environment(
        home,
        server,
        dataset.site,
        DAGSTER_HOME=str(home),
        DESTINATION__DUCKDB__CREDENTIALS=str(home / "leadboxer.duckdb"),
        TMPDIR=str(temporary),
        **settings,
    )
    told = run([orchestrator("python"), "-c", DAGSTER.format(folder=str(PIPELINES))], env, home)
    assert not list(temporary.rglob("*")), "rows were left behind"
    runs, materialised = json.loads(next(line for line in told.splitlines() if line.startswith("told"))[4:])
    return runs, set(materialised)


def told_by_prefect(home: Path, server: Sandbox, dataset: World, *, slice_minutes: float, **settings: str) -> str:
    """Runs the flow and returns what it said."""
    env = environment(
        home,
        server,
        dataset.site,
        DESTINATION__DUCKDB__CREDENTIALS=str(home / "leadboxer.duckdb"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_HOME=str(home / "prefect"),
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
    )
    script = PREFECT.format(folder=str(PIPELINES), slice_minutes=slice_minutes)
    return run([orchestrator("python"), "-c", script], {**env, **settings}, home, may_fail=True)


def test_dagster_materialises_an_asset_for_each_table_slice_by_slice(
    tmp_path: Path, server: Sandbox, dataset: World
) -> None:
    settings = {"SOURCES__LEADBOXER__MAX_REQUESTS": "25", "SOURCES__LEADBOXER__CHUNK_SIZE": "3"}
    runs, materialised = runs_of_dagster(tmp_path, server, dataset, **settings)
    assert runs > 1
    assert {name.removeprefix("dlt_leadboxer_") for name in materialised} == set(RESOURCES)
    assert_equal_to_truth(duckdb_rows(tmp_path / "leadboxer.duckdb"), dataset)


def test_prefect_runs_a_task_for_each_slice(tmp_path: Path, server: Sandbox, dataset: World) -> None:
    told = told_by_prefect(tmp_path, server, dataset, slice_minutes=0.001, SOURCES__LEADBOXER__CHUNK_SIZE="6")
    assert "covered True" in told, told[-4_000:]
    assert "Beginning flow run" in told
    rows = duckdb_rows(tmp_path / "leadboxer.duckdb")
    assert rows("SELECT count(*) FROM _dlt_loads")[0][0] > 1, "one slice was not enough"
    assert_equal_to_truth(rows, dataset)


def test_dagster_leaves_a_spent_quota_to_its_schedule(tmp_path: Path, server: Sandbox, dataset: World) -> None:
    server.faults.fail_next("events", "daily_quota", times=1_000)
    runs, _ = runs_of_dagster(tmp_path, server, dataset)
    assert runs == 1


def test_prefect_leaves_a_spent_quota_to_its_schedule(tmp_path: Path, server: Sandbox, dataset: World) -> None:
    server.faults.fail_next("events", "daily_quota", times=1_000)
    told = told_by_prefect(tmp_path, server, dataset, slice_minutes=15)
    assert "covered False" in told, told[-4_000:]
    assert duckdb_rows(tmp_path / "leadboxer.duckdb")("SELECT count(*) FROM _dlt_loads") == [(1,)]
    with closing(sqlite3.connect(tmp_path / "prefect" / "prefect.db")) as shown:
        messages = [message for (message,) in shown.execute("SELECT message FROM log")]
    assert "The last slice ended with: quota. The next run of the flow loads what is missing." in messages


def test_prefect_does_not_retry_a_wrong_key(tmp_path: Path, server: Sandbox, dataset: World) -> None:
    told = told_by_prefect(tmp_path, server, dataset, slice_minutes=15, SOURCES__LEADBOXER__API_KEY="wrong")
    assert "CredentialsRejected" in told, told[-4_000:]
    assert len(server.requests) == 1


def test_cron_goes_on_from_the_destination_and_skips_a_turn_while_one_runs(
    tmp_path: Path, server: Sandbox, dataset: World
) -> None:
    folder = tmp_path / "leadboxer"
    (folder / ".dlt").mkdir(parents=True)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (folder / ".dlt" / "secrets.toml").write_text(
        f'[sources.leadboxer]\nsite = "{dataset.site}"\napi_key = "{server.key}"\nbase_url = "{server.url}"\n'
        'rate_limit = "unlimited"\n'
    )
    line = (PIPELINES / "crontab").read_text().splitlines()[-1].split(maxsplit=5)
    assert line[0] == "*/20"
    # nothing else is in the environment of cron; DLT_DATA_DIR because root's would be /var/dlt
    env = {"HOME": str(tmp_path), "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", "DLT_DATA_DIR": str(tmp_path / "dlt")}
    command = ["/bin/sh", "-c", line[5]]
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(command, env, tmp_path, may_fail=True)
        assert not server.requests
    run(command, env, tmp_path)
    assert_equal_to_truth(duckdb_rows(folder / "leadboxer.duckdb"), dataset)
    shutil.rmtree(tmp_path / "dlt")
    server.clear_requests()
    run(command, env, tmp_path)
    assert {request.endpoint for request in server.requests} == {"leads"}, "what is covered was asked for again"


def test_github_actions_installs_and_loads(tmp_path: Path, server: Sandbox, dataset: World, postgres: str) -> None:
    workflow: dict[str, Any] = yaml.safe_load((PIPELINES / "github_actions.yml").read_text())
    [steps] = [job["steps"] for job in workflow["jobs"].values()]
    (tmp_path / "requirements.txt").write_text(f"leadboxer-source[postgres] @ {build_wheel(tmp_path).as_uri()}\n")
    venv = make_venv(tmp_path / "python")
    stored = {
        "${{ vars.LEADBOXER_SITE }}": dataset.site,
        "${{ secrets.LEADBOXER_API_KEY }}": server.key,
        "${{ secrets.WAREHOUSE }}": postgres.replace("loader@", "loader:any@"),
    }
    for step in steps:
        if "run" not in step:
            continue
        given: dict[str, Any] = {name: stored[value] for name, value in step.get("env", {}).items()}
        env = environment(
            tmp_path,
            SOURCES__LEADBOXER__BASE_URL=server.url,
            SOURCES__LEADBOXER__RATE_LIMIT="unlimited",
            DLT_DATA_DIR=str(tmp_path / "dlt"),
            PATH=f"{venv / 'bin'}:/usr/bin:/bin",
            **given,
        )
        run(["bash", "-e", "-o", "pipefail", "-c", step["run"]], env, tmp_path)
    assert_equal_to_truth(postgres_rows(postgres, "leadboxer_data"), dataset)
