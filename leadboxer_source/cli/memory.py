"""What a load may take of memory where nobody has configured it: least, as long as it costs no time."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import dlt
from dlt.common.configuration.providers import CustomLoaderDocProvider

_BUFFER_ROWS = 1_000
"""dlt's own 5,000 rows of more than a hundred columns are most of what it holds while it extracts and normalizes."""

_DUCKDB: dict[str, Any] = {
    # each thread fills a row group of its own, of 122,880 rows; a load is no faster with two
    "threads": 1,
    # a file is read once
    "enable_external_file_cache": False,
    # what a statement needed goes back to the system before the next one begins
    "allocator_flush_threshold": "1MB",
    "allocator_bulk_deallocation_flush_threshold": "1MB",
}
"""No `memory_limit`: DuckDB keeps to it by failing where it cannot go on from disk."""


def bound(destination: str) -> None:
    """Lets dlt find these settings after all others, so that any of your own replaces its like."""
    name = f"leadboxer sync to {destination}"
    if name not in {provider.name for provider in dlt.config.config_providers}:
        settings: dict[str, Any] = {"data_writer": {"buffer_max_items": _BUFFER_ROWS}}
        if destination == "duckdb" and find_spec("duckdb"):
            settings["destination"] = {"duckdb": {"credentials": {"global_config": _known_to_duckdb()}}}
        dlt.config.register_provider(CustomLoaderDocProvider(name, lambda: settings, supports_secrets=False))


def _known_to_duckdb() -> dict[str, Any]:
    """Leaves out what an older DuckDB would refuse."""
    import duckdb

    with duckdb.connect() as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM duckdb_settings()").fetchall()}
    return {name: value for name, value in _DUCKDB.items() if name in known}
