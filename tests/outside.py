"""What runs outside of the tests' process, as it does for a user: other programs, other environments, real time."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from leadboxer_source.rows import as_text
from leadboxer_source.sandbox import Sandbox, World
from tests import servers
from tests.conftest import properties_of

ROOT = Path(__file__).parents[1]
PIPELINES = ROOT / "pipelines"

Query = Callable[[str], list[tuple[Any, ...]]]


def world(number: int = 1, users: int = 12) -> World:
    """A dataset that is up to date."""
    return World(seed=number, users=users, days=20, now_ms=int(time.time() * 1000), site=f"{number:032x}")


def environment(home: Path, server: Sandbox | None = None, site: str = "", **more: str) -> dict[str, str]:
    """What a program of a user finds: a home of its own, and the sandbox for an account if one is given."""
    known = {name: os.environ[name] for name in ("LANG", "SSL_CERT_FILE", "TZ") if name in os.environ}
    pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HTTP", "http", "NO_", "no_"))}
    account = {}
    if server is not None:
        account = {
            "SOURCES__LEADBOXER__SITE": site,
            "SOURCES__LEADBOXER__API_KEY": server.key,
            "SOURCES__LEADBOXER__BASE_URL": server.url,
            "SOURCES__LEADBOXER__RATE_LIMIT": "unlimited",
        }
    return {
        **known,
        **pip,
        **account,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        **more,
    }


def orchestrator(name: str) -> str:
    """Returns the path of a program in the orchestrators' environment."""
    program = ROOT / ".venv-orchestrators" / "bin" / name
    if not program.exists():
        pytest.fail("Airflow, Dagster and Prefect are not installed: `make test-orchestrators` installs them.")
    return str(program)


def run(command: Sequence[str | Path], env: Mapping[str, str], cwd: Path, *, may_fail: bool = False) -> str:
    """Runs a program to its end and returns what it said; a failure shows all of it."""
    done = subprocess.run(command, check=False, env=dict(env), cwd=cwd, capture_output=True, text=True, timeout=280)
    assert may_fail or done.returncode == 0, f"{done.stdout[-4_000:]}\n{done.stderr[-4_000:]}"
    return done.stdout + done.stderr


def build_wheel(folder: Path) -> Path:
    """Builds the package as an index would offer it."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*command, "--wheel-dir", folder, ROOT], environment(folder), folder)
    return next(folder.glob("*.whl"))


def make_venv(folder: Path) -> Path:
    """Makes an environment with nothing in it but pip."""
    run([sys.executable, "-m", "venv", folder], {}, ROOT)
    return folder


def duckdb_rows(path: Path, dataset: str = "leadboxer_data") -> Query:
    """Asks a DuckDB file."""

    def rows(sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(path), read_only=True) as connection:
            connection.execute(f"SET search_path = '{dataset}'")
            return connection.execute(sql).fetchall()

    return rows


def duckdb_rows_in(python: Path, path: Path, dataset: str = "leadboxer_data") -> Query:
    """Asks a DuckDB file with another environment's DuckDB: the newest writes what an older one cannot read."""

    def rows(sql: str) -> list[tuple[Any, ...]]:
        ask = "import duckdb, json, sys; print(json.dumps(duckdb.connect(sys.argv[1]).execute(sys.argv[2]).fetchall()))"
        told = run([python, "-c", ask, path, sql.replace("FROM ", f"FROM {dataset}.")], {}, path.parent)
        return [tuple(row) for row in json.loads(told)]

    return rows


def postgres_rows(address: str, schema: str) -> Query:
    """Asks a PostgreSQL server through its own client; everything comes as text."""

    def rows(sql: str) -> list[tuple[Any, ...]]:
        command = [servers.program("psql"), address, "--quiet", "--csv", "--tuples-only", "--pset=null=<null>"]
        told = run([*command, "-c", f"SET search_path = {schema}", "-c", sql], {}, Path.cwd())
        return [tuple(None if cell == "<null>" else cell for cell in row) for row in csv.reader(io.StringIO(told))]

    return rows


def assert_equal_to_truth(rows: Query, world: World) -> None:
    """Every user, session, event and property is there once, and nothing else."""
    truth = world.truth()
    assert Counter(rows("SELECT user_id FROM users")) == Counter((record["use_id"],) for record in truth.users)
    assert Counter(rows("SELECT session_id, user_id FROM sessions")) == Counter(
        (record["session_id"], record["use_id"]) for record in truth.sessions
    )
    assert Counter(rows("SELECT session_id, event_id FROM events")) == Counter(
        (record["session_id"], record["event_id"]) for record in truth.events
    )
    assert Counter(rows("SELECT session_id, name, value FROM properties")) == Counter(
        (record["session_id"], name, as_text(value))
        for record in truth.events
        for name, value in properties_of(record).items()
    )
