"""Schema contracts: which columns a frozen table may still fill, and with what."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from dlt.common.data_types import TDataType, coerce_value, py_type_to_sc_type
from dlt.common.schema import Schema
from dlt.common.schema.detections import is_iso_timestamp
from dlt.common.schema.typing import TTableSchemaColumns
from dlt.extract import DltSource

from leadboxer_source.rows import READERS, Fillable, Misfit
from leadboxer_source.tables import snake

_PROMOTED_TO = ("users", "sessions", "events")


def frozen_columns(source: DltSource, promote: Iterable[str] = ()) -> dict[str, Fillable]:
    """Returns, for each table whose contract lets no column or no type in, the columns that it may fill.

    dlt would raise at a new field of the API, and at a value of another type than before (`freeze`), or drop value or
    row (`discard_value`, `discard_row`). Kept out of columns, both are custom properties like any other: nothing
    breaks and nothing is lost.

    Columns of promoted properties are declared here, as a first value that looks like a time would make one of the
    column; not where a hint has its type already, or a frozen table is there without it.
    """
    frozen: dict[str, Fillable] = {}
    for name, resource in source.selected_resources.items():
        table = resource.table_name if isinstance(resource.table_name, str) else name
        contract = resource.schema_contract
        settings = (
            Schema.expand_schema_contract_settings(contract)
            if contract and not callable(contract)
            else source.schema.resolve_contract_settings_for_table(table)
        )
        hinted = resource.columns if isinstance(resource.columns, dict) else {}
        there = source.schema.tables.get(table, {}).get("columns", {})
        columns: TTableSchemaColumns = {**hinted, **there}
        if name in _PROMOTED_TO and (settings["columns"] == "evolve" or not there):
            promoted: TTableSchemaColumns = {
                column: {"data_type": "text"} for column in map(snake, promote) if column not in columns
            }
            if promoted:  # no columns at all would take away those that are declared
                resource.apply_hints(columns=promoted)
                columns.update(promoted)
        if settings["columns"] != "evolve" or settings["data_type"] != "evolve":
            frozen[name] = {
                column: partial(_fits, data_type)
                for column, hints in columns.items()
                if (data_type := hints.get("data_type")) is not None
            }
    return frozen


def _fits(data_type: TDataType, value: Any) -> bool:
    """Whether a value is one of the column's type; dlt would make a variant of the column, or bend 3 into true."""
    if data_type == "timestamp":  # one that was found in texts; dlt would take 12 for a second of 1970
        return is_iso_timestamp(type(value), value) is not None
    try:
        if data_type in READERS:
            READERS[data_type](value)
        else:  # a type that only hints of one's own give
            coerce_value(data_type, py_type_to_sc_type(type(value)), value)
    except (Misfit, TypeError, ValueError, ArithmeticError):
        return False
    return True
