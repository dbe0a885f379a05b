"""Bad input gets one clear sentence and its exit code; the key appears nowhere."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leadboxer_source.cli import main
from leadboxer_source.errors import ConfigurationInvalid, StateUnreadable
from leadboxer_source.state import VERSION, remember
from tests.conftest import Desk

COMMAND = Path(sys.executable).with_name("leadboxer")


@pytest.fixture
def configured(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("SOURCES__LEADBOXER__SITE", desk.world.site)
    monkeypatch.setenv("SOURCES__LEADBOXER__API_KEY", desk.server.key)
    monkeypatch.setenv("SOURCES__LEADBOXER__BASE_URL", desk.server.url)
    monkeypatch.setenv("SOURCES__LEADBOXER__RATE_LIMIT", "unlimited")
    monkeypatch.setattr("leadboxer_source.transport._back_off", lambda _: 0.01)
    desk.server._clock = __import__("time").time
    return desk


def said(capsys: Any) -> str:
    lines: list[str] = capsys.readouterr().err.strip().splitlines()
    return next(line for line in lines if line.startswith("leadboxer: "))


@pytest.mark.parametrize(
    ("environment", "fault", "code", "sentence"),
    [
        ({"API_KEY": None}, None, 4, "No api_key: set it under [sources.leadboxer]"),
        ({"SITE": None}, None, 4, "No site"),
        ({"API_KEY": "wrong"}, None, 5, "does not know this API key (401)"),
        ({"SITE": "a" * 32}, None, 5, "may not read this dataset (403)"),
        ({"SITE": "not-a-site"}, None, 4, "not a LeadBoxer dataset id"),
        ({}, "402", 5, "free tier (402)"),
        ({"BASE_URL": "http://127.0.0.1:9/v1"}, None, 1, "connection refused"),
        ({"BASE_URL": "https://leadboxer.invalid/v1"}, None, 1, "host name is unknown"),
        ({"BASE_URL": "http://api.leadboxer.com/v1"}, None, 4, "must begin with https"),
        ({"BASE_URL": "leadboxer"}, None, 4, "not a web address"),
        ({}, "html_200", 6, "no JSON but a web page"),
        ({}, "redirect_other_host", 6, "redirects to another host"),
        ({"START_DATE": "the other day"}, None, 4, "start_date 'the other day' is not a date"),
        ({"RATE_LIMIT": "fast"}, None, 4, "rate_limit 'fast' is not a rate"),
        ({"DISPLAY": "robots"}, None, 4, "display takes any of"),
    ],
)
def test_one_sentence_and_the_exit_code(
    configured: Desk,
    environment: dict[str, str | None],
    fault: str | None,
    code: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(f"SOURCES__LEADBOXER__{name}")
        else:
            monkeypatch.setenv(f"SOURCES__LEADBOXER__{name}", value)
    if fault:
        configured.server.faults.fail_next("leads", fault, times=50)
    assert main(["sync", "--db", "bad.duckdb"]) == code
    told = said(capsys)
    assert sentence in told
    assert configured.server.key not in told


def test_a_destination_that_cannot_be_written_is_told(configured: Desk, capsys: Any) -> None:
    Path("taken.duckdb").mkdir()
    assert main(["sync", "--db", "taken.duckdb"]) == 1
    assert "taken.duckdb" in said(capsys)


def test_an_unknown_resource_and_a_clash_of_names_are_told(configured: Desk, capsys: Any) -> None:
    assert main(["sync", "--only", "users,visits"]) == 4
    assert "There is no resource visits" in said(capsys)
    assert main(["sync", "--db", "same.duckdb", "--dataset", "same"]) == 4
    assert "DuckDB cannot tell" in said(capsys)


def test_the_command_loads_and_says_so_and_stops_with_progress(configured: Desk) -> None:
    stopped = subprocess.run(
        [COMMAND, "sync", "--db", "cli.duckdb", "--max-requests", "10", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert stopped.returncode == 3, stopped.stderr
    assert json.loads(stopped.stdout)["stopped"] == "requests"
    done = subprocess.run([COMMAND, "sync", "--db", "cli.duckdb"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "All is covered." in done.stdout


def test_the_key_appears_in_no_file_log_trace_or_error(
    configured: Desk, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("RUNTIME__LOG_LEVEL", "DEBUG")
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    loggers = [logging.getLogger(name) for name in (None, "dlt", "urllib3", "requests")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    key = configured.server.key
    try:
        main(["sync", "--db", "leak.duckdb", "--max-requests", "20"])
        for fault in ("401", "403", "500", "html_200", "400", "redirect_other_host"):
            configured.server.faults.fail_next("leads", fault, times=10)
            main(["sync", "--db", "leak.duckdb"])
            configured.server.faults._scripts.clear()
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
    shown = capfd.readouterr()
    assert key not in shown.out + shown.err + heard.getvalue()
    for folder, _, names in os.walk(configured.folder):
        for name in names:
            assert key not in name
            assert key.encode() not in (Path(folder) / name).read_bytes(), name
    assert all(key not in request.path and key not in request.params.values() for request in configured.server.requests)


@pytest.mark.parametrize(
    "stored",
    [
        {"version": VERSION + 1, "scopes": {}},
        {"scopes": {}},
        {"version": VERSION, "scopes": {"s": {"covered": [[5, 1]]}}},
        {"version": VERSION, "scopes": {"s": {"covered": [[1, 5], [3, 9]]}}},
        {"version": VERSION, "scopes": {"s": {"covered": "all"}}},
        {"version": VERSION, "scopes": {"s": {}}},
        {"version": VERSION},
    ],
)
def test_a_state_that_cannot_be_read_is_an_error_and_never_a_silent_reload(stored: dict[str, Any]) -> None:
    with pytest.raises(StateUnreadable):
        remember({"coverage": stored}, "s")


def test_promoting_what_has_a_column_already_is_refused(desk: Desk) -> None:
    for promote in (["email"], ["Plan", "plan"], [""], ["_dlt_id"]):
        with pytest.raises(ConfigurationInvalid, match="promote"):
            desk.source(promote=promote)
