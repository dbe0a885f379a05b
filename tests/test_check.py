"""`leadboxer check` says in one line each whether a load would work, with three requests at the most."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from leadboxer_source.check import check_account, clock_finding
from leadboxer_source.cli import main
from leadboxer_source.settings import RateLimit, Settings
from tests.conftest import Desk, SkewedClock, World
from tests.test_bad_input import COMMAND, is_documented

NAMES = ["settings", "address", "key", "dataset", "permission", "clock", "rate limit", "destination"]


@pytest.fixture
def checked(desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs the command as JSON; returns its exit code and the findings by name."""
    desk.configure(monkeypatch)
    desk.server._clock = __import__("time").time

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        desk.server.clear_requests()
        code = main(["check", "--json", *arguments])
        told = capsys.readouterr().out
        assert desk.server.key not in told
        found = json.loads(told)
        assert len(desk.server.requests) <= 3
        assert found["fine"] == (code == 0)
        assert [finding["name"] for finding in found["findings"]] == NAMES
        return code, {finding["name"]: finding for finding in found["findings"]}

    return run


def states(findings: dict[str, Any]) -> dict[str, str]:
    return {name: finding["state"] for name, finding in findings.items()}


def test_a_set_up_that_works(checked: Any, desk: Desk) -> None:
    code, findings = checked()
    assert (code, states(findings)) == (0, dict.fromkeys(NAMES, "fine"))
    assert desk.requests() == {"leads": 1, "sessions": 1, "events": 1}
    assert findings["permission"]["told"] == "may read users, sessions and events"
    assert findings["rate limit"]["told"] == "10/minute for each endpoint, 9 of them free now"
    assert not list(Path().glob("*.duckdb*")), "nothing is left behind"


def test_each_line_has_its_mark(checked: Any, capsys: Any) -> None:
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines] == ["✓"] * len(NAMES)
    assert [line[2:13].strip() for line in lines] == NAMES


@pytest.mark.parametrize(
    ("environment", "code", "name", "sentence"),
    [
        ({"API_KEY": "wrong"}, 5, "key", "does not know this API key (401)"),
        ({"SITE": "a" * 32}, 5, "dataset", "may not read this dataset (403)"),
        ({"SITE": "typo"}, 4, "dataset", "not a LeadBoxer dataset id"),
        ({"API_KEY": None}, 4, "key", "No api_key: set it under [sources.leadboxer] in .dlt/secrets.toml"),
        ({"SITE": None}, 4, "dataset", "No site: set it"),
        (
            {"BASE_URL": "http://127.0.0.1:9/v1"},
            1,
            "address",
            ": connection refused; check base_url, proxy and firewall.",
        ),
        ({"BASE_URL": "leadboxer"}, 4, "address", "not a web address"),
        ({"RATE_LIMIT": "fast"}, 4, "rate limit", "is not a rate"),
        ({"DISPLAY": "robots"}, 4, "settings", "display takes any of"),
        ({"START_DATE": "2999-01-01"}, 4, "settings", "is in the future"),
        ({"END_DATE": "soon"}, 4, "settings", "end_date 'soon' is not a date"),
        ({"FILTERS": '{"limit": 3}'}, 4, "settings", "filters cannot set limit"),
        ({"HASH_FIELDS": '["email"]'}, 4, "settings", "hash_fields needs a hash_key"),
        ({"EXCLUDE_FIELDS": '["session_id"]'}, 4, "settings", "exclude_fields and hash_fields cannot name session_id"),
        ({"PROMOTE": '["email"]'}, 4, "settings", "promote cannot make columns of 'email'"),
        ({"CHUNK_SIZE": "many"}, 4, "settings", "SOURCES__LEADBOXER__CHUNK_SIZE cannot be read: write a whole number."),
        (
            {"LIMITER_STORE": "redis://:hunter2@127.0.0.1:9/0", "RATE_LIMIT": "10/second"},
            1,
            "rate limit",
            "The limiter_store at 127.0.0.1 (redis) cannot be used",
        ),
        ({"LIMITER_STORE": "redis://:hunter2/@127.0.0.1/0"}, 4, "rate limit", "write / as %2F"),
    ],
)
def test_what_is_wrong_is_told_with_its_exit_code(
    checked: Any,
    environment: dict[str, str | None],
    code: int,
    name: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in environment.items():
        if value is None:
            monkeypatch.delenv(f"SOURCES__LEADBOXER__{variable}")
        else:
            monkeypatch.setenv(f"SOURCES__LEADBOXER__{variable}", value)
    got, findings = checked()
    assert got == code
    assert findings[name]["state"] == "wrong"
    assert sentence in findings[name]["told"]
    assert "hunter2" not in str(findings)
    assert [other for other, state in states(findings).items() if state == "wrong"] == [name]
    assert findings["destination"]["state"] == "fine", "one trouble does not hide another"


@pytest.mark.parametrize(
    ("endpoint", "fault", "code", "name", "sentence"),
    [
        ("leads", "402", 5, "permission", "free tier (402)"),
        ("leads", "html_200", 6, "address", "no JSON but a web page"),
        ("leads", "redirect_other_host", 6, "address", "redirects to another host"),
        ("leads", "500", 1, "address", "status 500"),
        ("leads", "429", 3, "rate limit", "LeadBoxer refused the request (429): try again in"),
        ("sessions", "403", 5, "permission", "may read users but no sessions (403)"),
        ("events", "403", 5, "permission", "may read users and sessions but no events (403)"),
        ("sessions", "404", 0, "permission", "not known to it (404)"),
        ("events", "429", 0, "permission", "Not tried for events"),
    ],
)
def test_what_the_api_answers_is_told(
    checked: Any, desk: Desk, endpoint: str, fault: str, code: int, name: str, sentence: str
) -> None:
    desk.server.faults.fail_next(endpoint, fault, times=9)
    got, findings = checked()
    assert got == code
    assert sentence in findings[name]["told"]


def test_a_spent_budget_is_told_at_once_and_sends_nothing(checked: Any, desk: Desk, monkeypatch: Any) -> None:
    monkeypatch.setenv("SOURCES__LEADBOXER__RATE_LIMIT", "1/minute")
    assert checked()[0] == 0
    code, findings = checked()
    assert code == 3
    assert "Another process here uses this key: try again in" in findings["rate limit"]["told"]
    assert not desk.server.requests


def test_an_empty_dataset_is_doubtful(desk: Desk) -> None:
    desk.with_world(World(seed=1, users=0, days=1, now_ms=desk.now_ms))
    config = Settings(desk.world.site, desk.server.key, desk.server.url, limiter_store=":memory:")
    findings = {finding.name: finding for finding in check_account(config, desk.clock)}
    assert findings["dataset"].state == "doubtful"
    assert findings["permission"].told == "may read users"


@pytest.mark.parametrize(("wrong_by_s", "way"), [(7_200, "ahead of"), (-7_200, "behind")])
def test_a_wrong_clock_is_doubtful(desk: Desk, wrong_by_s: float, way: str) -> None:
    clock = SkewedClock(desk.clock, wrong_by_s)
    config = Settings(desk.world.site, desk.server.key, desk.server.url, RateLimit(9, 1.0), limiter_store=":memory:")
    findings = {finding.name: finding for finding in check_account(config, clock)}
    assert findings["clock"].state == "doubtful"
    assert findings["clock"].told.startswith(f"2 hours {way} LeadBoxer's")


def test_a_server_without_a_clock_is_doubtful() -> None:
    assert clock_finding(0, None).state == "doubtful"


def test_a_destination_that_cannot_be_written_is_wrong(checked: Any) -> None:
    Path("taken.duckdb").mkdir()
    code, findings = checked("--db", "taken.duckdb")
    assert code == 4
    assert findings["destination"]["state"] == "wrong"
    assert "taken.duckdb" in findings["destination"]["told"]
    assert findings["key"]["state"] == "fine"


def test_a_store_that_cannot_be_is_told_without_its_password(
    checked: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    monkeypatch.setenv("SOURCES__LEADBOXER__LIMITER_STORE", "mysql://me:hunter2@127.0.0.1/db")
    code, findings = checked()
    assert (code, findings["rate limit"]["state"]) == (4, "wrong")
    assert "an address that begins with redis:// or postgresql://" in findings["rate limit"]["told"]
    assert "hunter2" not in f"{findings}{caplog.text}{capsys.readouterr().err}"


@pytest.mark.parametrize("name", ["SITE", "API_KEY"])
def test_no_tick_says_that_a_load_can_begin_where_it_cannot(checked: Any, name: str, monkeypatch: Any) -> None:
    monkeypatch.delenv(f"SOURCES__LEADBOXER__{name}")
    settings = checked()[1]["settings"]
    assert settings["state"] == "unknown"
    assert settings["told"].startswith("some are missing or wrong, see below")


def test_several_troubles_are_told_at_once(checked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SITE": "typo", "BASE_URL": "leadboxer", "DISPLAY": "robots"}.items():
        monkeypatch.setenv(f"SOURCES__LEADBOXER__{name}", value)
    code, findings = checked()
    assert code == 4
    wrong = [name for name, state in states(findings).items() if state == "wrong"]
    assert wrong == ["settings", "address", "dataset"]


def test_a_misspelt_setting_is_named_and_its_value_is_not(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.configure(monkeypatch)
    monkeypatch.setenv("SOURCES__LEADBOXER__START_DAT", "hunter2")
    monkeypatch.setenv("SOURCES__LEADBOXER__DATA_WRITER__BUFFER_MAX_ITEMS", "7")
    monkeypatch.setenv("SOURCES__LEADBOXER__", "")
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text(
        "[sources.leadboxer]\nrelist_day = 3\nzeal = 'hunter2'\n"
        "[sources.leadboxer.filter]\nsearch = 'x'\n[sources.leadboxer.extract]\nworkers = 2\n[sources.other]\na = 1\n"
    )
    Path(".dlt/secrets.toml").write_text("[sources.leadboxer]\nhash_keys = 'hunter2'\n")
    sentences = [
        "hash_keys in .dlt/secrets.toml is ignored, as there is no such setting; did you mean hash_key?",
        "relist_day in .dlt/config.toml is ignored, as there is no such setting; did you mean relist_days?",
        "zeal in .dlt/config.toml is ignored, as there is no such setting.",
        "filter in .dlt/config.toml is ignored, as there is no such setting; did you mean filters?",
        "SOURCES__LEADBOXER__START_DAT is ignored, as there is no such setting; "
        "did you mean SOURCES__LEADBOXER__START_DATE?",
    ]
    assert all(is_documented(sentence) for sentence in sentences)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)
        assert "hunter2" not in done.stdout + done.stderr
        return done

    done = run("check", "--json")
    finding = json.loads(done.stdout)["findings"][0]
    assert (done.returncode, finding["name"], finding["state"]) == (0, "settings", "doubtful")
    assert sorted(finding["told"].splitlines()) == sorted(sentences)
    told = run("sync", "--max-requests", "1").stderr
    assert all(f"{sentence}\n" in told for sentence in sentences)
    monkeypatch.setenv("SOURCES__LEADBOXER__DISPLAY", "robots")
    done = run("check")
    assert done.returncode == 4
    assert done.stdout.startswith("✗ settings    display takes any of")
    assert all(f"\n{'':<14}{sentence}\n" in done.stdout for sentence in sentences)


def test_a_file_that_is_there_is_left_as_it_was(checked: Any) -> None:
    with duckdb.connect("mine.duckdb") as connection:
        connection.execute("CREATE TABLE mine (a INT)")
    assert checked("--db", "mine.duckdb")[0] == 0
    assert [path.name for path in Path().glob("mine*")] == ["mine.duckdb"], "no connection stays open"
    with duckdb.connect("mine.duckdb") as connection:
        schemas = connection.execute("SELECT schema_name FROM duckdb_schemas() WHERE NOT internal").fetchall()
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    assert (schemas, tables) == ([], [("mine",)])


@pytest.mark.parametrize("there", ["", "bucket", "bucket/leadboxer_data"])
def test_a_check_of_a_folder_leaves_nothing_that_a_load_would_stumble_over(
    checked: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, there: str
) -> None:
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "bucket")
    monkeypatch.setenv("SOURCES__LEADBOXER__RATE_LIMIT", "unlimited")
    Path(there).mkdir(parents=True, exist_ok=True)
    code, findings = checked("--destination", "filesystem")
    assert (code, findings["destination"]["state"]) == (0, "fine")
    assert [str(path) for path in Path().rglob("bucket*")] == (["bucket"] if there else [])
    assert not Path("bucket/leadboxer_data").exists()
    load = ["sync", "--destination", "filesystem", "--max-requests", "3"]
    assert main(load) == 3
    capsys.readouterr()
    loaded = sorted(Path("bucket").rglob("*"))
    assert checked("--destination", "filesystem")[0] == 0
    assert sorted(Path("bucket").rglob("*")) == loaded
    assert main(load) == 3
