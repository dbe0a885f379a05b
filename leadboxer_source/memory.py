"""What `leadboxer sync` may take of memory where nobody has configured it: least, as long as it costs no time."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import dlt
from dlt.common.configuration.providers import CustomLoaderDocProvider
from dlt.destinations.exceptions import DatabaseException

BUFFER_ROWS = 1_000
"""dlt's own 5,000 rows of more than a hundred columns are most of what it holds while it extracts and normalizes."""

DUCKDB: dict[str, Any] = {
    # each thread fills a row group of its own, of 122,880 rows; a load is no faster with two
    "threads": 1,
    # a file is read once
    "enable_external_file_cache": False,
    # what a statement needed goes back to the system before the next one begins
    "allocator_flush_threshold": "1MB",
    "allocator_bulk_deallocation_flush_threshold": "1MB",
    # enough for 100,000 users, and for what DuckDB can put aside on disk; see `lifted`
    "memory_limit": "130MB",
}


_given: dict[str, Any] = {}
"""Those of them that dlt finds, by and by: empty where nothing is bound."""


def bound(destination: str) -> None:
    """Lets dlt find these settings after all others, so that any of your own replaces its like."""
    settings: dict[str, Any] = {"data_writer": {"buffer_max_items": BUFFER_ROWS}}
    if destination == "duckdb" and find_spec("duckdb"):
        _given.update(_known_to_duckdb())
        settings["destination"] = {"duckdb": {"credentials": {"global_config": _given}}}
    name = f"leadboxer sync to {destination}"
    if name not in {provider.name for provider in dlt.config.config_providers}:
        # dlt refuses a provider without secrets that has anything under `credentials`
        dlt.config.register_provider(CustomLoaderDocProvider(name, lambda: settings))


def lifted(failure: BaseException) -> bool:
    """Takes DuckDB's limit away if it was too low for a load: it fails where it cannot go on from disk.

    Returns:
        Whether what was read may be loaded now.
    """
    # the second is what it says where it fails to commit
    too_low = any(told in str(failure) for told in ("Out of Memory", "could not allocate block"))
    return too_low and _given.pop("memory_limit", None) is not None


def checkpoint(pipeline: dlt.Pipeline) -> None:
    """Moves what DuckDB has in its log into the file: at the end of a load the limit can keep it from doing so itself.

    The file alone would then hold less than was loaded, and the log grow with every run.
    """
    if not _is_duckdb(pipeline):
        return
    with pipeline.sql_client() as client, suppress(DatabaseException):
        if "memory_limit" in _given:
            client.execute_sql("SET memory_limit = '-1'")  # none; RESET brings back the one that it was opened with
        client.execute_sql("CHECKPOINT")


def _is_duckdb(pipeline: dlt.Pipeline) -> bool:
    return pipeline.destination.destination_type.endswith(".duckdb")


def _known_to_duckdb() -> dict[str, Any]:
    """Leaves out what an older DuckDB would refuse."""
    import duckdb

    with duckdb.connect() as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM duckdb_settings()").fetchall()}
    return {name: value for name, value in DUCKDB.items() if name in known}
