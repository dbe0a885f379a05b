"""The same account of a dataset in every destination: servers, emulators and files.

What is tested against what, and what a stand-in cannot do, is in docs/destinations.md.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

from leadboxer_source import warehouses
from leadboxer_source.sandbox import Request, World
from leadboxer_source.sync import sync
from leadboxer_source.tables import TABLES
from tests import destinations
from tests.conftest import NOW_MS, Desk

# of the client: it reads few rows, and reads them over REST
pytestmark = pytest.mark.filterwarnings("ignore:Cannot create BigQuery Storage client:UserWarning")

DAY_S = 86_400


def _runs_in(name: str, *marks: str) -> Any:
    # tests of one place stay in one process, which starts its server once
    return pytest.param(name, marks=[pytest.mark.xdist_group(name), *(getattr(pytest.mark, mark) for mark in marks)])


EVERYWHERE = [
    _runs_in("duckdb"),
    _runs_in("parquet"),
    _runs_in("postgresql", "warehouses"),
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
    if name == "postgresql":
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
    desk.with_world(World(seed=5, users=7, days=20, now_ms=NOW_MS))
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


def only(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", [where for where in EVERYWHERE if where.values == (name,)], indirect=True)


@only("bigquery")
@pytest.mark.parametrize("asked", [{}, {"loader_file_format": "parquet"}], ids=["", "parquet"])
def test_bigquery_tables_are_partitioned_by_day_and_clustered_and_json_stays_json(place: Desk, asked: Any) -> None:
    pipeline = place.pipeline()
    pipeline.run(place.source(), **asked)
    shape = {}
    with pipeline.sql_client() as client:
        for name in ("users", "sessions", "events", "properties"):
            table = client.native_connection.get_table(client.make_qualified_table_name(name, quote=False))
            partition = table.time_partitioning
            shape[name] = (partition and (partition.type_, partition.field), table.clustering_fields)
            kinds = {column.name: column.field_type for column in table.schema}
            assert kinds.get("properties", "JSON") == "JSON"
    assert shape == {
        "users": (None, ["site", "user_id"]),
        "sessions": (("DAY", "started_at"), ["site", "user_id"]),
        "events": (("DAY", "occurred_at"), ["site", "user_id"]),
        "properties": (None, ["site", "name", "event_key"]),
    }
    place.assert_equal_to_truth()


@only("bigquery")
def test_hints_of_the_caller_come_before_ours(place: Desk) -> None:
    from dlt.destinations.adapters import bigquery_adapter

    source = place.source()
    bigquery_adapter(source.events, partition="read_at")
    pipeline = place.pipeline()
    pipeline.run(source)
    with pipeline.sql_client() as client:
        table = client.native_connection.get_table(client.make_qualified_table_name("events", quote=False))
    assert (table.time_partitioning.field, table.clustering_fields) == ("read_at", None)


@only("snowflake")
@pytest.mark.parametrize("asked", [{}, {"loader_file_format": "parquet"}], ids=["", "parquet"])
def test_snowflake_tables_are_clustered_and_json_is_copied_as_json(place: Desk, asked: Any) -> None:
    place.pipeline().run(place.source(), **asked)
    created = [sql for sql in place.warehouse.statements if sql.startswith("CREATE TABLE")]
    clustered = {
        table: next(sql for sql in created if f'."{table}"' in sql)
        for table in ("USERS", "SESSIONS", "EVENTS", "PROPERTIES")
    }
    assert "CLUSTER BY" not in clustered["USERS"]
    assert clustered["SESSIONS"].endswith('CLUSTER BY ("SITE","STARTED_AT")')
    assert clustered["EVENTS"].endswith('CLUSTER BY ("SITE","OCCURRED_AT")')
    assert clustered["PROPERTIES"].endswith('CLUSTER BY ("SITE","NAME")')
    assert '"PROPERTIES" VARIANT' in clustered["EVENTS"]
    copies = [sql for sql in place.warehouse.statements if sql.startswith("COPY INTO") and '"EVENTS"' in sql]
    assert copies
    assert all("TYPE = 'JSON'" in sql and "MATCH_BY_COLUMN_NAME='CASE_INSENSITIVE'" in sql for sql in copies)


@pytest.mark.parametrize(
    "place", [_runs_in("bigquery", "warehouses"), _runs_in("snowflake", "warehouses")], indirect=True
)
def test_files_that_are_staged_in_a_bucket_are_json_lines(place: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__SNOWFLAKE__STAGE_NAME", "STAGE")
    pipeline = dlt.pipeline(
        "desk",
        destination=place.warehouse.destination,
        staging=dlt.destinations.filesystem(destinations.BUCKET),
        dataset_name=place.dataset,
        pipelines_dir=str(place.folder / "pipelines"),
    )
    pipeline.run(place.source())
    for table in ("users", "sessions", "events", "properties", "load_runs"):
        (load,) = (sent for sent in place.warehouse.statements if f"/{place.dataset}/{table}/" in sent)
        assert "JSON" in load, "as which BigQuery and Snowflake are told to read it"
        assert ".jsonl" in load
    place.assert_equal_to_truth()


@only("postgresql")
def test_sync_indexes_the_keys_that_people_join_by_in_postgresql(place: Desk) -> None:
    pipeline = place.pipeline()
    for _ in range(2):
        assert sync(
            pipeline,
            site=place.world.site,
            api_key=place.server.key,
            base_url=place.server.url,
            rate_limit="unlimited",
            limiter_store=":memory:",
            clock=place.clock,
        ).complete
    made = place.rows(f"SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = '{place.dataset}'")
    indexes = {name: definition.partition("(")[2] for name, definition in made if "_by_" in name}
    assert indexes == {
        "users_by_site_user_id": "site, user_id)",
        "sessions_by_site_session_id": "site, session_id)",
        "sessions_by_site_user_id": "site, user_id)",
        "events_by_site_event_key": "site, event_key)",
        "events_by_site_session_id": "site, session_id)",
        "properties_by_site_event_key_name": "site, event_key, name)",
    }
    place.assert_equal_to_truth()


@only("parquet")
def test_plain_files_are_only_added_to(place: Desk) -> None:
    place.load()
    place.clock.advance(DAY_S)
    place.world.return_user(place.world.user_ids()[0], place.now_ms - 600_000)
    place.load()
    found = duckdb.sql(
        f"SELECT count(*), count(DISTINCT user_id) FROM '{place.folder}/lake/{place.dataset}/users/*.parquet'"
    )
    rows, users = found.fetchall()[0]
    assert rows > users == len(place.world.user_ids())


def test_the_page_on_destinations_names_those_that_are_tested_and_the_hints_that_are_applied() -> None:
    page = (Path(__file__).parents[1] / "docs" / "destinations.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    tested = {row[0].lower().split()[0] for row in rows if len(row) == 4 and row[3].startswith("passes")}
    assert tested == {where.values[0] for where in EVERYWHERE}
    hints = [*warehouses.BIGQUERY_CLUSTERED.values(), *warehouses.SNOWFLAKE_CLUSTERED.values()]
    for columns in hints:
        assert f"`{', '.join(columns)}`" in page
    for table in ("users", "sessions", "events", "properties", "load_failures"):
        assert f"`{', '.join(TABLES[table]['primary_key'])}`" in page
