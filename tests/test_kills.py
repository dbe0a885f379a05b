"""SIGKILL at each step of a slice: nothing is lost, nothing is doubled, and at most that slice is repeated."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import dlt
import pytest

from leadboxer_source import Report, leadboxer_source
from leadboxer_source.sandbox import Sandbox, World
from tests.conftest import NOW_MS
from tests.oracle import HandClock, InMemory, Oracle, Rows, Site
from tests.oracle_dlt import rows_in

# dlt 1.31 tells so through a method of the logger that Python deprecates that it found a package of an earlier run
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")

CHILD = """
import functools, importlib, itertools, os, signal, sys
folder, destination, address, dataset, url, site, key, module, owner, name, when, nth = sys.argv[1:]
import dlt
from leadboxer_source import leadboxer_source

holder = functools.reduce(getattr, filter(None, owner.split(".")), importlib.import_module(module))
original, numbers = getattr(holder, name), itertools.count(1)

def hooked(*arguments, **more):
    number = next(numbers)
    if when == "before" and number == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **more)
    if when == "after" and number == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(holder, name, hooked)
made = getattr(dlt.destinations, destination)(address)
pipeline = dlt.pipeline("kills", destination=made, dataset_name=dataset, pipelines_dir=folder)
pipeline.run(leadboxer_source(
    site, key, base_url=url, rate_limit="unlimited", limiter_store=":memory:", max_requests=16, chunk_size=2,
))
"""

STEPS = {
    "before a page": ("leadboxer_source.client", "Client", "page", "before", 1),
    "after a page": ("leadboxer_source.client", "Client", "page", "after", 1),
    "before a request for sessions": ("leadboxer_source.client", "Client", "sessions", "before", 2),
    "after a request for events": ("leadboxer_source.client", "Client", "events", "after", 3),
    "between yield and claim": ("leadboxer_source.slice", "Slice", "memories", "before", 1),
    "after the claim, in extract": ("leadboxer_source.slices", "", "record", "after", 4),
    "extracted, before normalize": ("dlt.pipeline.pipeline", "Pipeline", "normalize", "before", 1),
    "in normalize": ("dlt.normalize.normalize", "Normalize", "map_single", "after", 1),
    "normalized, before load": ("dlt.pipeline.pipeline", "Pipeline", "load", "before", 1),
    "in load, a file loaded and not marked": (
        "dlt.common.destination.client",
        "RunnableLoadJob",
        "run_managed",
        "after",
        2,
    ),
    "in load, before the merge": ("dlt.load.load", "Load", "create_followup_jobs", "before", 1),
    "loaded, before it is marked": ("dlt.load.load", "Load", "complete_package", "before", 1),
    "loaded and marked": ("dlt.load.load", "Load", "complete_package", "after", 1),
}


class Case:
    """A dataset, its server, and a destination."""

    def __init__(self, folder: Path, destination: str, address: str) -> None:
        clock = HandClock(NOW_MS / 1000)
        self.world = World(seed=5, users=10, days=3, now_ms=NOW_MS)
        self.server = Sandbox(self.world, rate_limit=None, clock=clock.time)
        self.server.start()
        self.place = (str(folder / "pipelines"), destination, address, f"kills_{uuid4().hex[:8]}")
        self.oracle = Oracle(Site(clock, self.world, self.server), InMemory(self.server, self.world.site, clock))

    @property
    def pipeline(self) -> dlt.Pipeline:
        folder, destination, address, dataset = self.place
        made = getattr(dlt.destinations, destination)(address)
        return dlt.pipeline("kills", destination=made, dataset_name=dataset, pipelines_dir=folder)

    def run(self, max_requests: int | None = None) -> Report | None:
        """One run in this process; `None` if it only loaded what was left over."""
        reports: list[Report] = []
        source = leadboxer_source(
            self.world.site,
            self.server.key,
            base_url=self.server.url,
            rate_limit="unlimited",
            limiter_store=":memory:",
            max_requests=max_requests,
            chunk_size=2,
            watch=reports.append,
        )
        self.pipeline.run(source)
        return reports[-1] if reports else None

    def run_killed(self, step: tuple[Any, ...]) -> None:
        """One run in a process that kills itself at the step."""
        place = [*self.place, self.server.url, self.world.site, self.server.key]
        child = subprocess.run(
            [sys.executable, "-c", CHILD, *place, *map(str, step)], capture_output=True, check=False, timeout=120
        )
        assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-2_000:]

    def asked(self) -> Counter[str]:
        """Parents asked for since the last look, and how often."""
        found = Counter(
            request.params.get("leadId") or request.params["sessionId"]
            for request in self.server.requests
            if request.endpoint in {"sessions", "events"}
        )
        self.server.clear_requests()
        return found


def assert_kill_costs_a_slice_at_most(case: Case, step: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    first = case.run(max_requests=8)
    assert first is not None
    assert not first.complete
    kept, asked_before = rows_in(case.pipeline), case.asked()
    case.run_killed(step)
    asked_in_vain = case.asked()
    for _ in range(6):
        report = case.run()
        if report is not None and report.complete:
            break
    asked_again = case.asked()
    rows = rows_in(case.pipeline)
    monkeypatch.setattr(case.oracle.loader, "rows", lambda: rows)
    case.oracle.assert_equal_to_truth(None)
    assert_holds(rows, kept)
    # first visits have the id of their user: asked once for sessions, once for events
    repeated = {parent_id for parent_id in asked_again if asked_before[parent_id]}
    assert not repeated, "what the slice before had loaded is not asked for again"
    assert set(asked_in_vain) <= set(asked_again) | set(rows.sessions) | set(rows.users)


def assert_holds(rows: Rows, kept: Rows) -> None:
    assert set(kept.users) <= set(rows.users)
    assert set(kept.sessions) <= set(rows.sessions)
    assert all(rows.events[session_id] == events for session_id, events in kept.events.items())


@pytest.fixture
def on_duckdb(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path, "duckdb", str(tmp_path / "kills.duckdb"))
    yield made
    made.server.stop()


@pytest.fixture
def on_postgres(tmp_path: Path, postgres: str) -> Iterator[Case]:
    # dlt insists on a password, which the server does not ask for
    made = Case(tmp_path, "postgres", postgres.replace("@", ":any@"))
    yield made
    made.server.stop()


OFTEN = {"between yield and claim", "loaded, before it is marked"}
"""Steps that are tried in every run of the tests; a process for each takes some seconds."""


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step in OFTEN else [pytest.mark.slow]) for step in STEPS]
)
def test_killed_on_duckdb(step: str, on_duckdb: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_kill_costs_a_slice_at_most(on_duckdb, STEPS[step], monkeypatch)


@pytest.mark.servers
@pytest.mark.parametrize("step", STEPS)
def test_killed_on_postgres(step: str, on_postgres: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_kill_costs_a_slice_at_most(on_postgres, STEPS[step], monkeypatch)
