"""What is shipped: the same bytes from the same source, with no more than it names, and a key that goes nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from leadboxer_source.sandbox import Sandbox
from tests.conftest import Desk
from tests.test_package import ROOT


def build(folder: Path, modified: int) -> Path:
    """Builds the wheel from a copy of the source whose files have another age."""
    source = folder / "source"
    shutil.copytree(
        ROOT / "leadboxer_source", source / "leadboxer_source", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for path in source.rglob("*"):
        os.utime(path, (modified, modified))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        check=True,
        capture_output=True,
    )
    (wheel,) = (folder / "dist").iterdir()
    return wheel


def test_the_wheel_is_the_same_bytes_whenever_and_wherever_it_is_built(tmp_path: Path) -> None:
    wheels = [
        build(tmp_path / name, modified) for name, modified in (("a", 1_600_000_000), ("elsewhere", 1_790_000_000))
    ]
    assert wheels[0].name == wheels[1].name
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
    assert "leadboxer_source/py.typed" in names
    assert not [name for name in names if not name.startswith(("leadboxer_source/", "leadboxer_source-"))]


def required(name: str, extras: frozenset[str] = frozenset()) -> Iterator[Distribution]:
    """A distribution and all that it requires, with the extras that are asked for and no other."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, extras)]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found = distribution(name)
        yield found
        for requirement in map(Requirement, found.requires or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((requirement.name, frozenset(requirement.extras)))


@pytest.fixture
def bare(tmp_path: Path) -> list[str]:
    """A Python that has the wheel and what it requires, and nothing else."""
    site = tmp_path / "site"
    site.mkdir()
    with zipfile.ZipFile(build(tmp_path / "build", 1_700_000_000)) as wheel:
        wheel.extractall(site)
    for found in required("leadboxer-source"):
        if found.name == "leadboxer-source":
            continue
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in {"..", "__pycache__"}}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))))
    prelude = f"import sys; sys.path.append({str(site)!r}); from leadboxer_source.cli import main; "
    return [sys.executable, "-I", "-S", "-c", prelude + "sys.exit(main(sys.argv[1:]))"]


def test_the_wheel_alone_has_help_and_loads_files(desk: Desk, bare: list[str]) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*bare, *arguments], env=environment, capture_output=True, text=True, check=False)

    given = {"SITE": desk.world.site, "API_KEY": desk.server.key, "BASE_URL": desk.server.url}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COV")},
        **{f"SOURCES__LEADBOXER__{name}": value for name, value in given.items()},
        "DESTINATION__FILESYSTEM__BUCKET_URL": (desk.folder / "files").as_uri(),
    }
    helped = run("--help")
    assert "Loads a LeadBoxer dataset with dlt" in helped.stdout, helped.stderr
    loaded = run("sync", "--destination", "filesystem", "--dataset", "lb", "--rate-limit", "unlimited")
    assert loaded.returncode == 0, loaded.stderr
    for table in ("users", "sessions", "events", "properties"):
        assert list((desk.folder / "files" / "lb" / table).iterdir())
    assert "No module" not in loaded.stderr
    missing = run("sandbox", "--users", "3")
    assert (missing.returncode, "pip install '.[sandbox]' in a clone" in missing.stderr) == (4, True)


@pytest.fixture
def detour() -> Iterator[HTTPServer]:
    """A server that sends everybody elsewhere: to its attribute `target`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{self.server.target}{self.path}")  # type: ignore[attr-defined]  # set by a test
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_redirect_to_another_host_is_not_followed_with_the_key(desk: Desk, detour: HTTPServer) -> None:
    with Sandbox(desk.world, rate_limit=None) as elsewhere:
        detour.target = elsewhere.url.removesuffix("/v1")  # type: ignore[attr-defined]  # read by the handler
        with pytest.raises(Exception, match="redirects to another host"):
            desk.load(base_url=f"http://127.0.0.1:{detour.server_port}/v1")
        assert not elsewhere.requests, "another port is another host"


@pytest.mark.parametrize(
    "address", ["http://api.leadboxer.com/v1", "http://10.0.0.1/v1", "http://127.0.0.1.example.com/v1"]
)
def test_the_key_does_not_travel_in_the_clear(desk: Desk, address: str) -> None:
    with pytest.raises(Exception, match="must begin with https"):
        desk.source(base_url=address)


@pytest.mark.parametrize("address", ["http://localhost:1/v1", "http://127.0.0.2:1/v1", "http://[::1]:1/v1"])
def test_on_this_machine_it_may(desk: Desk, address: str) -> None:
    assert desk.source(base_url=address)
