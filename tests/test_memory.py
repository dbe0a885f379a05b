"""A load takes little memory where nothing else is configured, and what is configured goes before."""

from __future__ import annotations

import time
from pathlib import Path

import dlt
import pytest
import tomlkit

from leadboxer_source import memory
from leadboxer_source.cli import main
from leadboxer_source.cli.options import Place
from leadboxer_source.coverage import Stretch
from leadboxer_source.listing import Listing
from leadboxer_source.sandbox import World
from tests.conftest import Desk


@pytest.fixture
def account(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk.with_world(World(seed=5, users=5, days=3, now_ms=int(time.time() * 1000)), clock=time.time)
    desk.configure(monkeypatch, rate_limit="unlimited")
    return desk


def duckdb_settings_of_a_sync(*names: str) -> list[object]:
    assert main(["sync", "--db", "desk.duckdb", "--dataset", "lb", "--json"]) in {0, 3}
    with Place("duckdb", "desk.duckdb", "lb", None).pipeline().sql_client() as client:
        found = client.execute_sql("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
    assert found is not None
    return list(found[0])


@pytest.mark.usefixtures("account")
def test_a_sync_has_duckdb_take_one_thread_and_keep_no_files() -> None:
    assert duckdb_settings_of_a_sync("threads", "enable_external_file_cache") == [1, False]


@pytest.mark.usefixtures("account")
def test_settings_of_your_own_go_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__GLOBAL_CONFIG", '{"threads": 2, "memory_limit": "300MiB"}')
    assert duckdb_settings_of_a_sync("threads", "memory_limit", "enable_external_file_cache") == [2, "300.0 MiB", True]


def test_the_recipe_for_a_pipeline_of_your_own_is_what_the_command_does() -> None:
    recipe = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text().split("## Run on a small machine")[1]
    told = tomlkit.parse(recipe.split("```toml")[1].split("```")[0]).unwrap()
    assert told["destination"]["duckdb"]["credentials"]["global_config"] == memory.DUCKDB
    assert told["data_writer"] == {"buffer_max_items": memory.BUFFER_ROWS}


def test_an_id_is_kept_once_however_often_it_is_listed() -> None:
    ids: dict[str, str] = {}
    first, second = Listing(Stretch(0, 9), ids), Listing(Stretch(0, 9), ids)
    [before], [after] = (listing.listed([{"use_id": "".join(["a", "b"])}]) for listing in (first, second))
    assert before.user_id == "ab"
    assert before.user_id is after.user_id


def test_a_pipeline_that_names_no_file_still_finds_its_own(account: Desk) -> None:
    memory.bound("duckdb")
    pipeline = dlt.pipeline("plain", destination="duckdb", pipelines_dir=str(account.folder / "pipelines"))
    pipeline.run([{"a": 1}], table_name="plain")
    with pipeline.sql_client() as client:
        assert client.execute_sql("SELECT current_setting('threads')") == [(1,)]
    assert (account.folder / "plain.duckdb").exists()


def test_a_limit_that_is_too_low_is_lifted(account: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(memory.DUCKDB, "memory_limit", "8MB")
    assert main(["sync", "--db", "desk.duckdb", "--dataset", "lb"]) in {0, 3}
    assert "memory_limit" not in memory._given
    account.assert_equal_to_truth()
    assert account.requests()["sessions"] == 5, "what was read is not read again"


def test_the_file_alone_holds_what_was_loaded(account: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # enough for each statement, too little for DuckDB to move its log into the file when it closes it
    monkeypatch.setitem(memory.DUCKDB, "memory_limit", "40MB")
    account.with_world(World(seed=5, users=300, days=3, now_ms=int(time.time() * 1000)), clock=time.time)
    account.configure(monkeypatch, rate_limit="unlimited")
    for _ in range(2):
        assert main(["sync", "--db", "desk.duckdb", "--dataset", "lb", "--max-requests", "300"]) == 3
        assert not Path("desk.duckdb.wal").exists()


@pytest.mark.usefixtures("account")
def test_a_limit_of_your_own_is_kept_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(memory.DUCKDB, "memory_limit", "8MB")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__GLOBAL_CONFIG", '{"threads": 1, "memory_limit": "8MB"}')
    assert main(["sync", "--db", "desk.duckdb", "--dataset", "lb", "--json"]) == 1
    assert "raise memory_limit" in capsys.readouterr().err.splitlines()[-1]
