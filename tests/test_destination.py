"""What the destination holds counts, whatever this machine remembers of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dlt
import pytest

from leadboxer_source.sandbox import Sandbox, World
from leadboxer_source.upkeep import resync
from tests import destinations
from tests.conftest import NOW_MS, Desk


def places(desk: Desk) -> tuple[Any, Any]:
    """Two files of DuckDB."""
    folders = desk.folder / "one", desk.folder / "two"
    for folder in folders:
        folder.mkdir()
    one, two = (destinations.duckdb_file(folder) for folder in folders)
    return one, two


def put_back_an_older_copy(desk: Desk) -> None:
    """Loads some, and then all, and puts the file back as it was in between."""
    desk.load(max_requests=20, chunk_size=5)
    destinations.let_go()
    shutil.copy(desk.folder / "desk.duckdb", desk.folder / "copy")
    desk.load_until_done()
    destinations.let_go()
    shutil.copy(desk.folder / "copy", desk.folder / "desk.duckdb")


def test_what_an_older_copy_of_the_destination_lacks_is_read_again(desk: Desk) -> None:
    put_back_an_older_copy(desk)
    desk.load_until_done()
    desk.assert_equal_to_truth()
    desk.load()
    assert set(desk.requests()) == {"leads"}, "once it is there it is not read again"


def test_what_an_older_copy_lacks_is_not_taken_for_read_when_something_else_is_to_be_read_again(desk: Desk) -> None:
    put_back_an_older_copy(desk)
    resync(desk.pipeline(), "2026-11-18", site=desk.world.site)
    desk.load_until_done()
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("other", ["duckdb", "parquet"])
def test_one_pipeline_may_load_to_two_places_in_turn(desk: Desk, tmp_path: Path, other: str) -> None:
    one, two = places(desk)
    if other == "parquet":
        two = destinations.parquet_files(desk.folder)
    desk.loading_to(one, "lb").load(max_requests=20, chunk_size=5)
    desk.loading_to(two, "lb").load_until_done()
    desk.assert_equal_to_truth()
    desk.load()
    desk.loading_to(one, "lb").load_until_done()
    desk.assert_equal_to_truth()
    desk.loading_to(two, "lb").load()
    assert set(desk.requests()) == {"leads"}
    desk.loading_to(one, "lb").load()
    assert set(desk.requests()) == {"leads"}


def test_a_dataset_that_was_there_before_holds_nothing_of_this(desk: Desk) -> None:
    one, two = places(desk)
    desk.loading_to(one, "lb").load_until_done()
    dlt.pipeline("another", destination=two.destination, dataset_name="lb", pipelines_dir=str(desk.folder / "p")).run(
        [{"id": 1}], table_name="rows"
    )
    desk.loading_to(two, "lb").load_until_done()
    desk.assert_equal_to_truth()


def test_a_package_that_was_dropped_is_not_remembered(desk: Desk) -> None:
    desk.load(max_requests=8)
    desk.pipeline().extract(desk.source())
    desk.pipeline().abort_packages()
    desk.load_until_done()
    desk.assert_equal_to_truth()


def test_two_datasets_in_one_run_are_both_remembered(desk: Desk) -> None:
    other = World(seed=5, users=15, days=20, now_ms=NOW_MS, site="f" * 32)
    with Sandbox(other, rate_limit=None, clock=desk.clock.time) as server:

        def sources() -> list[Any]:
            return [desk.source(), desk.source(site=other.site, base_url=server.url)]

        desk.pipeline().run(sources())
        desk.clock.advance(3_600)
        desk.pipeline().run(sources())
        desk.server.clear_requests()
        server.clear_requests()
        desk.pipeline().run(sources())
        assert {request.endpoint for request in [*desk.server.requests, *server.requests]} == {"leads"}
        assert len(desk.state()["scopes"]) == 2
    sites = dict(desk.rows("SELECT site, max(epoch_ms(covered_to)) FROM load_runs GROUP BY 1"))
    for site, until in sites.items():
        assert desk.state()["scopes"][site]["covered"][-1][1] == until


def test_what_was_extracted_and_waits_is_remembered(desk: Desk) -> None:
    pipeline = desk.pipeline()
    pipeline.extract(desk.source(max_requests=20, chunk_size=5))
    asked = desk.requests()
    pipeline.extract(desk.source())
    assert desk.requests()["sessions"] == len(desk.world.user_ids()), asked
    pipeline.normalize()
    pipeline.load()
    desk.load()
    assert set(desk.requests()) == {"leads"}
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("only", [("sessions",), ("sessions", "events", "properties")], ids="-".join)
def test_what_is_to_be_read_again_is_read_again(desk: Desk, only: tuple[str, ...]) -> None:
    desk.load_until_done()
    desk.server.clear_requests()
    desk.pipeline().run(desk.source().with_resources(*only), refresh="drop_resources")
    assert desk.requests()["sessions"] == len(desk.world.user_ids())
    desk.load_until_done()
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("table", ["users", "sessions", "events", "properties"])
def test_a_table_that_was_dropped_is_made_and_filled_again(desk: Desk, table: str) -> None:
    desk.load_until_done()
    desk.rows(f"DROP TABLE {table}")
    desk.load(max_requests=20, chunk_size=5)
    desk.load_until_done()
    desk.assert_equal_to_truth()
    desk.load()
    assert set(desk.requests()) == {"leads"}
