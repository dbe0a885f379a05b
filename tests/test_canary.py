"""A planted key and a planted address are searched in all that runs leave: files, logs, traces, state and tables."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow.parquet as pq
import pytest
from dlt.common.versioned_state import decompress_state

from leadboxer_source.sandbox import Sandbox, World
from leadboxer_source.sandbox.records import Record
from leadboxer_source.upkeep import forget
from tests.conftest import NOW_MS, Desk

KEY = "canary-key-4f1c0b6e2a"
HASH_KEY = "canary-hash-key-9d27c1b0"
EMAIL = "Canary.Bird@Planted.example"
CHILD = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, filename="everything.log")
from leadboxer_source.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line, with every library's log at DEBUG in a file."""


class PlantedWorld(World):
    """A world whose records carry an address wherever one can be."""

    planted: ClassVar[Record] = {
        "email": EMAIL,
        "E-Mail": EMAIL,
        "last_email": EMAIL,
        "organizationEmailAddresses": f"{EMAIL}, other@planted.example",
        "PhoneNumber": {"of": EMAIL},
        "Contact": {"email": EMAIL, "role": "buyer", "all": [{"e_mail": EMAIL}]},
        "customEventInfo": {"email": EMAIL, "plan": "team"},
    }

    def user_record(self, user_id: str, now_ms: int) -> Record:
        return {**super().user_record(user_id, now_ms), **self.planted}

    def session_records(self, user_id: str) -> list[Record] | None:
        return _planted(super().session_records(user_id), self.planted)

    def event_records(self, session_id: str) -> list[Record] | None:
        return _planted(super().event_records(session_id), self.planted)


def _planted(records: list[Record] | None, planted: Record) -> list[Record] | None:
    return None if records is None else [{**record, **planted} for record in records]


def left_behind(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file, packed ones unpacked, and every table of every database."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name, content = str(path.relative_to(folder)), path.read_bytes()
        yield name, content
        if path.suffix == ".gz":
            yield f"{name} unpacked", gzip.decompress(content)
        elif path.suffix == ".parquet":
            yield f"{name} unpacked", str(pq.read_table(path).to_pylist()).encode()
        elif path.suffix == ".duckdb":
            with duckdb.connect(str(path)) as connection:
                for schema, table in connection.execute(
                    "SELECT table_schema, table_name FROM information_schema.tables"
                ).fetchall():
                    rows = connection.execute(f'SELECT * FROM "{schema}"."{table}"').fetchall()
                    yield f"{name} {schema}.{table}", str(rows).encode()
                for (state,) in connection.execute("SELECT state FROM lb._dlt_pipeline_state").fetchall():
                    yield f"{name} state", json.dumps(decompress_state(state)).encode()


def where(folder: Path, canary: str) -> set[str]:
    """In what of the things left behind a text is, in any case."""
    return {name for name, content in left_behind(folder) if canary.lower().encode() in content.lower()}


@pytest.fixture
def server() -> Iterator[Sandbox]:
    with Sandbox(PlantedWorld(seed=3, users=12, days=4, now_ms=NOW_MS), key=KEY, rate_limit=None) as started:
        yield started


def leave_traces(folder: Path, server: Sandbox, *, failing: bool = False, **settings: Any) -> None:
    """A run that sets a session aside and ends well; before it, if wished, two that die: refused, and redirected."""
    (world,) = server.worlds.values()
    given = {
        "API_KEY": KEY,
        "SITE": world.site,
        "BASE_URL": server.url,
        "HASH_KEY": HASH_KEY,
        "RATE_LIMIT": "unlimited",
    }
    environment = {
        **os.environ,
        **{f"SOURCES__LEADBOXER__{name}": value for name, value in {**given, **settings}.items()},
        "RUNTIME__LOG_LEVEL": "DEBUG",
        "DLT_DATA_DIR": str(folder / "dlt"),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }
    command = [sys.executable, "-c", CHILD, "--debug", "sync", "--db", "canary.duckdb", "--dataset", "lb"]
    [session, *_] = world.session_records(world.user_ids()[0]) or []
    faults = [("sessions", "401", 2), ("leads", "redirect_other_host", 0), ("events", "400", 0)]
    for endpoint, fault, after in faults if failing else faults[-1:]:
        if fault == "400":
            server.faults.poison(session["session_id"], fault)
        else:
            server.faults.fail_next(endpoint, fault, after=after)
        with (folder / f"{fault}.out").open("w") as out:
            ended = subprocess.run(
                command, cwd=folder, env=environment, stdout=out, stderr=out, timeout=120, check=False
            )
        assert (ended.returncode == 0) == (fault == "400"), (folder / f"{fault}.out").read_text()[-2_000:]


@pytest.mark.parametrize("treated", ["EXCLUDE_FIELDS", "HASH_FIELDS"])
def test_what_is_hidden_is_nowhere_and_the_keys_are_nowhere(tmp_path: Path, server: Sandbox, treated: str) -> None:
    leave_traces(tmp_path, server, failing=treated == "EXCLUDE_FIELDS", **{treated: '["personal"]'})
    for canary in (KEY, HASH_KEY, EMAIL, "other@planted.example"):
        assert where(tmp_path, canary) == set()
    assert len(where(tmp_path, "buyer")) > 3, "what is not hidden is found in packages and tables"
    assert {name.split()[-1] for name in where(tmp_path, "set_aside")} >= {"state"}, "the state is looked into"
    assert {"everything.log", "400.out"} <= where(tmp_path, "leadboxer"), "logs are looked into"


def test_the_search_finds_what_is_not_hidden(tmp_path: Path, server: Sandbox) -> None:
    leave_traces(tmp_path, server)
    found = where(tmp_path, EMAIL)
    for table in ("users", "sessions", "events", "properties"):
        assert [name for name in found if name.endswith(f" lb.{table}")]
        assert [name for name in found if f"/{table}." in name and "parquet" in name]
    assert not where(tmp_path, KEY)
    assert not [name for name in found if name.endswith((".log", ".out", ".pickle", "state"))], "no row in a log"


def test_who_is_forgotten_leaves_nothing_in_the_working_directory(desk: Desk, server: Sandbox) -> None:
    (world,) = server.worlds.values()
    pipeline = desk.pipeline()
    settings = {"site": world.site, "api_key": KEY, "base_url": server.url}
    pipeline.run(desk.source(**settings), loader_file_format="parquet")
    user_id = world.user_ids()[0]
    assert where(desk.folder / "pipelines", user_id)
    forget(pipeline, user_id, site=world.site)
    assert not where(desk.folder / "pipelines", user_id)
