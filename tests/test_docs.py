"""README and docs are true: every block that can be run is run, every link leads somewhere.

`sh`, `python` and `sql` blocks run in a folder that looks like a clone of the repository: with a loaded database, and
configured by the environment to a small sandbox. `toml` blocks must be settings that the source takes. A block that
cannot be run here, such as one that needs credentials of a cloud, has to be in one of the languages of `SHOWN`.

The shell finds `leadboxer`, `python` and a few tools; nothing else is on its PATH. `make` and `pip` only look whether
the targets and extras that they are given exist: the tests of the package run in what they have made.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest
import tomlkit

from docs.tools import configuration
from leadboxer_source import leadboxer_source
from leadboxer_source.cli import COMMANDS
from leadboxer_source.sandbox import Sandbox, World

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = {"text", "json", "mermaid", "yaml"}
"""Languages of blocks that are there to be read."""

SUBSTITUTIONS = {
    "USER_ID_OR_EMAIL": "{user_id}",
    "USER_ID": "{user_id}",
    "1783024862163.757717719": "{user_id}",
    "EMAIL": "{email}",
    "0123456789abcdef0123456789abcdef": "{site}",
    "fedcba9876543210fedcba9876543210": "{site}",
    "http://127.0.0.1:8080/v1": "{base_url}",
}
"""What stands in the pages for something that a reader fills in, and what the sandbox has in its place."""

FRAGMENT_BEGINS = """\
import dlt
from leadboxer_source import leadboxer_source, sync

pipeline = dlt.pipeline("leadboxer", destination="duckdb", dataset_name="leadboxer_data")
"""
"""What comes before a piece of Python that does not import dlt itself: the usual pipeline."""

TOOLS = ("cat", "cp", "ls", "mkdir", "mv", "rm", "sleep", "test")
CLONE = ("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "leadboxer_source", "pipelines", "pyproject.toml")
CHECK_MAKE = """\
for word in "$@"; do
    case "$word" in *=*|{targets}) ;; *) echo "make has no target $word" >&2; exit 2 ;; esac
done
"""
CHECK_PIP = """\
for word in "$@"; do
    case "$word" in .\\[*\\]|leadboxer-source\\[*\\]) ;; *) continue ;; esac
    extras=${{word#*\\[}}
    for extra in $(echo "${{extras%\\]}}" | tr , ' '); do
        case "$extra" in {extras}) ;; *) echo "there is no extra $extra" >&2; exit 2 ;; esac
    done
done
"""
PYTHON = """\
case "$1 $2" in
    "-m venv") ;;
    "-m pip") shift 2; exec pip "$@" ;;
    *) exec {python} "$@" ;;
esac
"""
# a sandbox serves until it is stopped: it is stopped once it says that it serves
LEADBOXER = """\
[ "$1" = sandbox ] || exec {leadboxer} "$@"
{leadboxer} "$@" --port 0 > told & server=$!
while [ ! -s told ] && kill -0 $server; do sleep 0.1; done
kill $server
wait $server
"""


class Block(NamedTuple):
    """A fenced block: where it stands, its language, and what is in it."""

    place: str
    language: str
    text: str


def blocks() -> list[Block]:
    """Every block of every page; what stands in several places counts once."""
    found: dict[tuple[str, str], Block] = {}
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```(\w*).*\n((?s:.*?))^```$", text, re.MULTILINE):
            place = f"{page.name}:{text[: match.start()].count(chr(10)) + 1}"
            found.setdefault((match[1], match[2]), Block(place, match[1], match[2]))
    return list(found.values())


def of_language(*languages: str) -> pytest.MarkDecorator:
    """Parametrizes a test with the blocks of some languages."""
    chosen = [block for block in blocks() if block.language in languages]
    return pytest.mark.parametrize("block", chosen, ids=[f"{block.place}-{block.language}" for block in chosen])


class Clone:
    """A folder to run blocks in; each block finds it as it was after the first load."""

    def __init__(self, home: Path, server: Sandbox, site: str) -> None:
        self.folder = home / "clone"
        self._kept, self._bin = home / "kept", home / "bin"
        self._environment = {
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
            "PATH": str(self._bin),
            "HOME": str(home),
            "DLT_DATA_DIR": str(self.folder / "dlt"),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "ERROR",
            "SOURCES__LEADBOXER__SITE": site,
            "SOURCES__LEADBOXER__API_KEY": server.key,
            "SOURCES__LEADBOXER__BASE_URL": server.url,
            "SOURCES__LEADBOXER__RATE_LIMIT": "unlimited",
            "SOURCES__LEADBOXER__LIMITER_STORE": ":memory:",
        }
        self._make_programs()
        self.folder.mkdir()
        for name in CLONE:
            (self.folder / name).symlink_to(ROOT / name)
        (self.folder / ".dlt").mkdir()
        shutil.copy(ROOT / ".dlt" / "example.secrets.toml", self.folder / ".dlt")
        (self.folder / ".venv").mkdir()
        (self.folder / ".venv" / "bin").symlink_to(self._bin)
        (world,) = server.worlds.values()
        [session, *_] = world.session_records(world.user_ids()[0]) or []
        server.faults.poison(session["session_id"], "400")  # so that there is a table of failures
        self.run("sh", "leadboxer sync")
        server.faults.heal(session["session_id"])
        to_files = "leadboxer sync --destination filesystem --file-format parquet"
        self.run("sh", f"DESTINATION__FILESYSTEM__BUCKET_URL=lake {to_files}")
        with duckdb.connect(str(self.folder / "leadboxer.duckdb"), read_only=True) as connection:
            known = connection.execute(
                "SELECT user_id, email FROM leadboxer_data.users ORDER BY email NULLS LAST LIMIT 1"
            ).fetchone()
        assert known is not None
        self._known = {"user_id": known[0], "email": known[1], "site": site, "base_url": server.url}
        shutil.copytree(self.folder, self._kept, symlinks=True)

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._kept, self.folder, symlinks=True)

    def filled_in(self, text: str) -> str:
        for placeholder, value in SUBSTITUTIONS.items():
            text = re.sub(rf"\b{re.escape(placeholder)}\b", value.format(**self._known), text)
        return text

    def run(self, language: str, text: str) -> None:
        """Runs a script; it must end well."""
        command = {"sh": ["/bin/sh", "-eu", "-c", text], "python": [sys.executable, "-c", text]}[language]
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=250,
            check=False,
        )
        assert ended.returncode == 0, f"{text}\n{ended.stdout}"

    def _make_programs(self) -> None:
        self._bin.mkdir()
        for name in (*TOOLS, "tr"):
            (self._bin / name).symlink_to(shutil.which(name) or name)
        targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
        extras = tomlkit.parse((ROOT / "pyproject.toml").read_text()).unwrap()["project"]["optional-dependencies"]
        beside = Path(sys.executable).with_name
        for name, script in {
            "make": CHECK_MAKE.format(targets="|".join(targets)),
            "pip": CHECK_PIP.format(extras="|".join(extras)),
            "python": PYTHON.format(python=sys.executable),
            "leadboxer": LEADBOXER.format(leadboxer=beside("leadboxer")),
        }.items():
            (self._bin / name).write_text(f"#!/bin/sh\n{script}")
            (self._bin / name).chmod(0o755)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    world = World(
        seed=5, users=6, days=20, now_ms=int(time.time() * 1000), sessions_per_user=1.0, events_per_session=2.0
    )
    with Sandbox(world, rate_limit=None) as server:
        yield Clone(tmp_path_factory.mktemp("docs"), server, world.site)


def test_every_block_is_in_a_language_that_is_run_or_only_shown() -> None:
    told = {"sh", "python", "sql", "toml", *SHOWN}
    assert not [block.place for block in blocks() if block.language not in told]


@of_language("sh", "python")
def test_it_runs(block: Block, clone: Clone) -> None:
    clone.restore()
    is_fragment = block.language == "python" and "import dlt" not in block.text
    clone.run(block.language, (FRAGMENT_BEGINS if is_fragment else "") + clone.filled_in(block.text))


@of_language("sql")
def test_it_can_be_asked(block: Block, clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.restore()
    monkeypatch.chdir(clone.folder)
    with duckdb.connect("leadboxer.duckdb") as connection:
        connection.execute(clone.filled_in(block.text))


@of_language("toml")
def test_it_is_configuration(block: Block) -> None:
    given = tomlkit.parse(block.text).unwrap().get("sources", {}).get("leadboxer", {})
    assert set(given) <= set(inspect.signature(leadboxer_source).parameters)
    account = {"site": "0123456789abcdef0123456789abcdef", "api_key": "a-key", "hash_key": "0123456789abcdef"}
    leadboxer_source(**{**given, **account})


def headings(page: Path) -> set[str]:
    """What a link can lead to within a page."""
    lines = re.findall(r"^#+ (.+)$", re.sub(r"(?ms)^```.*?^```$", "", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", line).strip().lower().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"(?ms)^```.*?^```$|`[^`\n]+`", "", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        assert not anchor or anchor in headings(linked), target


def test_every_command_is_told() -> None:
    page = configuration.PAGE.read_text()
    assert not [name for name in COMMANDS if f"| `leadboxer {name}` |" not in page]


def test_the_table_of_settings_is_that_of_the_source() -> None:
    page = configuration.PAGE.read_text()
    assert configuration.with_table(page) == page, "run docs/tools/configuration.py"


@pytest.mark.parametrize("page", [page.name for page in PAGES[1:] if page.name != "index.md"])
def test_every_page_can_be_found(page: str) -> None:
    for list_of_pages in ("mkdocs.yml", "docs/index.md", "README.md"):
        assert page in (ROOT / list_of_pages).read_text(), list_of_pages
