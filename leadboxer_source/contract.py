"""Schema contracts: which columns a frozen table may still fill."""

from __future__ import annotations

from collections.abc import Collection

from dlt.common.schema import Schema
from dlt.extract import DltSource


def frozen_columns(source: DltSource) -> dict[str, Collection[str]]:
    """Returns the columns that each table has whose contract lets no column in.

    dlt would raise at a new field of the API (`freeze`), or drop its value or row (`discard_value`, `discard_row`).
    Kept out of columns, it is a custom property like any other: nothing breaks and nothing is lost.
    """
    frozen: dict[str, Collection[str]] = {}
    for name, resource in source.selected_resources.items():
        table = resource.table_name if isinstance(resource.table_name, str) else name
        contract = resource.schema_contract
        settings = (
            Schema.expand_schema_contract_settings(contract)
            if contract and not callable(contract)
            else source.schema.resolve_contract_settings_for_table(table)
        )
        if settings["columns"] != "evolve":
            frozen[name] = source.schema.tables[table]["columns"].keys() if table in source.schema.tables else ()
    return frozen
