"""A desk to load from: a sandbox, a clock that jumps, and a warehouse, which is a DuckDB unless told otherwise."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.configuration.container import Container
from dlt.common.pipeline import PipelineContext
from hypothesis import HealthCheck, settings

from leadboxer_source import Report, SyncResult, leadboxer_source, sync
from leadboxer_source.rows import as_text
from leadboxer_source.sandbox import Faults, Profile, Sandbox, World
from leadboxer_source.sync import RESOURCES
from tests import destinations, servers
from tests.destinations import Warehouse

NOW_MS = 1_795_000_000_000
"""2026-11-18 11:06:40 UTC."""


# the same examples every time, however busy the machine is
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


class JumpingClock:
    """Virtual time. It stands still while anybody is at work, and jumps to the next who wants to wake up."""

    _IDLE_S = 0.03

    def __init__(self, now_s: float = NOW_MS / 1000) -> None:
        self._now_s = now_s
        self._looks = 0
        self._sleepers: list[float] = []
        self._changed = threading.Condition()

    def time(self) -> float:
        with self._changed:
            self._looks += 1
            return self._now_s

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        with self._changed:
            until = self._now_s + seconds
            self._sleepers.append(until)
            while self._now_s < until and not stop.is_set():
                looks = self._looks
                self._changed.wait(self._IDLE_S)
                if looks == self._looks and until == min(self._sleepers):
                    self._now_s = max(self._now_s, until)
                    self._changed.notify_all()
            self._sleepers.remove(until)
            self._looks += 1

    def advance(self, seconds: float) -> None:
        with self._changed:
            self._now_s += seconds
            self._changed.notify_all()


class SkewedClock:
    """The same time, read off a clock that is wrong."""

    def __init__(self, clock: JumpingClock, wrong_by_s: float) -> None:
        self._clock, self._wrong_by_s = clock, wrong_by_s

    def time(self) -> float:
        return self._clock.time() + self._wrong_by_s

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        self._clock.sleep(seconds, stop)


class Desk:
    """Loads a world through a server, and knows what should have come of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warehouse = destinations.duckdb_file(folder)
        self.dataset = "lb"
        self.clock = JumpingClock()
        self.world = World(seed=5, users=40, days=20, now_ms=NOW_MS)
        self.server = Sandbox(self.world, rate_limit=None, clock=self.clock.time)
        self.reports: list[Report] = []

    @property
    def now_ms(self) -> int:
        return int(self.clock.time() * 1000)

    def with_world(self, world: World, **server: Any) -> Desk:
        """Serves another world."""
        self.server.stop()
        self.world = world
        self.server = Sandbox(world, **{"rate_limit": None, "clock": self.clock.time, **server})
        self.server.start()
        return self

    def loading_to(self, warehouse: Warehouse, dataset: str) -> Desk:
        """Loads to another place."""
        self.warehouse, self.dataset = warehouse, dataset
        return self

    def reading(self, **switches: Any) -> Desk:
        """Sets switches of the API's profile."""
        self.server.profile = Profile(**switches)
        return self

    def source(self, **settings: Any) -> Any:
        """A source on the sandbox."""
        given = {
            "site": self.world.site,
            "api_key": self.server.key,
            "base_url": self.server.url,
            "rate_limit": "unlimited",
            "max_minutes": None,
            "limiter_store": ":memory:",
            "clock": self.clock,
            "watch": self._watch,
        }
        return leadboxer_source(**{**given, **settings})

    def configure(self, patch: pytest.MonkeyPatch, **more: str) -> None:
        """Puts the account, and more settings, into the environment."""
        account = {"site": self.world.site, "api_key": self.server.key, "base_url": self.server.url}
        for name, value in {**account, **more}.items():
            patch.setenv(f"SOURCES__LEADBOXER__{name.upper()}", value)

    def pipeline(self, name: str = "desk", dataset: str | None = None) -> dlt.Pipeline:
        return dlt.pipeline(
            name,
            destination=self.warehouse.destination,
            dataset_name=dataset or self.dataset,
            pipelines_dir=str(self.folder / "pipelines"),
        )

    def load(self, only: tuple[str, ...] = RESOURCES, pipeline: dlt.Pipeline | None = None, **settings: Any) -> Report:
        """One run; forgets the requests before it."""
        self.server.clear_requests()
        self.warehouse.hold()
        (pipeline or self.pipeline()).run(self.source(**settings).with_resources(*only), **self.warehouse.run)
        return self.reports[-1]

    def sync(self, **settings: Any) -> tuple[SyncResult, float]:
        """Slices on the sandbox until all is covered; returns how they went and how many seconds they took."""
        began = self.clock.time()
        result = sync(
            self.pipeline(),
            site=self.world.site,
            api_key=self.server.key,
            base_url=self.server.url,
            limiter_store=":memory:",
            clock=self.clock,
            **settings,
        )
        return result, self.clock.time() - began

    def load_until_done(self, most: int = 60, **settings: Any) -> int:
        """Runs until all is covered; returns how many runs it took."""
        for runs in range(1, most + 1):
            if self.load(**settings).complete:
                return runs
        raise AssertionError("it never ended")

    def requests(self) -> Counter[str]:
        """Requests since the last load began, by endpoint."""
        return Counter(request.endpoint for request in self.server.requests)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.warehouse.read(self.pipeline, self.dataset, sql)

    def state(self, resource: str = "users") -> Any:
        return self.pipeline().state["sources"]["leadboxer"]["resources"][resource]["coverage"]

    def _watch(self, report: Report) -> None:
        if report.stopped:
            self.reports.append(report)

    def assert_equal_to_truth(self) -> None:
        """Every user, session and event once, every session with its present owner, no property lost."""
        truth, epoch_ms = self.world.truth(), self.warehouse.epoch_ms
        users = dict(self.rows(f"SELECT user_id, {epoch_ms.format('last_event_at')} FROM users"))
        wanted = {record["use_id"]: record["lastEvent"] for record in truth.users}
        assert {user: users.get(user) for user in wanted} == wanted
        assert set(users) - set(wanted) <= set(self.world.merged), "only those who were merged away may be left over"
        assert self.rows("SELECT count(*) FROM users") == [(len(users),)]
        sessions = Counter(self.rows("SELECT session_id, user_id FROM sessions"))
        assert sessions == Counter((record["session_id"], record["use_id"]) for record in truth.sessions)
        events = Counter(
            self.rows(f"SELECT session_id, event_id, {epoch_ms.format('occurred_at')}, title, original_url FROM events")
        )
        assert events == Counter(
            (r["session_id"], r["event_id"], int(r["eventUnixTimestamp"]), r.get("title"), r.get("original_url"))
            for r in truth.events
        )
        assert self.rows("SELECT count(*) - count(DISTINCT event_key) FROM events") == [(0,)]
        loaded = Counter(self.rows("SELECT session_id, name, value FROM properties"))
        assert loaded == Counter(
            (record["session_id"], name, as_text(value))
            for record in truth.events
            for name, value in properties_of(record).items()
        )


KNOWN = frozenset(
    [
        "event_id",
        "session_id",
        "use_id",
        "site",
        "type",
        "eventEsTimestamp",
        "eventUnixTimestamp",
        "original_url",
        "root_url",
        "title",
        "referrer",
        "browser",
        "country_code",
        "country_name",
        "city",
        "most_likely_company",
        "email",
        "total_number_visits",
        "customEventInfo",
    ]
)


def properties_of(event: dict[str, Any]) -> dict[str, Any]:
    """The properties that an event of the sandbox carries."""
    info = {f"customEventInfo.{name}": value for name, value in event.get("customEventInfo", {}).items()}
    return {**info, **{name: value for name, value in event.items() if name not in KNOWN}}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's configuration or of another test gets in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("RUNTIME__LOG_LEVEL", "ERROR")
    # dlt's logger keeps the level that a test before this one asked for
    logging.getLogger("dlt").setLevel(logging.ERROR)
    # dlt gives the state of the pipeline that was last active to whoever iterates a resource by hand
    Container()[PipelineContext].deactivate()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server."""
    with servers.postgres() as address:
        yield address


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """The address of a Redis server."""
    with servers.redis() as address:
        yield address


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.server.start()
    yield made
    made.server.stop()
    destinations.let_go()


@pytest.fixture
def loaded(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The desk's world is loaded: once by a load, then by a copy of what it left behind."""
    kept = tmp_path_factory.getbasetemp() / "loaded"
    if kept.exists():
        shutil.copytree(kept, desk.folder, dirs_exist_ok=True)
    else:
        assert desk.load().complete
        destinations.let_go()
        shutil.copytree(desk.folder, kept)
        desk.server.clear_requests()
        desk.reports.clear()


__all__ = ["NOW_MS", "Desk", "Faults", "JumpingClock", "Profile", "Sandbox", "SkewedClock", "World"]
