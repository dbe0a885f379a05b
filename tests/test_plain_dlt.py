"""What dlt documents works as dlt documents it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import dlt
import pytest

from leadboxer_source import leadboxer_source
from tests.conftest import Desk


def test_building_the_source_needs_no_network(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    source = desk.source()
    assert list(source.resources) == ["users", "sessions", "events", "properties", "load_failures", "load_runs"]
    assert not desk.server.requests


def test_configuration_comes_from_the_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__LEADBOXER__SITE", desk.world.site)
    monkeypatch.setenv("SOURCES__LEADBOXER__API_KEY", desk.server.key)
    monkeypatch.setenv("SOURCES__LEADBOXER__BASE_URL", desk.server.url)
    monkeypatch.setenv("SOURCES__LEADBOXER__RATE_LIMIT", "unlimited")
    monkeypatch.setenv("SOURCES__LEADBOXER__PROMOTE", '["Customer ID"]')
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


def test_refreshing_the_source_loads_everything_again(desk: Desk) -> None:
    desk.load()
    desk.server.clear_requests()
    desk.pipeline().run(desk.source(), refresh="drop_sources")
    assert desk.requests()["sessions"] == 40
    desk.assert_equal_to_truth()


def test_refreshing_one_resource_reads_it_again(desk: Desk) -> None:
    desk.load()
    desk.pipeline().run(desk.source().with_resources("events", "properties"), refresh="drop_resources")
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


def test_tables_join_over_their_declared_references(desk: Desk) -> None:
    desk.load()
    dataset = desk.pipeline().dataset()
    joined = dataset.table("sessions").join("users").select("session_id").fetchall()
    assert len(joined) == len(desk.world.truth().sessions)
