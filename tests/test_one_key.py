"""Several processes use one key: together they keep to its limit, none starves, and none gets in another's way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from leadboxer_source.cli import main
from leadboxer_source.clock import SystemClock
from leadboxer_source.errors import ConfigurationInvalid, LimiterUnavailable
from leadboxer_source.pace import Pace
from leadboxer_source.sandbox import Sandbox, World
from leadboxer_source.settings import RateLimit, Settings
from leadboxer_source.stores import store_of
from tests.conftest import Desk
from tests.servers import free_port

COMMAND = str(Path(sys.executable).with_name("leadboxer"))
STORES = [
    "file",
    pytest.param("redis", marks=pytest.mark.servers),
    pytest.param("postgres", marks=pytest.mark.servers),
]


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where processes share a budget."""
    if request.param == "file":
        return str(tmp_path / "limit.sqlite")
    address: str = request.getfixturevalue(request.param)
    return address


class WrongClock(SystemClock):
    """The clock of a machine that is wrong."""

    def __init__(self, wrong_by_s: float) -> None:
        self._wrong_by_s = wrong_by_s

    def time(self) -> float:
        return time.time() + self._wrong_by_s


def paces(store: str, account: str, clocks: list[SystemClock], rate: RateLimit) -> list[Pace]:
    place = store_of(Settings(site="", api_key=account, limiter_store=store))
    return [Pace(rate, clock, threading.Event(), place, "events") for clock in clocks]


@pytest.mark.parametrize("store", STORES, indirect=True)
def test_two_limiters_on_one_store_keep_to_the_limit_whatever_their_clocks_say(store: str) -> None:
    rate, slots = RateLimit(12, 2.0), 48
    # on one machine there is one clock; those of two machines differ
    wrong = [0.0, 0.0] if "://" not in store else [-30.0, 45.0]
    both = paces(store, "one", [WrongClock(seconds) for seconds in wrong], rate)
    granted: list[tuple[float, int]] = []
    taking = threading.Lock()

    def take(number: int) -> None:
        while len(granted) < slots:
            both[number].acquire()
            with taking:
                granted.append((time.monotonic(), number))

    threads = [threading.Thread(target=take, args=(number,)) for number in (0, 1) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for pace in both:
        pace.close()
    times = sorted(at for at, _ in granted)
    # half a second for the way from the stamp to this list
    assert all(later - first > rate.period_seconds - 0.5 for first, later in zip(times, times[12:], strict=False))
    assert times[slots - 1] - times[0] < slots / 12 * rate.period_seconds * 2, "the limit is used"
    assert min(Counter(number for _, number in granted).values()) > slots / 6, "none starves"


@pytest.mark.parametrize("store", STORES, indirect=True)
def test_accounts_and_endpoints_do_not_share_a_budget(store: str) -> None:
    rate = RateLimit(2, 60.0)
    for account in ("two", "three"):
        (pace,) = paces(store, account, [SystemClock()], rate)
        assert [pace.acquire() < 1 for _ in range(2)] == [True, True]
        pace.close()
    (again,) = paces(store, "two", [SystemClock()], rate)
    again._stop.set()
    with pytest.raises(Exception, match="ended before"):
        again.acquire()
    again.close()


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
def test_a_store_that_does_not_answer_ends_the_run_and_its_password_is_not_told(
    desk: Desk, scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("leadboxer_source.stores._ANSWER_SECONDS", 1.0)
    address = f"{scheme}://loader:secret-password@127.0.0.1:{free_port()}/0"
    with pytest.raises(Exception, match=r"limiter_store at 127\.0\.0\.1") as raised:
        desk.load(rate_limit="10/minute", limiter_store=address)
    causes: list[BaseException] = [raised.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert isinstance(causes[-1], LimiterUnavailable)
    assert "secret-password" not in " ".join(map(str, causes))
    assert not [record for record in caplog.records if record.name.startswith(("psycopg", "redis"))]
    assert not desk.server.requests
    assert "secret-password" not in repr(Settings(site="", api_key="", limiter_store=address))


def test_another_kind_of_store_is_refused_when_the_source_is_built(desk: Desk) -> None:
    with pytest.raises(ConfigurationInvalid, match="redis://"):
        desk.source(limiter_store="mysql://127.0.0.1/x")


def environment(server: Sandbox, site: str, **more: str) -> dict[str, str]:
    given = {"SITE": site, "API_KEY": server.key, "BASE_URL": server.url, **more}
    return {**os.environ, **{f"SOURCES__LEADBOXER__{name}": value for name, value in given.items()}}


@pytest.mark.parametrize(
    "store",
    [
        pytest.param("file", marks=pytest.mark.slow),
        pytest.param("redis", marks=pytest.mark.servers),
    ],
    indirect=True,
)
def test_four_processes_on_one_key_keep_to_its_limit_and_none_starves(store: str, tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    worlds = [World(seed=number, users=17, days=9, now_ms=now_ms, site=f"{number}" * 32) for number in range(1, 5)]
    with Sandbox(worlds, rate_limit="60/minute") as server:
        loads = [
            subprocess.Popen(
                [COMMAND, "sync", "--db", str(tmp_path / f"{number}.duckdb"), "--rate-limit", "60/minute", "--json"],
                env=environment(server, world.site, LIMITER_STORE=store),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number, world in enumerate(worlds)
        ]
        ended = [load.communicate(timeout=280) for load in loads]
    assert [load.returncode for load in loads] == [0] * 4, ended
    assert {request.status for request in server.requests} == {200}, "nobody was refused"
    events = sorted((request.at, request.params["site"]) for request in server.requests if request.endpoint == "events")
    assert len(events) == sum(len(world.truth().sessions) for world in worlds)
    assert len(events) > 120, "too few to be in each other's way"
    assert all(later[0] - first[0] > 60 for first, later in zip(events, events[60:], strict=False))
    # the first minute's requests went to whoever had started first; in the second all are there
    share, owed = Counter(site for _, site in events[60:120]), Counter(site for _, site in events[60:])
    assert all(share[site] >= min(5, owed[site]) for site in owed), share


def test_a_second_process_on_the_same_pipeline_is_refused_until_the_first_is_gone(
    desk: Desk, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ["sync", "--db", str(desk.folder / "desk.duckdb"), "--dataset", "lb"]
    told = environment(desk.server, desk.world.site)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    command = [COMMAND, *place, "--rate-limit", "1/minute"]
    with subprocess.Popen(command, env=told, stderr=subprocess.DEVNULL) as first:
        try:
            seen, deadline = -1, time.monotonic() + 60
            while seen != len(desk.server.requests) or not seen:  # until the first one waits for its quota
                seen = len(desk.server.requests)
                time.sleep(2)
                assert time.monotonic() < deadline
            assert main([*place, "--rate-limit", "unlimited"]) == 1
            assert "Another process is at work with the pipeline leadboxer_" in capfd.readouterr().err
            assert len(desk.server.requests) == seen
        finally:
            first.kill()
    assert main([*place, "--rate-limit", "unlimited"]) == 0
    desk.assert_equal_to_truth()
