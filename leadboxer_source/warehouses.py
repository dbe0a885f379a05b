"""What each warehouse wants without being asked: file formats, partitions, clustering, indexes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, cast

import dlt
from dlt.common.schema.typing import PIPELINE_STATE_TABLE_NAME, TColumnSchema, TTableSchemaColumns
from dlt.common.schema.utils import new_table
from dlt.destinations.adapters import bigquery_adapter
from dlt.extract import DltResource, DltSource
from dlt.extract.exceptions import DataItemRequiredForDynamicTableHints
from dlt.extract.extractors import MaterializedEmptyList

from leadboxer_source.destination import running_pipeline, was_made
from leadboxer_source.state import COVERED
from leadboxer_source.tables import TABLES

BIGQUERY_PARTITIONED = {"sessions": "started_at", "events": "occurred_at"}
"""Column by whose days BigQuery divides a table. A user's row moves with every visit; a property has no time."""

BIGQUERY_CLUSTERED = {
    "users": ["site", "user_id"],
    "sessions": ["site", "user_id"],
    "events": ["site", "user_id"],
    "properties": ["site", "name", "event_key"],
}
"""Columns that BigQuery sorts each partition by."""

SNOWFLAKE_CLUSTERED = {
    "sessions": ["site", "started_at"],
    "events": ["site", "occurred_at"],
    "properties": ["site", "name"],
}
"""Columns that Snowflake clusters by. Not users: they change everywhere, and to keep them sorted would cost most."""

_HINTED = ("bigquery", "snowflake", "filesystem")
"""Where it matters which hints a table has. To find out takes some milliseconds a table."""

_KEEPS_JSON = {"bigquery": "jsonl", "snowflake": "jsonl"}
"""Formats that JSON columns survive. As Parquet they fail in BigQuery and become text in Snowflake; dlt itself chooses
Parquet for BigQuery when files are staged in a bucket."""

_ROW_ID: TColumnSchema = {"name": "_dlt_id", "data_type": "text", "nullable": False, "row_key": True, "unique": False}
"""dlt's column without its constraint. A run that is killed just after a file was loaded loads it once more, which
PostgreSQL would refuse for good; the keys of the tables do away with the second copy."""

_TAKES_NO_ROWS = ("duckdb", "postgres")
"""Where a load without rows is known to make a table. The stand-ins for BigQuery and Snowflake do not end it."""


def suit(source: DltSource) -> None:
    """Gives the resources of a run what the destination wants, before the first row; hints that they have are kept.

    It is done when a run begins, not when the source is built: only then is the destination known, and what helps one
    can break another (`cluster` means Redshift's single distribution key).
    """
    kind = _running_destination()
    source.schema.update_table(new_table(PIPELINE_STATE_TABLE_NAME, columns=[_ROW_ID]))
    for name in TABLES.keys() & source.selected_resources.keys():
        resource = source.selected_resources[name]
        hints = _hints(resource) if kind in _HINTED else {}
        columns = cast("dict[str, Any]", hints.get("columns", {})).values()
        wanted = file_format(kind, cast("dict[str, Any]", resource._hints or {}).get("file_format"))
        if wanted is not None:
            resource.apply_hints(file_format=wanted)
        if kind == "bigquery" and name in BIGQUERY_CLUSTERED and not _bigquery_hinted(hints):
            partition = cast(str, BIGQUERY_PARTITIONED.get(name))  # `None` for none, which its annotation forgets
            bigquery_adapter(resource, partition=partition, cluster=BIGQUERY_CLUSTERED[name])
        if kind == "snowflake" and name in SNOWFLAKE_CLUSTERED and not any(c.get("cluster") for c in columns):
            clustered: TTableSchemaColumns = {column: {"cluster": True} for column in SNOWFLAKE_CLUSTERED[name]}
            resource.apply_hints(columns=clustered)
        resource.apply_hints(columns={"_dlt_id": _ROW_ID})
        if kind == "filesystem" and hints.get("table_format") == "iceberg":
            # an upsert refuses a load in which a row was read twice, again and again, and nothing after it is loaded
            resource.apply_hints(write_disposition="append")


def file_format(kind: str, chosen: str | None) -> Any:
    """Returns the file format to load a table with, or `None` where dlt knows best.

    Parquet halves the time of DuckDB. JSON lines would be as fast, but DuckDB guesses their types: a text that looks
    like a date would become one.

    Args:
        kind: The destination, as dlt names its class.
        chosen: What the caller of `pipeline.run` asked for.
    """
    if kind == "duckdb" and chosen is None and find_spec("pyarrow"):
        return "parquet"
    return _KEEPS_JSON.get(kind)


def empty_tables(source: DltSource, *names: str) -> Iterator[list[Any]]:
    """Yields what makes tables without rows, where a selected resource of those names has no table yet.

    A query of `load_failures` then works before anything has failed. Transformers hand it on to make theirs; see
    `is_empty_table`.
    """
    wanted = {name: source.selected_resources[name] for name in names if name in source.selected_resources}
    if _running_destination() not in _TAKES_NO_ROWS or all(was_made(source.schema, name) for name in wanted):
        return
    # dlt 1.31 looks for the key in the row that is not there
    if not any(_hints(resource).get("x-merge-strategy") == "upsert" for resource in wanted.values()):
        yield dlt.mark.materialize_table_schema()


def is_empty_table(rows: object) -> bool:
    """Tells whether those are no rows, but the word to make a table all the same."""
    return isinstance(rows, MaterializedEmptyList)


def create_indexes(pipeline: dlt.Pipeline) -> list[str]:
    """Creates missing indexes on keys and references in PostgreSQL; elsewhere it does nothing.

    dlt cannot: its only index hint there is UNIQUE on one column. `sync` calls this after each run; whoever calls
    `pipeline.run` calls it once after the first.

    Returns:
        The statements that were run.
    """
    if _kind(pipeline.destination) != "postgres":
        return []
    loaded = {table["name"] for table in pipeline.default_schema.data_tables(seen_data_only=True)}
    with pipeline.sql_client() as client:
        statements = [
            f"CREATE INDEX IF NOT EXISTS {client.escape_column_name(f'{table}_by_' + '_'.join(columns))} "
            f"ON {client.make_qualified_table_name(table)} ({', '.join(map(client.escape_column_name, columns))})"
            for table in COVERED
            if table in loaded
            for columns in indexed(table)
        ]
        for statement in statements:
            client.execute_sql(statement)
    return statements


def indexed(table: str) -> list[list[str]]:
    """Returns the columns of the indexes that a table wants: its key, and references that the key does not begin."""
    key: list[str] = TABLES[table]["primary_key"]
    references: list[list[str]] = [reference["columns"] for reference in TABLES[table]["references"]]
    return [key, *(columns for columns in references if key[: len(columns)] != columns)]


def _running_destination() -> str:
    pipeline = running_pipeline()
    return _kind(pipeline.destination) if pipeline else ""


def _kind(destination: Any) -> str:
    """What dlt calls the class of a destination; empty if a pipeline has none."""
    return str(getattr(destination, "destination_type", "")).rsplit(".", 1)[-1]


def _hints(resource: DltResource) -> dict[str, Any]:
    """The hints of a resource; none where they depend on rows."""
    try:
        return cast("dict[str, Any]", resource.compute_table_schema())
    except DataItemRequiredForDynamicTableHints:
        return {}


def _bigquery_hinted(hints: dict[str, Any]) -> bool:
    tables_and_columns = [hints, *hints.get("columns", {}).values()]
    names = {name for hinted in tables_and_columns for name in hinted}
    return bool({"x-bigquery-partition", "x-bigquery-cluster", "x-bigquery-cluster-columns"} & names)
