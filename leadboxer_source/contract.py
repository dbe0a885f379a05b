"""Schema contracts: which columns a frozen table may still fill, and with what."""

from __future__ import annotations

from functools import partial
from typing import Any

from dlt.common.data_types import TDataType, coerce_value, py_type_to_sc_type
from dlt.common.schema import Schema
from dlt.extract import DltSource

from leadboxer_source.rows import Fillable


def frozen_columns(source: DltSource) -> dict[str, Fillable]:
    """Returns, for each table whose contract lets no column or no type in, the columns that it has.

    dlt would raise at a new field of the API, and at a value of another type than before (`freeze`), or drop value or
    row (`discard_value`, `discard_row`). Kept out of columns, both are custom properties like any other: nothing
    breaks and nothing is lost.
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
        if settings["columns"] != "evolve" or settings["data_type"] != "evolve":
            columns = source.schema.tables[table]["columns"] if table in source.schema.tables else {}
            frozen[name] = {
                column: partial(_fits, data_type)
                for column, hints in columns.items()
                if (data_type := hints.get("data_type")) is not None
            }
    return frozen


def _fits(data_type: TDataType, value: Any) -> bool:
    """Whether dlt can make the column's type of a value; otherwise it would make a variant of the column."""
    try:
        coerce_value(data_type, py_type_to_sc_type(type(value)), value)
    except (TypeError, ValueError, ArithmeticError):
        return False
    return True
