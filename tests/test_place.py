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


@pytest.mark.parametrize("kind", ["duckdb", pytest.param("postgres", marks=pytest.mark.servers)])
def test_it_is_told_that_another_pipeline_has_loaded_the_same_place(
    kind: str, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: Any, request: pytest.FixtureRequest
) -> None:
    desk.configure(monkeypatch, rate_limit="unlimited")
    place = ["--db", "r.duckdb"]
    if kind == "postgres":
        place = ["--destination", "postgres", "--dataset", "places"]
        address = request.getfixturevalue("postgres").replace("@", ":trusted@")
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", address)
    load = ["sync", *place, "--max-requests", "3"]
    assert main([*load, "--pipeline", "mine"]) == 3
    assert "begins anew" not in capsys.readouterr().err
    assert main(load) == 3
    told = "The pipeline mine has loaded this dataset here already; this one begins anew. "
    assert (
        f"{told}`leadboxer sync {' '.join(place)} --pipeline mine` goes on where that one is."
        in capsys.readouterr().err
    )
    assert main(load) == 3
    assert "begins anew" not in capsys.readouterr().err, "it has begun"


def test_each_folder_and_each_database_has_a_pipeline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(variable: str, *values: str) -> list[str]:
        found = []
        for value in values:
            monkeypatch.setenv(f"DESTINATION__{variable}", value)
            found.append(name_of(None, variable.split("__")[0].lower()))
        return found

    here = os.path.realpath("lake")
    one, *same, another = names("FILESYSTEM__BUCKET_URL", "lake", here, f"file://{here}", "a/../lake/", "pond")
    assert {one} == set(same) != {another}
    secrets = ("sftp://me:hunter2@host/lake", "sftp://me:hunter3@host/lake?k=hunter4")
    bucket, rotated, elsewhere = names("FILESYSTEM__BUCKET_URL", *secrets, "sftp://me:hunter2@host/pond")
    assert bucket == rotated != elsewhere
    address = "postgresql://{}@{}"
    server, rotated, *others = names(
        "POSTGRES__CREDENTIALS",
        address.format("me:hunter2", "host/db"),
        address.format("you:hunter3", "host:5432/db?sslmode=require"),
        address.format("me:hunter2", "elsewhere/db"),
        address.format("me:hunter2", "host:9/db"),
        address.format("me:hunter2", "host/other"),
    )
    assert server == rotated
    assert len({server, *others}) == 4
    [account] = names("SNOWFLAKE__CREDENTIALS__HOST", "account")
    assert account != names("SNOWFLAKE__CREDENTIALS__DATABASE", "other")[0]


def test_where_nothing_is_configured_it_still_has_a_name() -> None:
    assert name_of(None, "postgres") != name_of(None, "bigquery")
