"""What dlt documents works as dlt documents it."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.runtime.collector import DictCollector, LogCollector
from dlt.extract.reference import SourceReference
from dlt.pipeline.exceptions import PipelineStepFailed

from leadboxer_source import leadboxer_source
from leadboxer_source.cli import main
from leadboxer_source.sandbox import World
from leadboxer_source.tables import TABLES
from tests.conftest import NOW_MS, Desk

REFERENCES = ["leadboxer_source.source.leadboxer_source", "leadboxer"]


def test_building_the_source_needs_no_network(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    source = desk.source()
    assert list(source.resources) == ["users", "sessions", "events", "properties", "load_failures", "load_runs"]
    assert not desk.server.requests


def test_configuration_comes_from_the_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.configure(monkeypatch, rate_limit="unlimited", promote='["Customer ID"]')
    desk.pipeline().run(leadboxer_source(clock=desk.clock))
    desk.assert_equal_to_truth()


def test_configuration_comes_from_toml(desk: Desk) -> None:
    folder = desk.folder / ".dlt"
    folder.mkdir()
    (folder / "config.toml").write_text(
        f'[sources.leadboxer]\nsite = "{desk.world.site}"\nbase_url = "{desk.server.url}"\nrate_limit = "unlimited"\n'
    )
    (folder / "secrets.toml").write_text(f'[sources.leadboxer]\napi_key = "{desk.server.key}"\n')
    command = Path(sys.executable).with_name("leadboxer")
    subprocess.run([command, "sync", "--db", "desk.duckdb", "--dataset", "lb"], check=True, capture_output=True)
    desk.assert_equal_to_truth()


def test_a_map_changes_rows_and_a_filter_leaves_some_out(desk: Desk) -> None:
    source = desk.source()
    source.users.add_map(lambda user: {**user, "email": None})
    source.events.add_filter(lambda event: event.get("title") != "Pricing")
    desk.pipeline().run(source)
    assert desk.rows("SELECT count(email) FROM users") == [(0,)]
    assert desk.rows("SELECT count(*) FROM events WHERE title = 'Pricing'") == [(0,)]
    assert desk.rows("SELECT count(*) FROM events") != [(0,)]


def test_a_table_without_rows_is_there_after_the_first_load(desk: Desk) -> None:
    desk.with_world(World(seed=5, users=0, days=3, now_ms=NOW_MS))
    desk.load(only=("users",))
    assert desk.rows("SELECT count(*) FROM users") == [(0,)]
    desk.load()
    for name, table in TABLES.items():
        there = {column for (column, *_) in desk.rows(f"DESCRIBE {name}")}
        assert there >= table["columns"].keys()
    pipeline = desk.pipeline()
    desk.load(pipeline=pipeline)
    trace: Any = pipeline.last_trace
    (package,) = trace.last_load_info.load_packages
    touched = {job.job_file_info.table_name for job in package.jobs["completed_jobs"]}
    assert touched <= {"load_runs", "_dlt_pipeline_state"}, "it is made once"


def test_tables_can_be_frozen_after_the_first_load(desk: Desk) -> None:
    desk.load(max_requests=8)
    waiting = min(desk.world.truth().users, key=lambda user: int(user["lastEvent"]))["use_id"]
    desk.server.faults.poison(waiting, "400")
    desk.pipeline().run(desk.source(), schema_contract={"tables": "freeze"})
    assert desk.rows("SELECT id FROM load_failures") == [(waiting,)]


def test_a_strategy_of_the_callers_own_is_kept_to_in_the_first_load(desk: Desk) -> None:
    source = desk.source()
    source.load_failures.apply_hints(write_disposition={"disposition": "merge", "strategy": "upsert"})
    desk.pipeline().run(source)
    desk.assert_equal_to_truth()


@pytest.mark.usefixtures("loaded")
def test_refreshing_the_source_loads_everything_again(desk: Desk) -> None:
    desk.server.clear_requests()
    desk.pipeline().run(desk.source(), refresh="drop_sources")
    assert desk.requests()["sessions"] == 40
    desk.assert_equal_to_truth()


@pytest.mark.usefixtures("loaded")
def test_refreshing_one_resource_reads_it_again(desk: Desk) -> None:
    desk.pipeline().run(desk.source().with_resources("events", "properties"), refresh="drop_resources")
    desk.load()
    desk.assert_equal_to_truth()


def test_a_map_may_not_change_whom_sessions_are_asked_for(desk: Desk) -> None:
    source = desk.source()
    source.users.add_map(lambda user: {**user, "user_id": f"hidden {user['user_id']}"})
    with pytest.raises(PipelineStepFailed, match="changed user_id"):
        desk.pipeline().run(source)
    desk.load()
    desk.assert_equal_to_truth()


def test_hints_can_be_applied(desk: Desk) -> None:
    source = desk.source()
    source.events.apply_hints(table_name="hits")
    desk.pipeline().run(source)
    assert desk.rows("SELECT count(*) FROM hits") == [(len(desk.world.truth().events),)]


def test_resources_can_be_iterated_without_a_pipeline(desk: Desk) -> None:
    source: Any = desk.source()
    assert len(list(source.users)) == 40
    assert len(list(desk.source().sessions)) == len(desk.world.truth().sessions)


def test_sessions_can_hang_on_other_users(desk: Desk) -> None:
    user = desk.world.user_ids()[0]
    source = desk.source()
    ours = dlt.resource([{"user_id": user}], name="ours")
    rows = list(ours | source.sessions)
    assert {row["user_id"] for row in rows} == {user}


# dlt 1.31 tells so through a method of the logger that Python deprecates that it found a package of an earlier run
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
@pytest.mark.parametrize("then", ["run again", "abort", "lose the folder"])
def test_what_the_destination_refuses_is_not_claimed(desk: Desk, then: str) -> None:
    desk.load(max_requests=8)
    desk.rows("ALTER TABLE lb_staging.sessions DROP COLUMN started_at")
    with pytest.raises(PipelineStepFailed, match="started_at"):
        desk.load()
    desk.rows("ALTER TABLE lb_staging.sessions ADD COLUMN started_at TIMESTAMPTZ")
    if then == "abort":
        desk.pipeline().abort_packages()
    elif then == "lose the folder":
        shutil.rmtree(desk.folder / "pipelines")
    desk.load()
    desk.load()
    desk.assert_equal_to_truth()


def test_the_command_goes_on_where_a_pipeline_of_the_readme_was(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.configure(monkeypatch, rate_limit="unlimited")
    dlt.pipeline("leadboxer", destination="duckdb", dataset_name="leadboxer_data").run(
        leadboxer_source(clock=desk.clock)
    )
    desk.server.clear_requests()
    assert main(["sync", "--pipeline", "leadboxer", "--json"]) == 0
    assert set(desk.requests()) == {"leads"}


def test_the_command_says_where_another_pipeline_has_loaded_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.configure(monkeypatch, rate_limit="unlimited")
    dlt.pipeline("leadboxer", destination="duckdb", dataset_name="leadboxer_data").run(
        leadboxer_source(clock=desk.clock)
    )

    def told(*arguments: str) -> bool:
        main(["sync", "--max-requests", "3", *arguments])
        return "`leadboxer sync --pipeline leadboxer`" in capsys.readouterr().err

    assert not told("--pipeline", "one_off", "--end-date", "2027-01-01"), "that is read in any case"
    assert told()
    assert not told(), "it has begun"
    shutil.rmtree(desk.folder / "dlt")
    assert not told(), "its state comes back"
    assert main(["resync", "--since", "2020-01-01"]) == 0
    assert not told()
    assert not told("--db", "elsewhere.duckdb")
    monkeypatch.setenv("SOURCES__LEADBOXER__SITE", "a" * 32)
    assert not told("--pipeline", "of_another_dataset")


def test_one_source_can_be_run_twice(desk: Desk) -> None:
    source, pipeline = desk.source(), desk.pipeline()
    pipeline.run(source)
    desk.server.clear_requests()
    pipeline.run(source)
    assert set(desk.requests()) == {"leads"}
    desk.assert_equal_to_truth()


def test_dlts_own_incremental_works_as_a_filter_on_rows(desk: Desk) -> None:
    source = desk.source()
    source.users.apply_hints(incremental=dlt.sources.incremental("last_event_at"))
    desk.pipeline().run(source)
    desk.assert_equal_to_truth()


@pytest.mark.usefixtures("loaded")
def test_tables_join_over_their_declared_references(desk: Desk) -> None:
    tables = desk.pipeline().default_schema.tables
    for name in ("sessions", "events", "properties"):
        assert tables[name]["references"] == TABLES[name]["references"]
    dataset = desk.pipeline().dataset()
    joined = dataset.table("sessions").join("users").select("session_id").fetchall()
    assert len(joined) == len(desk.world.truth().sessions)


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reference_finds_the_source(desk: Desk, reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.configure(monkeypatch, rate_limit="unlimited")
    given = {"clock": desk.clock, "limiter_store": ":memory:"}
    source = SourceReference.from_reference(reference, source_kwargs=given)
    assert (source.name, source.section) == ("leadboxer", "leadboxer")
    desk.pipeline().run(source)
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_process_that_only_imports_dlt_finds_it_and_is_not_warned(reference: str) -> None:
    script = (
        "import dlt; from dlt.extract.reference import SourceReference as R;"
        f"print(R.from_reference('{reference}', source_kwargs=dict(site='a' * 32, api_key='k')).name)"
    )
    told = subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("leadboxer\n", "")


def test_the_trace_tells_requests_waits_and_failures(desk: Desk) -> None:
    poisoned = desk.world.user_ids()[0]
    desk.server.faults.poison(poisoned, "400")
    desk.server.faults.fail_next("leads", "429")
    desk.load()
    metrics = users_metrics(desk.pipeline())
    assert metrics["requests"] == desk.requests()
    assert metrics["refusals"] == {"leads": 1}
    assert metrics["waited_seconds"]["leads"] >= 1
    assert (metrics["failures"], metrics["stopped"]) == (1, "covered")
    desk.load(max_requests=5)
    assert users_metrics(desk.pipeline())["requests"] == desk.requests()


def users_metrics(pipeline: dlt.Pipeline) -> dict[str, Any]:
    """What the resource `users` left in the trace of the last run."""
    trace = pipeline.last_trace
    assert trace is not None
    extracted = trace.last_extract_info
    assert extracted is not None
    steps = [step["resource_metrics"] for steps in extracted.metrics.values() for step in steps]
    return next(metrics["users"].custom_metrics for metrics in steps if "users" in metrics)


def test_a_run_that_a_limit_cuts_short_leaves_its_cost_in_the_trace(desk: Desk) -> None:
    desk.pipeline().run(desk.source(chunk_size=5).add_limit(1))
    assert users_metrics(desk.pipeline())["stopped"] == "closed"


def test_dlts_progress_collectors_count(desk: Desk) -> None:
    counted = Counting()
    pipeline = desk.pipeline()
    pipeline.collector = counted
    pipeline.run(desk.source())
    truth = desk.world.truth()
    assert counted.most["Extract leadboxer"]["users"] == 40
    assert counted.most["Extract leadboxer"]["sessions"] == len(truth.sessions)
    assert counted.most["Extract leadboxer"]["events"] == len(truth.events)
    pipeline.collector = LogCollector(0.001, io.StringIO())
    pipeline.run(desk.source(), refresh="drop_sources")
    desk.assert_equal_to_truth()


class Counting(DictCollector):
    """Keeps what each step counted."""

    def __init__(self) -> None:
        super().__init__()
        self.most: dict[str, dict[str, int]] = {}

    def _stop(self) -> None:
        self.most.setdefault(self.step, {}).update(self.counters)
        super()._stop()


@pytest.mark.parametrize(("operation", "told"), [("info", "users with 1 table(s)"), ("trace", "- events: ")])
@pytest.mark.usefixtures("loaded")
def test_dlts_own_command_shows_the_pipeline(desk: Desk, operation: str, told: str) -> None:
    command = [
        str(Path(sys.executable).with_name("dlt")),
        "pipeline",
        "--pipelines-dir",
        "pipelines",
        "desk",
        operation,
    ]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    assert told in shown.stdout
    assert desk.server.key not in shown.stdout + shown.stderr
