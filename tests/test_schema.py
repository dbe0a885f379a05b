"""The tables can be printed, and docs/tables.md is what is printed."""

from __future__ import annotations

import re

import pytest

from leadboxer_source.cli import main
from leadboxer_source.schema import FORMATS
from leadboxer_source.tables import TABLES
from tests.test_package import ROOT


def test_the_dictionary_in_docs_is_not_stale() -> None:
    written = (ROOT / "docs" / "tables.md").read_text()
    assert written == FORMATS["markdown"](), "run: leadboxer schema > docs/tables.md"


@pytest.mark.parametrize("name", ["markdown", "dbml"])
def test_every_column_is_told_with_its_description(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--format", name]) == 0
    told = capsys.readouterr().out.replace("\\'", "'")
    for table in TABLES.values():
        for column, hints in table["columns"].items():
            assert re.search(rf"{column}\W.*{hints['data_type']}.*{re.escape(hints['description'])}", told), column


def test_the_diagram_has_every_table_key_and_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--format", "mermaid"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("erDiagram\n")
    for name, table in TABLES.items():
        drawn = told.split(f"    {name} {{\n")[1].split("    }\n")[0]
        assert all(re.search(rf" {column} PK", drawn) for column in table["primary_key"])
        for reference in table["references"]:
            assert f"    {name} }}o--|| {reference['referenced_table']} : {reference['label']}\n" in told


def test_every_table_says_what_it_is_for() -> None:
    for name in TABLES:
        section = FORMATS["markdown"]().split(f"\n## {name}\n\n")[1]
        assert not section.startswith("\n"), f"schema.py has no sentence for {name}"


def test_the_header_speaks_to_whoever_reads_the_tables() -> None:
    header = FORMATS["markdown"]().split("```")[0]
    assert "leadboxer_source/" not in header, "not to whoever changes the code"
