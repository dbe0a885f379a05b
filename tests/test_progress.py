"""A person sees how a sync goes, a log stays alive, and a signal ends it with what was read."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from leadboxer_source import Report
from leadboxer_source.cli.picture import EMPTY, FULL, PART, STAGED, bar, lasting, legend, moment, percent
from leadboxer_source.cli.progress import Progress, describe, picture, stopping, waiting
from leadboxer_source.coverage import Stretch
from leadboxer_source.plan import Estimate, Plan
from leadboxer_source.sandbox import World
from tests.conftest import NOW_MS, Desk

DAY_MS = 86_400_000


def report(**told: object) -> Report:
    made = Report(since_ms=NOW_MS - 100 * DAY_MS, started_ms=NOW_MS - 600_000, scope="site")
    made.covered = [Stretch(NOW_MS - 60 * DAY_MS, NOW_MS - 10 * DAY_MS)]
    made.staged = [Stretch(NOW_MS - 5 * DAY_MS, NOW_MS)]
    made.handed, made.listed = 120, 480
    made.loaded, made.asked = {"sessions": 200, "events": 700}, {"sessions": 118, "events": 230}
    made.requests = {"leads": 3, "sessions": 100, "events": 221}
    made.owed, made.owed_seconds = {"sessions": 18, "events": 9}, 108.0
    for name, value in told.items():
        setattr(made, name, value)
    return made


def test_a_bar_is_full_only_where_all_is_covered() -> None:
    span = Stretch(0, 100)
    assert bar([Stretch(20, 45)], span, 10, [Stretch(60, 100)]) == EMPTY * 2 + FULL * 2 + PART + EMPTY + STAGED * 4
    assert bar([Stretch(20, 45)], span, 10, plain=True) == "..##+....."
    assert legend(plain=True) == "# loaded   + in part   . not loaded"
    assert bar([span], span, 7) == FULL * 7
    assert bar([], span, 7) == EMPTY * 7
    assert percent(0.99999) == "99.9 %"
    assert [lasting(seconds) for seconds in (40, 600, 12_000, 184_000, 1_209_600)] == [
        "40 s",
        "10 min",
        "3 h 20 min",
        "51 h",
        "14 days",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_picture_fits_a_terminal_of_80_columns(encoding: str) -> None:
    written = io.BytesIO()
    console = Console(width=80, force_terminal=True, file=io.TextIOWrapper(written, encoding), highlight=False)
    told = report(waiting_until=NOW_MS / 1000 + 41, set_aside=2, requests={"sessions": 1_234_567, "events": 12_345_678})
    console.print(picture(told, 1_234, NOW_MS / 1000, None, console))
    console.file.flush()
    lines = re.sub(r"\x1b\[[\d;]*m", "", written.getvalue().decode(encoding)).splitlines()
    assert max(map(len, lines)) <= 80
    assert re.match(r"about 2 h 20 min to go at the most, until \w", lines[0])
    assert lines[1].startswith("slice 1234: 102 of 480 users, 221 of 230 sessions, 700 events")
    assert "50.0 % of the time covered" in lines[3]
    assert re.search(r"waiting for quota until \d\d:\d\d:\d\d", lines[4])


def test_a_line_says_how_far_it_is_and_what_it_waits_for() -> None:
    line = describe(report(waiting_until=NOW_MS / 1000 + 41), 3, NOW_MS / 1000)
    assert re.match("slice 3: about .+ to go at the most, until .+, 102 of 480 users, 221 of 230 sessions, 700 ", line)
    assert ", 324 requests, waiting for quota until " in line
    assert line.endswith("50.0 % of the time covered, 5.0 % being read")
    assert "waiting" not in describe(report(), 3, NOW_MS / 1000)
    assert "to go" not in describe(report(stopped="minutes"), 3, NOW_MS / 1000)
    assert describe(report(stopped="closed"), 3, NOW_MS / 1000).endswith("324 requests, not kept")
    one = report(stopped="minutes", handed=1, owed={}, asked={"sessions": 1, "events": 1}, requests={"leads": 1})
    assert describe(one, 1, NOW_MS / 1000).startswith("slice 1: 1 user, 1 session, 700 events, 1 request, ")


def test_of_a_one_off_no_coverage_is_told_as_it_has_none(desk: Desk) -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    for stopped in ("", "covered"):
        told = report(covered=[], one_off=True, stopped=stopped)
        assert "of the time" not in describe(told, 1, NOW_MS / 1000)
        console.print(picture(told, 1, NOW_MS / 1000, None, console))
    assert "of the time" not in console.export_text()
    assert desk.load(start_date="2026-11-05", end_date="2026-11-10").one_off
    assert not desk.load(start_date="2026-11-05").one_off


def test_of_next_to_nothing_it_is_not_told_how_long_the_rest_takes() -> None:
    told = report(covered=[], owed={}, waiting_until=NOW_MS / 1000 + 41)
    for staged_ms in (45_000, DAY_MS // 20):
        told.staged = [Stretch(NOW_MS - staged_ms, NOW_MS)]
        for waited_hours in (1, 5):
            line = describe(told, 1, NOW_MS / 1000 + waited_hours * 3_600)
            assert "waiting for quota" in describe(told, 1, NOW_MS / 1000)
            assert "to go" not in line
    told.staged = [Stretch(NOW_MS - DAY_MS, NOW_MS)]
    assert "about 16 h to go at the most" in describe(told, 1, NOW_MS / 1000)
    assert "to go" not in describe(told, 1, NOW_MS / 1000 + 5 * DAY_MS / 1000), "nobody listed now is there so long"


def test_an_outage_is_told_while_requests_are_sent_again() -> None:
    failing = {"leads": "status 503", "events": "time-out"}
    line = describe(report(failing=failing, waiting_until=NOW_MS / 1000 + 41), 3, NOW_MS / 1000)
    assert "LeadBoxer does not answer (events: time-out, listing: status 503), trying again" in line
    assert "waiting" not in line
    assert "to go" not in line, "nobody knows"
    progress = Progress(console=Console(width=100, file=io.StringIO()))
    progress(report(failing=failing))
    assert "trying again" in _drawn(progress)
    assert "answer" not in describe(report(stopped="closed", failing=failing), 3, NOW_MS / 1000)


def planned(**told: Any) -> Plan:
    """100 users, and 300 visits of theirs, in each of the hundred days."""
    days = [Stretch(NOW_MS - (day + 1) * DAY_MS, NOW_MS - day * DAY_MS) for day in range(100)]
    guessed = Estimate("everything", "", 10_000, {"leads": 60, "sessions": 10_000, "events": 30_000}, 180_000.0)
    made = Plan(
        scope="site",
        made_ms=NOW_MS,
        since_ms=NOW_MS - 100 * DAY_MS,
        rate_limit=(10, 60.0),
        spent=10,
        estimates=[guessed],
        listed_users=0,
        listed_ms=0,
        span_ms=100 * DAY_MS,
        doubt=0.1,
        visits_told=True,
        hours_told=True,
        pieces=[(*day, 100.0, 300.0) for day in days],
    )
    return replace(made, **told)


def test_what_is_done_is_work_not_time() -> None:
    listed = [Stretch(NOW_MS - 100 * DAY_MS, NOW_MS)]
    reading = report(staged=listed, handed=480, asked={"sessions": 480, "events": 1_000})
    reading.owed, reading.owed_seconds = {"sessions": 0, "events": 800}, 4_800.0
    line = describe(reading, 1, NOW_MS / 1000)
    assert line.startswith("slice 1: 45.9 % done, about 80 min to go, until ")
    assert "480 of 480 users, 200 of 1,000 sessions" in line
    assert line.endswith("50.0 % of the time covered, 100 % being read")


def test_with_a_plan_the_whole_load_is_told_from_the_beginning() -> None:
    begun = report(covered=[], staged=[Stretch(NOW_MS - DAY_MS, NOW_MS)], handed=100)
    begun.asked, begun.owed = {"sessions": 100, "events": 240}, {"sessions": 20, "events": 100}
    line = describe(begun, 1, NOW_MS / 1000, planned())
    assert line.startswith("slice 1: 0.5 % done, about 50 h to go, until ")
    assert "80 of about 10,000 users, 140 of about 30,000 sessions" in line
    assert "80 of 480 users" in describe(begun, 1, NOW_MS / 1000, planned(scope="another"))
    assert "80 of 480 users" in describe(begun, 1, NOW_MS / 1000, planned(since_ms=NOW_MS - 366 * DAY_MS))


def test_when_it_is_stopped_it_says_once_until_when_it_finishes() -> None:
    shown, now = io.StringIO(), [NOW_MS / 1000]
    console = Console(width=200, file=shown, highlight=False)
    owed = report(owed={"sessions": 0, "events": 50}, owed_seconds=300.0)
    with Progress(console=console, now=lambda: now[0], line_seconds=100.0) as progress:
        progress(owed)
        progress.stopping()
        first = progress._told_stopping()
        now[0] += 120
        owed.owed, owed.owed_seconds = {"sessions": 0, "events": 40}, 240.0
        second = progress._told_stopping()
    assert first.startswith("Stopping: reading the 50 sessions that were begun, until about ")
    assert second == first.replace("50 sessions", "40 sessions"), "the time stays"
    assert "to go" not in describe(report(stopping=True), 1, now[0]), "that would be another time"
    assert stopping(report(stopped="asked"), now[0]).startswith("Stopping: keeping what was read.")


def test_a_slice_that_is_lost_is_not_told_to_be_kept() -> None:
    console = Console(width=100, force_terminal=True, file=io.StringIO(), highlight=False)
    with Progress(console=console, now=lambda: NOW_MS / 1000) as progress:
        progress(report())
        progress.stopping()
        assert "Stopping: reading" in _drawn(progress)
        progress(report(stopped="closed"))
        assert "this slice is not kept" in _drawn(progress)
        assert "Stopping:" not in _drawn(progress)


def _drawn(progress: Progress) -> str:
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(progress._picture())
    return captured.get()


def test_under_ci_lines_come_although_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    shown = io.StringIO()
    console = Console(width=80, force_terminal=True, file=shown, highlight=False)
    with Progress(console=console, now=lambda: NOW_MS / 1000, line_seconds=0.1) as progress:
        progress(report())
        _wait(lambda: shown.getvalue().count("\n") >= 4)
        progress.stopping()
        _wait(lambda: "Ctrl-C again" in shown.getvalue())
    assert "\x1b[2K" not in shown.getvalue()


def test_no_line_is_repeated_as_it_was() -> None:
    shown, now = io.StringIO(), [NOW_MS / 1000]
    console = Console(width=300, file=shown, highlight=False)
    reading = report(waiting_until=now[0] + 71)

    def says(text: str) -> None:
        _wait(lambda: text in shown.getvalue())

    with Progress(console=console, now=lambda: now[0], line_seconds=0.1) as progress:
        says("starting\n")
        now[0] += 30
        says("\nstill starting, for 30 s\n")
        progress(reading)
        says(" (41 s), 50.0 % of the time covered")
        now[0] += 30
        says(" (11 s), 50.0 % of the time covered")
        reading.stopped = "minutes"
        progress(reading)
        now[0] += 30
        says("\nstill loading what was read, for 30 s\n")


def test_a_listing_that_waits_for_quota_says_so(desk: Desk) -> None:
    desk.with_world(World(seed=5, users=60, days=1, now_ms=NOW_MS), rate_limit="2/minute").reading(max_limit=10)
    waits = []

    def watch(told: Report) -> None:
        if not told.asked and told.waiting_until > desk.clock.time() + 1:
            waits.append(told.waiting_until)

    desk.pipeline().run(desk.source(rate_limit="2/minute", watch=watch, max_requests=1, chunk_size=1))
    assert len(waits) >= 2, "nobody polls the head while it lists"


@pytest.mark.parametrize(("endpoint", "times"), [("leads", 2), ("sessions", 20), ("events", 20)])
def test_a_load_tells_of_an_outage_until_it_is_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, endpoint: str, times: int
) -> None:
    monkeypatch.setattr("leadboxer_source.slice._TELL_SECONDS", 0.0)
    desk.server.faults.fail_next(endpoint, "503_empty", times=times)
    told: list[dict[str, str]] = []
    desk.pipeline().run(desk.source(watch=lambda report: told.append(dict(report.failing))))
    assert {endpoint: "status 503"} in told
    assert told[-1] == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_slice_early_and_keeps_it(desk: Desk, number: signal.Signals) -> None:
    process = _sync(desk)
    _wait(lambda: desk.requests()["events"] > 20)
    process.send_signal(number)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 3, told
    assert "Told to stop; run it again to go on." in out
    [(users,)] = desk.rows("SELECT count(*) FROM users")
    assert 0 < users < 400
    assert desk.rows("SELECT DISTINCT stopped FROM load_runs") == [("asked",)]
    [(covered,)] = desk.rows("SELECT count(*) FROM load_runs WHERE resource = 'events' AND covered_to IS NOT NULL")
    assert covered == 1, "what was finished is claimed"
    asked = desk.requests()["sessions"]
    assert asked == users, "no request was wasted"


def test_a_second_signal_stops_at_once_and_loses_the_slice_only(desk: Desk) -> None:
    process = _sync(desk, "--max-requests", "30")
    process.communicate(timeout=60)
    before = desk.rows("SELECT count(*) FROM users")
    desk.server.clear_requests()
    desk.server.rate_limit = "2/minute"
    process = _sync(desk, "--rate-limit", "2/minute")
    _wait(lambda: desk.requests()["sessions"] > 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 130, told
    assert "leadboxer: Stopped; no slice was finished, so nothing of this load is kept. Run it again.\n" in told
    assert "not kept" in told
    assert desk.rows("SELECT count(*) FROM users") == before


def _sync(desk: Desk, *arguments: str) -> subprocess.Popen[str]:
    if desk.world.seed != 11:
        desk.with_world(World(seed=11, users=400, days=60, now_ms=int(time.time() * 1000)), clock=time.time)
    account = ["--site", desk.world.site, "--base-url", desk.server.url]
    rate = [] if "--rate-limit" in arguments else ["--rate-limit", "40/second"]
    command = [str(Path(sys.executable).with_name("leadboxer")), "sync", "--db", "desk.duckdb", "--dataset", "lb"]
    return subprocess.Popen(
        [*command, *account, *rate, *arguments],
        env={
            **os.environ,
            "SOURCES__LEADBOXER__API_KEY": desk.server.key,
            "SOURCES__LEADBOXER__CHUNK_SIZE": "10",
            # a slow run is not to wait for what a fast one before it has used
            "SOURCES__LEADBOXER__LIMITER_STORE": ":memory:",
        },
        cwd=desk.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("zone", "hour", "name"), [("UTC0", "11:06", "UTC"), ("XYZ-5:30", "16:36", "XYZ")])
def test_each_time_of_day_says_in_which_zone_it_is(
    zone: str, hour: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = NOW_MS / 1000
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert moment(now, now) == f"{hour} {name}"
        assert waiting(report(waiting_until=now), now - 60) == f"waiting for quota until {hour}:40 {name} (60 s)"
        assert f" {name}, 102 of 480 users" in describe(report(), 1, now)
        assert re.search(rf"until about \d\d:\d\d {name}\.", stopping(report(), now))
    finally:
        monkeypatch.undo()
        time.tzset()


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)
