"""What is covered, what is missing and what it took: also while a load runs, and on another machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from leadboxer_source import Report
from leadboxer_source.cli import main
from leadboxer_source.cli.options import Place
from leadboxer_source.cli.status import Scope, missing, not_yet
from leadboxer_source.coverage import Stretch, holes
from leadboxer_source.journal import Journal
from leadboxer_source.lock import alone, is_held
from leadboxer_source.sandbox import World
from tests import destinations
from tests.conftest import Desk
from tests.test_bad_input import is_documented

PLACE = ("--db", "desk.duckdb", "--dataset", "lb")

HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def account(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A dataset of today, as the command line knows no other clock than the machine's."""
    desk.with_world(World(seed=5, users=40, days=20, now_ms=int(time.time() * 1000)), clock=time.time)
    desk.configure(monkeypatch, rate_limit="unlimited", chunk_size="5")
    monkeypatch.setenv("COLUMNS", "80")
    return desk


@contextmanager
def held_open(desk: Desk) -> Iterator[None]:
    """Another process has the DuckDB file open, as a load does."""
    command = [sys.executable, "-c", HOLD, str(desk.folder / "desk.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        yield
        holder.stdin.close()


def status(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["status", *PLACE, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["status", *PLACE]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80, text
    return text


def load(*arguments: str) -> int:
    return main(["sync", *PLACE, "--json", *arguments])


@pytest.mark.usefixtures("account")
def test_it_tells_the_name_by_which_dlt_knows_the_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    assert "For dlt" not in shown(capsys)
    load("--max-requests", "10")
    [name] = re.findall(r"For dlt this is the pipeline (\w+)\.", shown(capsys))
    command = [str(Path(sys.executable).with_name("dlt")), "pipeline", name, "info"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "leadboxer" in told


def test_it_tells_what_is_covered_and_what_is_missing(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "40") == 3
    told = status(capsys)
    [scope] = told["scopes"]
    covered = [list(stretch) for stretch in scope["covered"]["events"]]
    [resource] = account.rows(
        "SELECT epoch_ms(covered_from), epoch_ms(covered_to) FROM load_runs WHERE resource = 'events'"
    )
    assert covered == [list(resource)]
    assert scope["settled_ms"] == covered[0][1]
    assert [Stretch(*hole) for hole in scope["missing"]["events"]] == holes(
        [Stretch(*covered[0])], scope["since_ms"], scope["settled_ms"]
    )
    text = shown(capsys)
    assert text.count("missing ") == 1
    assert "█ loaded   ▓ in part   ░ not loaded" in text
    assert load() == 0
    text = shown(capsys)
    assert "missing " not in text
    assert "not settled yet: since " in text, "the last minutes may still change"
    assert text.count(" 100 %") == 4
    assert status(capsys)["scopes"][0]["missing"]["events"] == []


def test_what_is_newer_than_the_last_run_is_no_hole() -> None:
    covered = {name: [Stretch(0, 1_000_000)] for name in ("users", "sessions", "events", "properties")}
    scope = Scope("site", Stretch(0, 1_000_000), 1_400_000, covered, {}, {})
    assert missing(scope) == []
    assert "not settled yet" in not_yet(scope)
    assert "newer than the last run" in not_yet(scope._replace(now_ms=5_000_000))
    covered["events"] = [Stretch(0, 500_000)]
    assert missing(scope) == [(Stretch(500_000, 1_000_000), "events", False)]


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("days", [10, 400], ids=["a part", "all"])
def test_what_is_marked_to_be_read_again_is_told_until_it_is_read(
    days: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load() == 0
    [before] = status(capsys)["scopes"]
    since = time.strftime("%Y-%m-%d", time.gmtime(time.time() - days * 86_400))
    assert main(["resync", *PLACE, "--since", since]) == 0
    [scope] = status(capsys)["scopes"]
    assert (scope["since_ms"], scope["settled_ms"]) == (before["since_ms"], before["settled_ms"])
    [[lo, hi]] = scope["missing"]["events"]
    assert (lo >= before["since_ms"], hi) == (True, before["settled_ms"])
    text = shown(capsys)
    assert re.search(r"\nread again .*\): all\n {11}what was marked to be read again is read by the next run\n", text)
    assert "missing" not in text
    assert "never loaded" not in text
    assert " 100 %" not in text
    assert "newer than the last run" not in text
    assert text.count("░") > 4
    assert load("--max-requests", "10") == 3
    assert "read again" not in shown(capsys), "the newest of it is read"
    assert load() == 0
    assert shown(capsys).count(" 100 %") == 4


@pytest.mark.usefixtures("account")
def test_a_resource_alone_can_be_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert load() == 0
    since = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 5 * 86_400))
    assert main(["resync", *PLACE, "--since", since, "--only", "events"]) == 0
    assert main(["resync", *PLACE, "--since", "2020-01-01", "--only", "properties"]) == 0
    text = shown(capsys)
    assert re.search(r"read again .*: events\n", text)
    assert re.search(r"read again .*: properties\n", text)
    assert text.count(" 100 %") == 2


def test_it_says_in_plain_words_why_a_run_ended(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "40") == 3
    assert load() == 0
    lines = shown(capsys).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("began "))
    first_run, second_run = (line.rstrip() for line in lines[first + 1 : first + 3])
    assert first_run.endswith("requests used up")
    assert second_run.endswith("all read")


def test_what_was_never_loaded_and_what_was_set_aside_is_told(
    account: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    user = account.world.user_ids()[3]
    account.server.faults.poison(user, "400")
    assert load("--only", "users,sessions") == 0
    text = shown(capsys)
    assert "missing    events, properties: never loaded" in text
    assert "set aside  sessions of 1" in text
    assert list(status(capsys)["scopes"][0]["set_aside"]["sessions"]) == [user]


def test_it_can_be_read_while_a_load_holds_the_file(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "40") == 3
    before = status(capsys)
    with held_open(account):
        during = status(capsys)
    for kept in (before, during):
        for run in kept["runs"]:
            run["resources"].pop("properties", None)
            for figures in run["resources"].values():
                figures["waited_seconds"] = None
        kept["scopes"][0].pop("missing")
    assert during == before


@pytest.mark.usefixtures("account")
def test_pipelines_of_another_name_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "10", "--pipeline", "mine") == 3
    assert load("--max-requests", "10", "--pipeline", "yours") == 3
    told = shown(capsys)
    for name in ("mine", "yours"):
        assert f"\n  leadboxer status --db desk.duckdb --dataset lb --pipeline {name}\n" in told
    assert "another name" not in status_of("mine", capsys)


def status_of(pipeline: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["status", *PLACE, "--pipeline", pipeline]) == 0
    return capsys.readouterr().out


def test_it_says_whose_runs_it_lists(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "10") == 3
    assert load("--max-requests", "10", "--pipeline", "another") == 3
    text = shown(capsys)
    assert "Last runs into lb, by any pipeline (UTC)" in text
    assert text.count("requests used up") == 2
    with held_open(account):
        text = shown(capsys)
    assert "Last runs of this pipeline (UTC)" in text
    assert text.count("requests used up") == 1


@pytest.mark.usefixtures("account")
def test_it_shows_the_load_that_is_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "40") == 3
    pipeline = Place("duckdb", "desk.duckdb", "lb", None).pipeline()
    going_on = Report(started_ms=int(time.time() * 1000), handed=17, requests={"sessions": 17, "leads": 2})
    going_on.waiting_until = time.time() + 50
    with alone(pipeline):
        assert "Another process is at work with this pipeline." in shown(capsys)
        Journal(pipeline.working_dir).note(going_on)
        text = shown(capsys)
        assert status(capsys)["running"]["handed"] == 17
    assert "has begun 17 users with 19 requests" in text
    assert "It waits for quota for " in text
    going_on.failing = {"events": "time-out"}
    with alone(pipeline):
        Journal(pipeline.working_dir).note(going_on)
        assert "LeadBoxer does not answer (events: time-out), trying again." in shown(capsys)
    Journal(pipeline.working_dir).close()
    assert "under way" not in shown(capsys)


@pytest.mark.usefixtures("account")
def test_a_load_that_was_killed_is_not_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "40") == 3
    journal = Journal(Place("duckdb", "desk.duckdb", "lb", None).pipeline().working_dir)
    journal.note(Report(started_ms=int(time.time() * 1000), handed=17, requests={"sessions": 17}))
    text = shown(capsys)
    assert "under way" not in text
    assert "The last load was killed; nothing of its slice is kept." in text
    assert status(capsys)["running"] is None
    journal.note(Report(started_ms=int(time.time() * 1000), stopped="minutes"))
    assert "killed while it wrote what it had read" in shown(capsys)
    assert load("--max-requests", "10") == 3
    assert "killed" not in shown(capsys)


@pytest.mark.usefixtures("account")
def test_a_load_is_not_refused_because_somebody_looks() -> None:
    pipeline = Place("duckdb", "desk.duckdb", "lb", None).pipeline()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            is_held(pipeline)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(20):
            with alone(pipeline):
                assert is_held(pipeline)
    finally:
        ended.set()
        looking.join()
    assert not is_held(pipeline)


def test_a_lost_working_folder_is_no_loss(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "40") == 3
    before = status(capsys)
    shutil.rmtree(account.folder / "dlt")
    after = status(capsys)
    assert after["scopes"][0]["covered"] == before["scopes"][0]["covered"]
    assert after["runs"] == before["runs"]


@pytest.mark.parametrize("what", ["file", "dataset"])
def test_what_was_taken_away_is_not_told_as_covered(
    account: Desk, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    assert load("--max-requests", "40") == 3
    if what == "file":
        destinations.let_go()
        (account.folder / "desk.duckdb").unlink()
    else:
        account.rows("DROP SCHEMA lb CASCADE")
    assert status(capsys)["scopes"] == []
    assert " %" not in shown(capsys)
    assert "its next run begins anew" in shown(capsys)


def test_an_older_copy_is_told_as_what_it_is(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "40") == 3
    before = status(capsys)["scopes"]
    destinations.let_go()
    shutil.copy(account.folder / "desk.duckdb", account.folder / "copy")
    assert load() == 0
    shutil.copy(account.folder / "copy", account.folder / "desk.duckdb")
    assert status(capsys)["scopes"] == before
    capsys.readouterr()
    assert main(["plan", *PLACE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimates"][0]["requests"]["events"] > 10, "the rest is not loaded"


def test_after_a_load_it_shows_the_plan_beside_what_it_took(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *PLACE]) == 0
    assert load("--max-requests", "40") == 3
    text = shown(capsys)
    assert "took so far" in text
    assert load() == 0
    told = status(capsys)
    assert told["spent"]["requests"]["sessions"] == pytest.approx(told["plan"]["requests"]["sessions"], rel=0.15)
    assert told["spent"]["requests"]["events"] == pytest.approx(told["plan"]["requests"]["events"], rel=0.15)
    assert main(["sync", *PLACE]) == 0
    assert main(["sync", *PLACE, "--start-date", "2026-01-01"]) == 0
    capsys.readouterr()
    assert main(["status", *PLACE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spent"] == told["spent"], "later runs were not part of the plan"
    assert "difference" in shown(capsys)


def test_a_plan_is_not_set_beside_other_loads_than_the_planned(
    account: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    today = time.time()
    later, earlier = (time.strftime("%Y-%m-%d", time.gmtime(today - days * 86_400)) for days in (3, 9))
    assert main(["plan", *PLACE]) == 0
    one_off = ("--start-date", earlier, "--end-date", later)
    account.server.clear_requests()
    assert main(["sync", *PLACE, *one_off]) == 0
    assert " of about " not in capsys.readouterr().err
    assert status(capsys)["spent"]["requests"] == {}, "it leaves nothing less to do"
    assert load("--max-requests", "30") == 3
    assert "took so far" in shown(capsys)
    assert main(["sync", *PLACE, "--start-date", earlier]) == 0
    assert " of about " not in capsys.readouterr().err
    assert "took so far" not in shown(capsys)
    assert status(capsys)["plan"], "what is left can still be told while the rest is loaded"
    assert main(["sync", *PLACE]) == 0
    assert " of about " in capsys.readouterr().err


@pytest.mark.usefixtures("account")
def test_a_plan_of_everything_is_not_set_beside_a_load_of_a_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *PLACE]) == 0
    assert load("--only", "users") == 0
    assert status(capsys)["spent"] is None


def test_where_nothing_is_loaded_it_says_what_to_do(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    told = shown(capsys)
    assert told.startswith("There is no desk.duckdb.\n")
    assert "`leadboxer plan`" in told
    assert not (account.folder / "desk.duckdb").exists(), "looking makes no file"
    assert status(capsys)["scopes"] == []


def test_the_file_that_it_looked_for_is_named(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--pipeline", "leadboxer"]) == 0
    assert capsys.readouterr().out.startswith(f"There is no {account.folder / 'leadboxer.duckdb'}.\n")


def test_a_damaged_journal_is_an_empty_one(account: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--max-requests", "40") == 3
    [pipeline] = (account.folder / "dlt" / "pipelines").glob("leadboxer_*")
    for text in ("{", "[]", '{"plan": {"scope": 1}, "runs": []}'):
        (pipeline / "leadboxer.json").write_text(text)
        assert len(status(capsys)["runs"]) == 1, "the destination knows it"
    assert load() == 0


@pytest.mark.usefixtures("account")
def test_a_run_that_kept_nothing_is_not_taken_for_another_pipelines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCES__LEADBOXER__API_KEY", "wrong")
    assert load() == 5
    assert "This pipeline covers nothing here, so its next run begins anew." in shown(capsys)
    assert "another name" not in shown(capsys)


@pytest.mark.usefixtures("account")
def test_a_one_off_is_not_taken_for_another_pipelines(capsys: pytest.CaptureFixture[str]) -> None:
    assert load("--end-date", "2999-01-01") == 0
    told = shown(capsys)
    assert "another name" not in told
    assert "(A run with an end date loads without covering anything.)" in told
    assert "Last runs into" in told


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code, and the sentence that is all there is to read."""
    capsys.readouterr()
    code = main(["status", *arguments])
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert is_documented(told.err.removeprefix("leadboxer: ").rstrip()), told.err
    assert "hunter2" not in told.err
    return code, told.err


@pytest.mark.servers
@pytest.mark.usefixtures("account")
def test_a_destination_that_cannot_be_read_is_not_taken_for_an_empty_one(
    postgres: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE USER stranger; CREATE SCHEMA closed")
    place = ("--destination", "postgres", "--dataset", "closed")

    def at(address: str) -> None:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", address)

    at("postgresql://loader:hunter2@127.0.0.1:9/postgres")
    code, told = refused(capsys, *place)
    assert code == 1
    assert "The destination does not let us in (" in told
    at(postgres.replace("loader@", "nobody:hunter2@"))
    assert "does not exist" in refused(capsys, *place, "--json")[1]
    at(postgres.replace("loader@", "stranger:hunter2@"))
    code, told = refused(capsys, *place)
    assert code == 1
    assert "The destination does not allow that (permission denied for schema closed)" in told
    at(postgres.replace("loader@", "loader:hunter2@"))
    assert main(["status", "--destination", "postgres", "--dataset", "not_there"]) == 0
    assert "Nothing is loaded yet" in capsys.readouterr().out


@pytest.mark.usefixtures("account")
def test_a_file_that_nobody_can_look_into_now_is_not_taken_for_an_empty_one(
    account: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load("--max-requests", "10") == 3
    shutil.rmtree(account.folder / "dlt")
    with held_open(account):
        code, told = refused(capsys, *PLACE)
    assert code == 1
    assert "desk.duckdb is open in another program" in told
