"""Places to load to - servers, emulators, files - and how each is read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dlt
import duckdb
import fsspec
import pytest
import requests
from dlt.common.data_writers.escape import escape_snowflake_literal

from leadboxer_source.tables import TABLES
from tests.servers import free_port

Rows = list[tuple[Any, ...]]

READ_AGAIN = [name for name, table in TABLES.items() if "read_at" in table["columns"]]
"""Tables whose rows may be read more than once."""

BUCKET = "memory://bucket"
"""Where files are staged: a bucket in memory, as there is no account for another."""

LOCAL_BIGQUERY = Path(__file__).parents[1] / ".venv-bigquery" / "bin" / "local-bigquery"


@dataclass
class Warehouse:
    """A destination and how it is read.

    Attributes:
        destination: What dlt loads to.
        read: Given the pipeline's maker and its dataset, runs a query over the tables.
        epoch_ms: SQL for a timestamp in epoch milliseconds.
        plan: SQL for the property `Plan` in the column `properties`.
        run: Arguments that `pipeline.run` needs.
        hold: Keeps a file open, which spares a load the time of opening it again and again.
        statements: What was sent that the stand-in cannot do itself.
    """

    destination: Any
    read: Callable[[Callable[[], dlt.Pipeline], str, str], Rows]
    epoch_ms: str = "epoch_ms({})"
    plan: str = "json_extract_string(properties, '$.Plan')"
    run: dict[str, Any] = field(default_factory=dict)
    hold: Callable[[], None] = lambda: None
    statements: list[str] = field(default_factory=list)


def _over_dlt(pipeline: Callable[[], dlt.Pipeline], _: str, sql: str) -> Rows:
    """Reads with the client that dlt loads with."""
    with pipeline().sql_client() as client:
        return [tuple(row) for row in client.execute_sql(sql) or ()]


_HELD: dict[str, duckdb.DuckDBPyConnection] = {}


def let_go() -> None:
    """Closes DuckDB files that are held, for other processes or ways of opening them."""
    while _HELD:
        _HELD.popitem()[1].close()


def _let_go_for_others(event: str, _: object) -> None:
    if event == "subprocess.Popen":
        let_go()


sys.addaudithook(_let_go_for_others)


def duckdb_file(folder: Path) -> Warehouse:
    """A DuckDB file."""
    path = str(folder / "desk.duckdb")

    def hold() -> None:
        if path not in _HELD:
            _HELD[path] = duckdb.connect(path)

    def read(pipeline: Callable[[], dlt.Pipeline], dataset: str, sql: str) -> Rows:
        with duckdb.connect(path) as connection:
            connection.execute(f"SET search_path = '{dataset}'")
            return connection.execute(sql).fetchall()

    return Warehouse(dlt.destinations.duckdb(path), read, hold=hold)


def postgres(address: str) -> Warehouse:
    """A PostgreSQL server."""
    return Warehouse(
        # dlt wants a password even where the server asks for none
        dlt.destinations.postgres(address.replace("@", ":none@", 1)),
        _over_dlt,
        epoch_ms="(extract(epoch FROM {}) * 1000)::bigint",
        plan="properties ->> 'Plan'",
    )


def parquet_files(folder: Path) -> Warehouse:
    """Parquet files in a folder, which are only added to."""

    def read(pipeline: Callable[[], dlt.Pipeline], dataset: str, sql: str) -> Rows:
        with duckdb.connect() as connection:
            for table, path in _folders(folder / "lake" / dataset):
                files = f"read_parquet('{path}/*.parquet', union_by_name = true)"
                connection.execute(f"CREATE VIEW {table} AS {newest(table, files)}")
            return connection.execute(sql).fetchall()

    return Warehouse(_files(folder), read, run={"loader_file_format": "parquet"})


def newest(table: str, source: str) -> str:
    """The view of docs/destinations.md: of each key the row that was read last."""
    key = ", ".join(TABLES[table]["primary_key"])
    return f"SELECT * FROM {source} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY read_at DESC) = 1"


def delta_tables(folder: Path) -> Warehouse:
    """Delta Lake tables in a folder: rows are replaced, but what was read twice in one load stands twice."""

    def read(pipeline: Callable[[], dlt.Pipeline], dataset: str, sql: str) -> Rows:
        from deltalake import DeltaTable

        with duckdb.connect() as connection:
            for table, path in _folders(folder / "lake" / dataset):
                connection.register(f"every_{table}", DeltaTable(path).to_pyarrow_table())
                connection.execute(f"CREATE VIEW {table} AS {newest(table, f'every_{table}')}")
            return connection.execute(sql).fetchall()

    return Warehouse(_files(folder), read, run={"table_format": "delta"})


def iceberg_tables(folder: Path) -> Warehouse:
    """Iceberg tables in a folder, which are only added to."""

    def read(pipeline: Callable[[], dlt.Pipeline], dataset: str, sql: str) -> Rows:
        from dlt.common.libs.pyiceberg import get_iceberg_tables

        with duckdb.connect() as connection:
            for table, iceberg in get_iceberg_tables(pipeline()).items():
                if table in READ_AGAIN:
                    connection.register(f"every_{table}", iceberg.scan().to_arrow())
                    connection.execute(f"CREATE VIEW {table} AS {newest(table, f'every_{table}')}")
            return connection.execute(sql).fetchall()

    return Warehouse(_files(folder), read, run={"table_format": "iceberg"})


def _files(folder: Path) -> Any:
    return dlt.destinations.filesystem(str(folder / "lake"))


def _folders(lake: Path) -> Iterator[tuple[str, str]]:
    """The tables that exist, with their folders."""
    for table in READ_AGAIN:
        if (lake / table).is_dir():
            yield table, str(lake / table)


@contextmanager
def bigquery_emulator(folder: Path) -> Iterator[str]:
    """The emulator `local-bigquery`; yields its address."""
    if not LOCAL_BIGQUERY.exists():
        pytest.fail(f"There is no {LOCAL_BIGQUERY.name}: `make test-warehouses` installs it.")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(LOCAL_BIGQUERY), "--host", "127.0.0.1", "--port", f"{port}", "--grpc-port", f"{free_port()}"]
    # its DuckDB looks for extensions at home, and else on the internet
    home = {**os.environ, "HOME": str(LOCAL_BIGQUERY.parents[1])}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--data-dir", str(folder / "data")], stdout=log, stderr=log, env=home, cwd=folder
        )
    try:
        for _ in range(600):
            try:
                requests.get(f"{url}/bigquery/v2/projects/local/datasets", timeout=60).raise_for_status()
                break
            except requests.ConnectionError:
                assert server.poll() is None, (folder / "log").read_text()[-2_000:]
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def bigquery(url: str, patch: pytest.MonkeyPatch) -> Warehouse:
    """BigQuery's API, as the emulator speaks it.

    It asks nobody for credentials, does not unpack files, reads no bucket, and guesses types where a load job names
    none, as dlt's jobs do; BigQuery takes the table's.
    """
    from dlt.common.configuration.specs import GcpServiceAccountCredentials
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.bigquery import Client

    plain = Client.load_table_from_file
    staged: list[str] = []

    def load(client: Any, file: Any, table: str, job_config: Any, **named: Any) -> Any:
        job_config.schema = client.get_table(table).schema
        return plain(client, file, table, job_config=job_config, **named)

    def load_staged(client: Any, addresses: list[str], table: str, job_config: Any, **named: Any) -> Any:
        staged.extend(f"{job_config.source_format} {address}" for address in addresses)
        with fsspec.open(addresses[0]) as file:
            return load(client, file, table, job_config, **named)

    patch.setattr(Client, "load_table_from_file", load)
    patch.setattr(Client, "load_table_from_uri", load_staged)
    patch.setenv("BIGQUERY_EMULATOR_HOST", url)
    patch.setenv("NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION", "true")
    patch.setattr(GcpServiceAccountCredentials, "to_native_credentials", lambda _: AnonymousCredentials())
    credentials: Any = {"project_id": "local", "client_email": "loader@local.example", "private_key": "none"}
    return Warehouse(
        dlt.destinations.bigquery(credentials=credentials),
        _over_dlt,
        epoch_ms="unix_millis({})",
        plan="json_value(properties, '$.Plan')",
        statements=staged,
    )


def snowflake(server: dict[str, Any], patch: pytest.MonkeyPatch) -> Warehouse:
    """Snowflake's protocol and SQL, as `fakesnow` speaks them.

    It takes one statement at a time, and knows neither the quoted table stage that dlt puts files into, nor a bucket,
    nor MATCH_BY_COLUMN_NAME for JSON: PUT and COPY are noted and carried out as INSERT.
    """
    from snowflake.connector.cursor import SnowflakeCursor

    sent: list[str] = []
    files: dict[str, str] = {}
    plain = SnowflakeCursor.execute

    def execute(cursor: Any, command: str, *arguments: Any, **named: Any) -> Any:
        if put := re.match(r"PUT 'file://([^']+)'", command):
            files[Path(put[1]).name] = put[1]
        elif copy := re.match(r"COPY INTO (\S+)\s+FROM '@[^']*/([^/']+)'", command):
            sent.append(command)
            return plain(cursor, _insert(copy[1], files.pop(copy[2])), *arguments, **named)
        elif copy := re.match(r"COPY INTO (\S+)\s+FROM @STAGE\s+FILES = \('([^']+)'\)", command):
            sent.append(command)
            return plain(cursor, _insert(copy[1], f"memory://{copy[2]}"), *arguments, **named)
        else:
            sent.append(command)
            return plain(cursor, command, *arguments, **named)
        sent.append(command)
        return cursor

    patch.setattr(SnowflakeCursor, "execute", execute)
    credentials = (
        f"snowflake://{server['user']}:{server['password']}@{server['account']}/warehouse"
        f"?host={server['host']}&port={server['port']}&protocol={server['protocol']}"
    )
    return Warehouse(
        dlt.destinations.snowflake(credentials, supports_multiple_statements=False),
        _over_dlt,
        epoch_ms="date_part(epoch_millisecond, {})",
        plan='properties:"Plan"::text',
        statements=sent,
    )


def _insert(table: str, file: str) -> str:
    """The rows of a file of JSON lines as a statement."""
    with fsspec.open(file, "rt", compression="gzip") as lines:
        rows = [json.loads(line) for line in lines]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    names = ", ".join(f'"{column.upper()}"' for column in columns)
    values = ", ".join(f"({', '.join(_literal(row.get(column)) for column in columns)})" for row in rows)
    return f"INSERT INTO {table} ({names}) VALUES {values}"


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return str(escape_snowflake_literal(value if isinstance(value, str) else json.dumps(value)))
