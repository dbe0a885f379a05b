"""The package keeps its shape: arrows point one way, the README tells every setting, the shortest use is short."""

from __future__ import annotations

import ast
import inspect
import re
import socket
import subprocess
import sys
from pathlib import Path

import leadboxer_source
from leadboxer_source import tables

ROOT = Path(leadboxer_source.__file__).parents[1]
PACKAGE = ROOT / "leadboxer_source"
ORDER = [
    "errors",
    "settings",
    "clock",
    "coverage",
    "state",
    "tables",
    "privacy",
    "rows",
    "contract",
    "destination",
    "warehouses",
    "stores",
    "pace",
    "transport",
    "client",
    "lanes",
    "listing",
    "failures",
    "children",
    "report",
    "rhythm",
    "survey",
    "plan",
    "journal",
    "connection",
    "budgets",
    "slice",
    "slices",
    "source",
    "configured",
    "lock",
    "memory",
    "sync",
    "upkeep",
    "check",
    "schema",
    "profile",
    "profile_views",
]
"""Modules, lowest first; the command line stands above all of them."""


def imports_of(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("leadboxer_source"):
            below = (node.module or "").split(".")[1:2]
            found |= set(below) or {alias.name for alias in node.names}
    return found


def test_every_module_has_its_place() -> None:
    assert sorted(ORDER) == sorted(file.stem for file in PACKAGE.glob("*.py") if file.stem != "__init__")


def test_arrows_point_one_way() -> None:
    for name in ORDER:
        later = set(ORDER[ORDER.index(name) :])
        assert not imports_of(PACKAGE / f"{name}.py") & {*later, "cli"}, name
    for name in ("source", "slice", "children", "client", "transport", "rows"):
        assert "sandbox" not in imports_of(PACKAGE / f"{name}.py")


def test_what_decides_knows_no_clock_and_no_network() -> None:
    for name in ("coverage", "rows", "tables", "state", "rhythm"):
        text = (PACKAGE / f"{name}.py").read_text()
        assert "import time" not in text
        assert "requests" not in imports_of(PACKAGE / f"{name}.py")
        assert not imports_of(PACKAGE / f"{name}.py") & {"client", "transport", "slice", "listing"}


def test_the_readme_tells_every_setting_and_every_table() -> None:
    readme = (ROOT / "README.md").read_text()
    settings = set(inspect.signature(leadboxer_source.leadboxer_source).parameters) - {"clock", "watch"}
    assert not [name for name in settings if f"`{name}`" not in readme]
    assert not [name for name in tables.TABLES if f"`{name}`" not in readme]


def test_the_shortest_pipeline_is_short() -> None:
    assert len((ROOT / "pipelines" / "leadboxer_to_duckdb.py").read_text().splitlines()) < 30


def test_the_sandbox_command_serves_and_stops() -> None:
    command = [str(Path(sys.executable).with_name("leadboxer")), "sandbox", "--users", "5", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    with server.stdout:
        assert '"base_url"' in server.stdout.readline()
        server.terminate()
        assert server.wait(timeout=20) == 0


def test_the_sandbox_command_prints_the_lines_that_the_quickstart_shows() -> None:
    command = [str(Path(sys.executable).with_name("leadboxer")), "sandbox", "--users", "5", "--rate-limit", "10/second"]
    shown = re.findall(r"^export .*$", (ROOT / "docs" / "quickstart.md").read_text(), re.MULTILINE)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    with server.stdout:
        told = [server.stdout.readline().strip() for _ in shown]
        server.terminate()
        assert server.wait(timeout=20) == 0
    assert [re.sub(r":\d+/v1", ":8080/v1", line) for line in told] == shown


def test_the_sandbox_command_tells_a_taken_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [str(Path(sys.executable).with_name("leadboxer")), "sandbox", "--users", "5", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    told = f"leadboxer sandbox: Port {port} cannot be had: another program listens there; name another.\n"
    assert done.stderr == told
