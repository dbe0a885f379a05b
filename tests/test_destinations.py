"""The same account of a dataset in every destination: servers, emulators and files.

What is tested against what, and what a stand-in cannot do, is in docs/destinations.md.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from leadboxer_source.sandbox import Request, World
from tests import destinations
from tests.conftest import NOW_MS, Desk

DAY_S = 86_400


def _runs_in(name: str, *marks: str) -> Any:
    # the emulators are started once: their tests stay in one process
    return pytest.param(name, marks=[pytest.mark.xdist_group(name), *(getattr(pytest.mark, mark) for mark in marks)])


EVERYWHERE = [
    _runs_in("duckdb"),
    _runs_in("parquet"),
    _runs_in("postgres", "servers"),
    _runs_in("delta", "warehouses"),
    _runs_in("iceberg", "warehouses"),
    _runs_in("bigquery", "warehouses"),
    _runs_in("snowflake", "warehouses"),
]


@pytest.fixture(scope="session")
def bigquery_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with destinations.bigquery_emulator(tmp_path_factory.mktemp("bigquery")) as url:
        yield url


@pytest.fixture(scope="session")
def snowflake_server() -> Iterator[dict[str, Any]]:
    import fakesnow

    with fakesnow.server() as server:
        yield server


@pytest.fixture
def place(desk: Desk, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk that loads a small world to the destination that the test is told."""
    name = request.param
    if name == "postgres":
        warehouse = destinations.postgres(request.getfixturevalue("postgres"))
    elif name == "bigquery":
        warehouse = destinations.bigquery(request.getfixturevalue("bigquery_emulator"), monkeypatch)
    elif name == "snowflake":
        warehouse = destinations.snowflake(request.getfixturevalue("snowflake_server"), monkeypatch)
    else:
        at = {
            "duckdb": destinations.duckdb_file,
            "parquet": destinations.parquet_files,
            "delta": destinations.delta_tables,
            "iceberg": destinations.iceberg_tables,
        }
        warehouse = at[name](desk.folder)
    desk.with_world(World(seed=5, users=9, days=20, now_ms=NOW_MS))
    return desk.loading_to(warehouse, f"lb_{uuid.uuid4().hex[:8]}")


def plans(desk: Desk) -> list[str]:
    """The property `Plan` of every user, from the destination's own JSON."""
    return sorted(row[0] for row in desk.rows(f"SELECT {desk.warehouse.plan} FROM users") if row[0] is not None)


@pytest.mark.parametrize("place", EVERYWHERE, indirect=True)
def test_a_full_load_activity_and_a_merge_arrive_and_a_lost_folder_costs_nothing(place: Desk) -> None:
    assert place.load().complete
    place.assert_equal_to_truth()
    assert plans(place) == sorted(r["Plan"] for r in place.world.truth().users if "Plan" in r)

    place.clock.advance(DAY_S)
    users = place.world.user_ids()
    place.world.return_user(users[0], place.now_ms - 700_000, events=2)
    place.world.merge(users[3], users[5], place.now_ms - 600_000)
    assert place.load().complete
    place.assert_equal_to_truth()

    shutil.rmtree(place.folder / "pipelines")
    assert place.load().complete
    assert set(place.requests()) == {"leads"}, "the state came back from the destination"
    place.assert_equal_to_truth()


@pytest.mark.parametrize("place", EVERYWHERE, indirect=True)
def test_slices_on_workers_that_forget_end_equal_to_the_truth(place: Desk) -> None:
    assert not place.load(max_requests=10, chunk_size=3).complete
    shutil.rmtree(place.folder / "pipelines")
    assert place.load_until_done(max_requests=16, chunk_size=3) > 1
    place.assert_equal_to_truth()


@pytest.mark.parametrize("place", EVERYWHERE, indirect=True)
def test_a_user_who_returns_while_the_run_goes_on_stands_once(place: Desk) -> None:
    user = max(place.world.user_ids(), key=place.world.last_ms)

    def come_back(request: Request) -> None:
        if request.endpoint == "events" and place.world.last_ms(user) < NOW_MS:
            place.clock.advance(5)
            place.world.return_user(user, place.now_ms)

    place.server.on_request = come_back
    place.load(chunk_size=3)
    place.server.on_request = None
    place.clock.advance(600)
    assert place.load().complete
    place.assert_equal_to_truth()
