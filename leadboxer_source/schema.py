"""The tables as pictures and as a dictionary, made from `tables.py`: pure.

dlt's own `Schema.to_mermaid` draws every column of tables that have more than a hundred, and its `to_dbml` needs a
further package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from leadboxer_source.tables import TABLES, Table

_PURPOSES = {
    "users": "A person or browser, by last activity.",
    "sessions": "A visit, with its present owner.",
    "events": "A hit; several may share an `event_id`.",
    "properties": "A custom name/value pair of an event.",
    "load_failures": "What could not be fetched yet, why and since when; the row goes once it has arrived.",
    "load_runs": "What a run took, and a stretch of time that is covered after it. `sync` always writes it; a run of "
    'your own only where it is selected, so `with_resources("users")` leaves it and `load_failures` out.',
}
_INTRODUCTION = """\
# Tables

The tables that a load makes, as `leadboxer schema` prints them: a diagram of keys, references and times, then every
column.

Each is loaded with `merge` on its key. `site` is part of every key, so several datasets can share a destination. Times
are UTC timestamps, ids are text. Custom properties stay together in the JSON column `properties`;
`promote=["Customer ID"]` gives chosen ones a column. A field that is new, holds a single value, and is named as the API
names its own, becomes a column of the type that dlt infers from its first value. dlt adds `_dlt_load_id` and `_dlt_id`
to each row.

A column takes only what it holds without loss. Any other value is kept in `properties` as it was sent: a text in a
column of numbers, `"007"` in one of whole numbers, 2^53+1 in one of doubles. So no column is ever split into variants
(`x__v_text`). A whole number beyond 64 bits, which dlt can neither read nor write, becomes the text of its digits.
"""


def mermaid(tables: dict[str, Table] = TABLES) -> str:
    """Returns an entity-relationship diagram in Mermaid: keys, references and times."""
    lines = ["erDiagram"]
    for name, table in tables.items():
        lines.append(f"    {name} {{")
        for column, hints in table["columns"].items():
            mark = _marks(table, column)
            if mark or hints["data_type"] == "timestamp":
                lines.append(f"        {hints['data_type']} {column}{' ' if mark else ''}{mark}")
        lines.append("    }")
    for name, reference in _references(tables):
        lines.append(f"    {name} }}o--|| {reference['referenced_table']} : {reference['label']}")
    return "\n".join(lines) + "\n"


def dbml(tables: dict[str, Table] = TABLES) -> str:
    """Returns all tables with their columns, keys, references and descriptions in DBML (https://dbml.dbdiagram.io)."""
    lines = []
    for name, table in tables.items():
        lines.append(f"Table {name} {{")
        for column, hints in table["columns"].items():
            settings = ["not null"] if _is_required(table, column) else []
            settings.append(f"note: '{_quoted(hints['description'])}'")
            lines.append(f"  {column} {hints['data_type']} [{', '.join(settings)}]")
        lines += ["  indexes {", f"    ({', '.join(table['primary_key'])}) [pk]", "  }"]
        lines += [f"  Note: '{_quoted(_purpose(name))}'", "}", ""]
    for name, reference in _references(tables):
        there = f"{reference['referenced_table']}.({', '.join(reference['referenced_columns'])})"
        lines.append(f"Ref {reference['label']}: {name}.({', '.join(reference['columns'])}) > {there}")
    return "\n".join(lines) + "\n"


def markdown(tables: dict[str, Table] = TABLES) -> str:
    """Returns the diagram and a dictionary of all columns as Markdown."""
    lines = [_INTRODUCTION, "```mermaid", mermaid(tables).rstrip(), "```"]
    for name, table in tables.items():
        lines += ["", f"## {name}", "", _purpose(name), ""]
        lines += [f"Key: {_code(table['primary_key'])}."]
        for reference in table["references"]:
            there = f"`{reference['referenced_table']}` ({_code(reference['referenced_columns'])})"
            lines += ["", f"{_code(reference['columns'])} refer to {there}."]
        lines += ["", "| column | type | description |", "|---|---|---|"]
        for column, hints in table["columns"].items():
            required = ", not null" if _is_required(table, column) else ""
            lines.append(
                f"| `{column}` | {hints['data_type']}{required} | {hints['description'].replace('|', '&#124;')} |"
            )
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[], str]] = {"markdown": markdown, "mermaid": mermaid, "dbml": dbml}
"""By name: what makes the text."""


def _references(tables: dict[str, Table]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, table in tables.items():
        for reference in table["references"]:
            yield name, reference


def _marks(table: Table, column: str) -> str:
    """`PK` for a part of the key, `FK` for a part of a reference."""
    refers = any(column in reference["columns"] for reference in table["references"])
    return ", ".join(mark for mark, holds in (("PK", column in table["primary_key"]), ("FK", refers)) if holds)


def _is_required(table: Table, column: str) -> bool:
    return column in table["primary_key"] or table["columns"][column].get("nullable") is False


def _purpose(name: str) -> str:
    return _PURPOSES.get(name, "")


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
