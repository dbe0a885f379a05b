"""Which columns may be filled with what: a column takes what it holds without loss, and nothing else.

dlt by itself would bend what follows the first value of a column (3 into true, "007" into 7, 1000 into a second of
1970), make a second column of it, or find no room for it and fail at every run. Under a schema contract it would raise,
or drop value or row. Kept out of columns, such a value is a custom property like any other: nothing breaks and nothing
is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timezone
from typing import Any, cast

import orjson
from dlt.common.data_types import TDataType, coerce_value, py_type_to_sc_type
from dlt.common.schema import Schema
from dlt.common.schema.detections import is_iso_timestamp
from dlt.common.schema.typing import TTableSchemaColumns
from dlt.common.schema.utils import autodetect_sc_type
from dlt.common.storages.exceptions import CurrentLoadPackageStateNotAvailable
from dlt.common.storages.load_package import load_package_state
from dlt.extract import DltSource

from leadboxer_source.rows import READERS, Fillable, Misfit, as_text
from leadboxer_source.tables import snake

_WITH_UNKNOWN_FIELDS = ("users", "sessions", "events")
_FINER_THAN_MICROSECONDS = re.compile(r"[.,]\d{7}")


class Columns:
    """The columns of a table, for the fields that have none of their own and for promoted properties.

    Args:
        schema: Tells how dlt names columns and which type it infers.
        kinds: The types of the columns that are there.
        grows: Whether there may be more: a first value makes a column of the type that dlt infers for it.
        made: Remembers those, until they are there.
    """

    def __init__(
        self,
        schema: Schema,
        kinds: Mapping[str, TDataType],
        *,
        grows: bool = True,
        made: dict[str, TDataType] | None = None,
    ) -> None:
        self._schema = schema
        self._kinds = kinds
        self._grows = grows
        self._made = {} if made is None else made

    def __call__(self, column: str, value: Any) -> Any:
        """Reads a value for a column.

        Raises:
            Misfit: The column cannot be, or would not hold the value as it was sent.
        """
        column = self._schema.naming.normalize_identifier(column)
        if column in self._kinds:
            return exactly(self._kinds[column], value)
        kind = self._made.get(column) or self._inferred(column, value)
        read = exactly(kind, value)
        if self._inferred(column, read) != kind:
            raise Misfit  # dlt makes the column of whichever value it meets first
        self._made[column] = kind
        return read

    def _inferred(self, column: str, value: Any) -> TDataType:
        # a number beyond 64 bits would make a column that has no room for the usual ones
        is_beyond = isinstance(value, (int, float)) and not -(2**63) <= value < 2**63
        if is_beyond or not self._grows:
            raise Misfit
        detections = self._schema.settings.get("detections")
        return (
            self._schema.get_preferred_type(column)
            or autodetect_sc_type(detections or (), type(value), value)
            or py_type_to_sc_type(type(value))
        )


def exactly(kind: TDataType, value: Any) -> Any:
    """Reads a value for a column of a type that dlt found in other values, or that a hint gives.

    What is read is the same number, or has the same text: 7.0 is 7 and so is "7", but "007" is not.

    Raises:
        Misfit: The column would hold something else.
    """
    if isinstance(value, (dict, list)):
        raise Misfit
    if kind == "text":
        return as_text(value)
    try:
        if kind == "timestamp":  # one that dlt found in texts; it would take 1000 for seconds
            if is_iso_timestamp(type(value), value) is None or _FINER_THAN_MICROSECONDS.search(value):
                raise Misfit
            moment = coerce_value(kind, "text", value)
            if moment.tzinfo is not None:
                moment.astimezone(timezone.utc)  # fails before the year 1 and after 9999
            return value
        if kind in ("bool", "bigint", "double"):
            read = READERS[kind](orjson.loads(value) if isinstance(value, str) else value)
            if isinstance(value, str) and as_text(read) != value:
                raise Misfit
            return read
        # dlt converts the others as it writes them; a decimal and a date have a text that orjson does not know
        read = coerce_value(kind, py_type_to_sc_type(type(value)), value)
        if (as_text(read) if kind == "json" else str(read)) != as_text(value):
            raise Misfit
    except (TypeError, ValueError, ArithmeticError, OSError):  # the last for a time that the machine has no room for
        raise Misfit from None
    return value


def fillable_columns(source: DltSource, promote: Iterable[str] = ()) -> dict[str, Fillable]:
    """Returns the columns of each table as they are when a run begins.

    A table whose contract lets no column or no type in gets no more of them.

    Columns of promoted properties are declared here, as a first value that looks like a time would make one of the
    column; not where a hint has its type already, or a frozen table is there without it.
    """
    found: dict[str, Fillable] = {}
    named = source.schema.naming.normalize_identifier
    for name in source.selected_resources.keys() & _WITH_UNKNOWN_FIELDS:
        resource = source.selected_resources[name]
        table = resource.table_name if isinstance(resource.table_name, str) else name
        contract = resource.schema_contract
        settings = (
            Schema.expand_schema_contract_settings(contract)
            if contract and not callable(contract)
            else source.schema.resolve_contract_settings_for_table(table)
        )
        hinted = resource.columns if isinstance(resource.columns, dict) else {}
        there = source.schema.tables.get(named(table), {}).get("columns", {})
        columns: TTableSchemaColumns = {**{named(column): hints for column, hints in hinted.items()}, **there}
        if settings["columns"] == "evolve" or not there:
            promoted: TTableSchemaColumns = {
                column: {"data_type": "text"} for column in map(snake, promote) if named(column) not in columns
            }
            if promoted:  # no columns at all would take away those that are declared
                resource.apply_hints(columns=promoted)
                columns.update({named(column): hints for column, hints in promoted.items()})
        kinds = {column: kind for column, hints in columns.items() if (kind := hints.get("data_type")) is not None}
        grows = settings["columns"] == settings["data_type"] == "evolve"
        found[name] = Columns(source.schema, kinds, grows=grows, made=_made_in_this_load(table))
    return found


def _made_in_this_load(table: str) -> dict[str, TDataType]:
    """The columns that values have made since the load began: sources that one run loads together share a schema."""
    try:
        state = cast("dict[str, Any]", load_package_state()["state"])
    except CurrentLoadPackageStateNotAvailable:
        return {}  # the rows are read by hand
    return cast("dict[str, TDataType]", state.setdefault("leadboxer_columns", {}).setdefault(table, {}))
