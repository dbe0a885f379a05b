"""One place has one pipeline, however it is written, and another place has another."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from leadboxer_source.cli import main
from leadboxer_source.cli.options import DATASET, Place
from tests.conftest import Desk


def name_of(db: str | None, destination: str = "duckdb", dataset: str = DATASET) -> str:
    return Place(destination, db, dataset, None).pipeline().pipeline_name


def test_a_file_has_the_name_that_it_always_had() -> None:
    path = os.path.realpath("r.duckdb")
    digest = hashlib.blake2b(f"duckdb|{path}|{DATASET}".encode(), digest_size=3).hexdigest()
    assert name_of("r.duckdb") == name_of(path) == f"leadboxer_{digest}"
    assert name_of(None) == name_of("leadboxer.duckdb")


def test_a_file_has_one_name_from_wherever_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    here = name_of("r.duckdb")
    Path("below").mkdir()
    Path("beside").symlink_to(Path("below").absolute())
    below = name_of("below/r.duckdb")
    assert name_of("beside/r.duckdb") == below != here
    monkeypatch.chdir("beside")
    assert name_of("../r.duckdb") == here
    assert name_of("r.duckdb") == below


def test_it_is_told_that_another_pipeline_has_loaded_the_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    desk.configure(monkeypatch, rate_limit="unlimited")
    load = ["sync", "--db", "r.duckdb", "--max-requests", "3"]
    assert main([*load, "--pipeline", "mine"]) == 3
    assert "begins anew" not in capsys.readouterr().err
    assert main(load) == 3
    told = "The pipeline mine has loaded this dataset here already; this one begins anew. "
    assert f"{told}`leadboxer sync --db r.duckdb --pipeline mine` goes on where that one is." in capsys.readouterr().err
    assert main(load) == 3
    assert "begins anew" not in capsys.readouterr().err, "it has begun"
