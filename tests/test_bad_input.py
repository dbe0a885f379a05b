"""Bad input gets one clear sentence and its exit code; the key appears nowhere.

Each sentence stands in docs/troubleshooting.md, and nothing else does.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from leadboxer_source import errors
from leadboxer_source.cli import main
from leadboxer_source.cli.options import Place
from leadboxer_source.errors import ConfigurationInvalid, LeadBoxerError, PipelineBusy, StateUnreadable
from leadboxer_source.lock import alone
from leadboxer_source.state import VERSION, remember
from tests.conftest import Desk
from tests.test_package import ROOT

COMMAND = str(Path(sys.executable).with_name("leadboxer"))
PREFIX = "SOURCES__LEADBOXER__"


def documented() -> list[str]:
    """The messages in the documentation; `...` stands for anything."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    return re.findall(r"^\| ``(.+?)`` \|", text, flags=re.MULTILINE)


def pattern(message: str) -> str:
    return ".*?".join(re.escape(part) for part in message.split("..."))


def is_documented(told: str) -> bool:
    return any(re.fullmatch(pattern(message), told) for message in documented())


@pytest.fixture
def configured(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name, value in account(desk).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("leadboxer_source.transport._back_off", lambda _: 0.01)
    desk.server._clock = time.time
    return desk


def account(desk: Desk) -> dict[str, str]:
    given = {"SITE": desk.world.site, "API_KEY": desk.server.key, "BASE_URL": desk.server.url}
    return {f"{PREFIX}{name}": value for name, value in {**given, "RATE_LIMIT": "unlimited"}.items()}


def run(*arguments: str, through: Sequence[str] = (), cwd: Path | None = None) -> tuple[int, str]:
    """Runs the real command; returns its exit code and its sentence."""
    done = subprocess.run([*through, COMMAND, *arguments], capture_output=True, text=True, check=False, cwd=cwd)
    assert "Traceback" not in done.stderr
    return done.returncode, sentence_in(done.stderr)


def sentence_in(stderr: str) -> str:
    [told] = [line for line in stderr.strip().splitlines() if line.startswith("leadboxer: ")]
    return told.removeprefix("leadboxer: ")


SETTINGS: list[tuple[dict[str, str | None], str | None, int, str]] = [
    ({"API_KEY": None, "SITE": None}, None, 4, "No site and no api_key: set them under [sources.leadboxer]"),
    ({"API_KEY": None}, None, 4, "No api_key: set it under [sources.leadboxer]"),
    ({"API_KEY": "wrong"}, None, 5, "does not know this API key (401)"),
    ({"API_KEY": "two words"}, None, 4, "api_key is empty or has characters no key has"),
    ({"SITE": "a" * 32}, None, 5, "may not read this dataset (403)"),
    ({"SITE": "a" * 31}, None, 4, "not a LeadBoxer dataset id"),
    ({"SITE": "some-key", "API_KEY": "A" * 32}, None, 4, "site and api_key are swapped"),
    ({}, "402", 5, "free tier (402)"),
    ({"BASE_URL": "http://127.0.0.1:9/v1"}, None, 1, "connection refused; check base_url, proxy and firewall."),
    ({"BASE_URL": "https://leadboxer.invalid/v1"}, None, 1, "host name is unknown"),
    ({"BASE_URL": "http://api.leadboxer.com/v1"}, None, 4, "must begin with https"),
    ({"BASE_URL": "leadboxer"}, None, 4, "not a web address"),
    ({}, "500", 1, "status 500"),
    ({}, "html_200", 6, "no JSON but a web page"),
    ({}, "redirect_other_host", 6, "redirects to another host"),
    ({"START_DATE": "the other day"}, None, 4, "start_date 'the other day' is not a date"),
    ({"START_DATE": "2999-01-01"}, None, 4, "is in the future: nobody was seen since then."),
    ({"SITE": "your-dataset-id"}, None, 4, "site is still the placeholder your-dataset-id: put your dataset id"),
    ({"API_KEY": "your-api-key"}, None, 4, "api_key is still the placeholder your-api-key: put your API key"),
    ({"START_DATE": "2026-02-02", "END_DATE": "2026-02-01"}, None, 4, "is not after start_date '2026-02-02'"),
    ({"RATE_LIMIT": "fast"}, None, 4, "rate_limit 'fast' is not a rate"),
    ({"DISPLAY": "robots"}, None, 4, "display takes any of"),
    ({"FILTERS": '{"limit": 3}'}, None, 4, "filters cannot set limit: use any of"),
    ({"EXCLUDE_FIELDS": '["session_id"]'}, None, 4, "exclude_fields and hash_fields cannot name"),
    ({"HASH_FIELDS": '["email"]'}, None, 4, "hash_fields needs a hash_key"),
    ({"LIMITER_STORE": "mysql://here"}, None, 4, "limiter_store is a file, ':memory:', or an address"),
    ({"LIMITER_STORE": "redis://:hunter2/@here/0"}, None, 4, "in its password write / as %2F"),
    ({"LIMITER_STORE": "redis://127.0.0.1:9/0", "RATE_LIMIT": "10/second"}, None, 1, "start it or correct its address"),
    ({"CHUNK_SIZE": "0"}, None, 4, "chunk_size is 0: it must be 1 or more"),
    ({"MAX_REQUESTS": "-5"}, None, 4, "max_requests is -5: it must be 1 or more"),
    ({"CHUNK_SIZE": "many"}, None, 4, "SOURCES__LEADBOXER__CHUNK_SIZE cannot be read: write a whole number."),
    ({"MAX_MINUTES": "hunter2"}, None, 4, "SOURCES__LEADBOXER__MAX_MINUTES cannot be read: write a number."),
    ({"PROMOTE": "hunter2"}, None, 4, 'SOURCES__LEADBOXER__PROMOTE cannot be read: write a list like ["Customer ID"].'),
    (
        {"FILTERS": "hunter2"},
        None,
        4,
        "_FILTERS cannot be read: write a table, in the environment JSON like",
    ),
]


@pytest.mark.parametrize(("environment", "fault", "code", "sentence"), SETTINGS)
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
            monkeypatch.delenv(f"{PREFIX}{name}")
        else:
            monkeypatch.setenv(f"{PREFIX}{name}", value)
    if fault:
        configured.server.faults.fail_next("leads", fault, times=50)
    assert main(["sync", "--db", "bad.duckdb"]) == code
    told = sentence_in(capsys.readouterr().err)
    assert sentence in told
    assert is_documented(told), told
    assert configured.server.key not in told
    assert "hunter2" not in told


USAGE: list[tuple[list[str], int, str]] = [
    (["sync", "--max-minuts", "3"], 4, "No such option"),
    (["snyc"], 4, "No such command 'snyc' (did you mean sync?); see `leadboxer --help`."),
    (["fly"], 4, "No such command 'fly'; see `leadboxer --help`."),
    (["sync", "--only", "users,visits"], 4, "no resource visits; there are users, sessions, events, properties."),
    (["sync", "--only", "load_runs"], 4, "load_failures and load_runs come with any load: name one of users, "),
    (["sync", "--only", "load_runs,load_failures"], 4, "come with any load"),
    (["sync", "--db", "same.duckdb", "--dataset", "same"], 4, "DuckDB cannot tell the dataset same"),
    (["sync", "--db", "a.duckdb", "--destination", "postgres"], 4, "--db names a DuckDB file"),
    (["sync", "--destination", "snowflak"], 4, "There is no destination snowflak: did you mean snowflake?"),
    (["sync", "--destination", "postgres"], 4, "in .dlt/secrets.toml, or in the environment as DESTINATION__POSTGRES"),
    (["sync", "--destination", "weaviate"], 4, "needs packages that are not installed: pip install"),
    (["sync", "--db", "missing/a.duckdb"], 4, "does not exist: make it"),
    (["sync", "--db", "folder"], 4, "is a folder: name a file"),
    (["sync", "--db", "text"], 4, "is no DuckDB file"),
    (["resync", "--since", "2026-01-01", "--db", "none.duckdb"], 4, "run `leadboxer sync` first"),
    (["profile", "1.2", "--db", "none.duckdb"], 4, "run `leadboxer sync` first"),
    (["profile", "1.2", "--html", "nosuch/p.html"], 4, "The folder of nosuch/p.html does not exist: make it"),
    (["status", "--pipeline", "a/b"], 4, "a/b is no name for a pipeline"),
    (["sync", "--pipeline", ".."], 4, ".. is no name for a pipeline"),
    (["sync", "--pipeline", "my pipe"], 4, "my pipe is no name for a pipeline: use letters, digits, _ and -."),
    (
        ["sync", "--dataset", "my data"],
        4,
        "my data would be called my_data there: write --dataset my_data.",
    ),
    (["status", "--dataset", ""], 4, "--dataset is empty: name one, or leave it out."),
    (["status", "--dataset", "MyData"], 4, "write --dataset my_data."),
    (["sync", "--max-minutes", "-1"], 4, "Invalid value for '--max-minutes'"),
    (["sync", "--max-requests", "-1"], 4, "Invalid value for '--max-requests'"),
    (["sync", "--slice-minutes", "0"], 4, "Invalid value for '--slice-minutes'"),
    (["sandbox", "--port", "99999"], 4, "argument --port: 99999 is not from 0 to 65535"),
    (["sandbox", "--users", "-3"], 4, "argument --users: -3 is not 0 or more"),
    (["sandbox", "--faults", "7"], 4, "argument --faults: 7 is not from 0 to 1"),
    (["sandbox", "--days", "nan"], 4, "argument --days: nan is not 0 or more"),
    (["sandbox", "--users", "many"], 4, "argument --users: many is no number"),
    (["sandbox", "--rate-limit", "fast"], 4, "argument --rate-limit: fast is not a rate"),
    (["sandbox", "--site", "x"], 4, "argument --site: x is not a dataset id"),
    (["sandbox", "--profile", "nosuch=1"], 4, "argument --profile: there is no switch nosuch"),
    (["sandbox", "--profile", "envelope=v9"], 4, "argument --profile: envelope is one of v1, legacy, nested"),
    (["sandbox", "--profile", "max_limit=many"], 4, "argument --profile: max_limit takes a number"),
    (["sandbox", "--nosuch"], 4, "unrecognized arguments: --nosuch"),
]


@pytest.mark.parametrize(("arguments", "code", "sentence"), USAGE)
def test_wrong_arguments_are_told(
    configured: Desk, arguments: list[str], code: int, sentence: str, capsys: Any
) -> None:
    Path("folder").mkdir()
    Path("text").write_text("This is no database, but it is longer than the head of one would be." * 100)
    try:
        ended: Any = main(arguments)
    except SystemExit as left:  # the sandbox's parser leaves the program
        ended = left.code
    assert ended == code
    shown = capsys.readouterr()
    told = sentence_in(shown.err)
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert sentence in told
    assert is_documented(told), told


def test_a_dataset_may_have_any_name_that_is_left_as_it_is(
    configured: Desk, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("DESTINATION__DUCKDB__ENABLE_DATASET_NAME_NORMALIZATION", "false")
    assert main(["sync", "--dataset", "my data", "--max-requests", "3"]) == 3
    with duckdb.connect("leadboxer.duckdb") as connection:
        assert connection.execute('SELECT count(*) > 0 FROM "my data".users').fetchone() == (True,)


FILES: list[tuple[str, str, str]] = [
    (
        "secrets.toml",
        "[leadboxer]\nsite = 'x'\napi_key = 'y'",
        "No site: in .dlt/secrets.toml it stands under [leadboxer]; move it under [sources.leadboxer].",
    ),
    (
        "config.toml",
        "[source.leadboxer]\nsite = 'x'",
        "No site: in .dlt/config.toml it stands under [source.leadboxer]; move it under [sources.leadboxer].",
    ),
    ("config.toml", "[sources.leadboxer]\napi_key = 'y'", "sources.leadboxer.api_key is a secret but stands in config"),
    ("secrets.toml", "[sources.leadboxer\nsite = 'x'", "secrets.toml is not TOML: "),
    (
        "config.toml",
        "[sources.leadboxer]\nmax_minutes = 'soon'",
        "max_minutes in .dlt/config.toml cannot be read: write a",
    ),
    (
        "secrets.toml",
        "[sources.leadboxer]\nsite = 'x\napi_key = 'y'",
        "secrets.toml is not TOML: a text is not closed by its quote at line 2",
    ),
    (
        "secrets.toml",
        (ROOT / ".dlt" / "example.secrets.toml").read_text(),
        "site is still the placeholder your-dataset-id: put your dataset id in its place, in .dlt/secrets.toml.",
    ),
]


@pytest.mark.parametrize(("file", "text", "sentence"), FILES)
def test_what_is_wrong_in_a_file_is_told(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / file).write_text(f"{text}\n")
    code, told = run("sync")
    assert code == 4
    assert sentence in told
    assert is_documented(told), told


STRAYS: list[tuple[dict[str, str], int, str]] = [
    ({"SITE": "production"}, 4, "The site was taken from the environment variable SITE"),
    ({"API_KEY": "of-another-tool"}, 5, "The api_key was taken from the environment variable API_KEY"),
    (
        {"LEADBOXER_SITE": "a" * 32},
        4,
        ", which dlt does not read; rename it to SOURCES__LEADBOXER__SITE.",
    ),
]


@pytest.mark.parametrize(("stray", "code", "sentence"), STRAYS)
def test_a_stray_variable_is_named(
    configured: Desk, stray: dict[str, str], code: int, sentence: str, monkeypatch: Any, capsys: Any
) -> None:
    for name, value in stray.items():
        meant = next(setting for setting in ("API_KEY", "SITE") if name.endswith(setting))
        monkeypatch.delenv(f"{PREFIX}{meant}")
        monkeypatch.setenv(name, value)
    assert main(["sync"]) == code
    told = sentence_in(capsys.readouterr().err)
    assert sentence in told
    assert is_documented(told), told
    assert not any(value in told for value in stray.values())


def test_a_stray_variable_does_no_harm_beside_the_right_one(configured: Desk, monkeypatch: Any) -> None:
    monkeypatch.setenv("API_KEY", "of-another-tool")
    monkeypatch.setenv("SITE", "production")
    assert main(["sync", "--max-requests", "3"]) == 3
    assert {request.key for request in configured.server.requests} == {configured.server.key}


@contextmanager
def held(path: str, *, read_only: bool = False) -> Iterator[int]:
    """Another process has a DuckDB file open; yields its number."""
    opened = f"duckdb.connect(sys.argv[1], read_only={read_only})"
    script = f"import duckdb, sys; c = {opened}; print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        holder.stdout.readline()
        yield holder.pid
    finally:
        holder.communicate("")


def test_a_file_that_is_open_elsewhere_is_told_before_anything_is_asked(configured: Desk) -> None:
    with held("busy.duckdb") as process:
        code, told = run("sync", "--db", "busy.duckdb")
    assert code == 1
    assert f"busy.duckdb is open in another program (process {process})" in told
    assert is_documented(told), told
    assert not configured.server.requests
    assert run_quietly("sync", "--db", "busy.duckdb") == 0


def test_while_a_notebook_reads_a_file_it_can_be_read_but_not_loaded_to(configured: Desk, capsys: Any) -> None:
    assert run_quietly("sync", "--db", "busy.duckdb", "--max-requests", "10") == 3
    with duckdb.connect("busy.duckdb") as connection:
        [user] = connection.execute("SELECT user_id FROM leadboxer_data.users LIMIT 1").fetchone() or ()
    shutil.rmtree(configured.folder / "dlt")
    with held("busy.duckdb", read_only=True) as process:
        assert main(["profile", user, "--db", "busy.duckdb"]) == 0
        assert user in capsys.readouterr().out
        assert main(["status", "--db", "busy.duckdb"]) == 0
        assert "requests used up" in capsys.readouterr().out
        assert main(["check", "--db", "busy.duckdb"]) == 1
        told = capsys.readouterr().out
    assert told.count("\n") == 8
    assert f"busy.duckdb is open in another program (process {process})" in told
    with held("busy.duckdb") as process:
        assert main(["profile", user, "--db", "busy.duckdb"]) == 1
    assert is_documented(sentence_in(capsys.readouterr().err))


def test_a_second_run_of_one_pipeline_is_told(configured: Desk, capsys: Any) -> None:
    with alone(Place("duckdb", "busy.duckdb", "leadboxer_data", None).pipeline()):
        code, told = run("sync", "--db", "busy.duckdb")
    assert code == PipelineBusy.exit_code
    assert told.startswith("Another process is at work with the pipeline")
    assert is_documented(told), told
    assert not configured.server.requests


def run_quietly(*arguments: str) -> int:
    return subprocess.run([COMMAND, *arguments], capture_output=True, check=False).returncode


LIMITED = """
import ctypes, os, resource, sys
if sys.argv[1] == "files":
    # no file may grow beyond so many bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    # a measurement of coverage would want a larger one when it ends
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
        del os.environ[name]
else:
    # root obeys permissions once it has lost two capabilities (2.7 of linux/capability.h: prctl 24 drops one)
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[3], sys.argv[3:])
"""


def limited(kind: str, value: object = "") -> list[str]:
    """Runs a command in a process that may do less."""
    return [sys.executable, "-c", LIMITED, kind, str(value)]


@pytest.mark.parametrize("most_bytes", [20_000, 500_000], ids=["in dlt's folder", "in the database"])
def test_a_full_disk_is_told_and_loses_nothing(configured: Desk, most_bytes: int) -> None:
    arguments = ("sync", "--db", "desk.duckdb", "--dataset", "lb")
    code, told = run(*arguments, through=limited("files", most_bytes))
    assert code == 1
    assert told.startswith("The disk is full: make room")
    assert is_documented(told), told
    assert run_quietly(*arguments) == 0
    configured.assert_equal_to_truth()


READ_ONLY = ["file", "folder", "working directory", "dlt's folder"]


@pytest.mark.parametrize("what", READ_ONLY)
def test_what_cannot_be_written_is_named(configured: Desk, what: str, monkeypatch: Any, tmp_path: Path) -> None:
    folder, file = tmp_path / "closed", tmp_path / "closed.duckdb"
    folder.mkdir()
    duckdb.connect(str(file)).close()
    file.chmod(0o444)
    folder.chmod(0o555)
    if what == "dlt's folder":
        monkeypatch.setenv("DLT_DATA_DIR", str(folder / "dlt"))
    paths = {"file": [str(file)], "folder": [str(folder / "new.duckdb")], "dlt's folder": ["open.duckdb"]}
    arguments = ["--db", *paths[what]] if what in paths else []
    cwd = folder if what == "working directory" else None
    code, told = run("sync", *arguments, through=limited("permissions"), cwd=cwd)
    assert code == 4
    assert f"{file if what == 'file' else folder}" in told
    assert is_documented(told), told
    assert not configured.server.requests


@pytest.mark.servers
def test_a_destination_that_is_down_is_told(configured: Desk, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", "postgresql://somebody:secret@127.0.0.1:9/nothing")
    assert main(["sync", "--destination", "postgres"]) == 1
    told = sentence_in(capsys.readouterr().err)
    assert told.startswith("The destination does not let us in (")
    assert is_documented(told), told


def test_a_refused_key_gets_its_sentence_and_nothing_else(configured: Desk) -> None:
    environment = {**os.environ, f"{PREFIX}API_KEY": "wrong"}
    command = [COMMAND, "sync", "--db", "new.duckdb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.count("\n") == 1
    assert sentence_in(done.stderr).startswith("LeadBoxer does not know this API key")
    assert not list(Path().glob("new.duckdb*")), "an empty file is left behind"


def test_a_file_with_rows_is_kept_when_a_later_run_is_refused(configured: Desk, monkeypatch: Any) -> None:
    assert run_quietly("sync", "--db", "desk.duckdb", "--max-requests", "10") == 3
    monkeypatch.setenv(f"{PREFIX}API_KEY", "wrong")
    assert run_quietly("sync", "--db", "desk.duckdb") == 5
    assert duckdb.connect("desk.duckdb").execute("SELECT count(*) > 0 FROM leadboxer_data.users").fetchone() == (True,)


def test_an_outage_is_told(configured: Desk, capsys: Any) -> None:
    configured.server.faults.fail_next("sessions", "400", times=100)
    assert main(["sync", "--db", "out.duckdb"]) == 1
    shown = capsys.readouterr().err
    told = sentence_in(shown)
    assert told.startswith("More than 20 users in a row could not be read")
    assert told.endswith(" Nothing of this run is kept, but all of earlier ones; run again later.")
    assert told.count("kept") == 1
    assert is_documented(told), told


def test_a_server_that_goes_away_is_told_in_one_sentence(desk: Desk) -> None:
    environment = {**os.environ, **account(desk), "RUNTIME__LOG_LEVEL": "WARNING"}
    for endpoint in ("sessions", "events"):
        desk.server.faults.fail_next(endpoint, "400", after=5, times=1000)
    done = subprocess.run(
        [COMMAND, "sync", "--db", "out.duckdb"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert " set aside, not kept\n" in done.stderr
    assert "[WARNING]" not in done.stderr
    assert is_documented(sentence_in(done.stderr))


@pytest.mark.parametrize(
    ("environment", "fault", "kind"),
    [
        ({"SITE": "typo"}, None, "ConfigurationInvalid: site is not a LeadBoxer dataset id"),
        ({"API_KEY": "wrong"}, None, "CredentialsRejected: LeadBoxer does not know this API key (401)"),
        ({}, "html_200", "NotLeadBoxer: "),
        ({}, "400", "RequestRefused: "),
    ],
)
def test_the_traceback_is_shown_on_request_and_nothing_else_differs(
    configured: Desk, environment: dict[str, str], fault: str | None, kind: str, monkeypatch: Any, capsys: Any
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)
    if fault:
        configured.server.faults.fail_next("leads", fault, times=50)
    code, plain = main(["sync", "--db", "bad.duckdb"]), capsys.readouterr()
    for arguments in (["--debug", "sync"], ["sync", "--debug"]):
        assert main([*arguments, "--db", "bad.duckdb"]) == code
        shown = capsys.readouterr()
        assert "Traceback" in shown.err
        assert kind in shown.err
        assert sentence_in(shown.err) == sentence_in(plain.err)


ERRORS = {
    *(name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LeadBoxerError)),
    "NoSuchUser",
    "Told",
} - {"Cancelled"}
"""What is called with a sentence; nobody reads that of a run that is cancelled."""


def sentences() -> Iterator[str]:
    """The sentences in the code, with `...` for what differs."""
    for file in (ROOT / "leadboxer_source").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).split(".")[-1] in ERRORS:
                text = node.args[0]
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts)


def is_same(message: str, other: str) -> bool:
    """Whether two sentences that both leave something out can be the same: the longest piece of one is in the other."""
    return any(
        max(one.split("..."), key=len).strip(" .:;()[]") in another
        for one, another in ((message, other), (other, message))
    )


def test_the_documentation_lists_every_sentence_and_no_other() -> None:
    told = [sentence for sentence in sentences() if len(max(sentence.split("..."), key=len)) > 15]
    assert len(told) > 60
    asides = ("the quota is spent for another", "(--debug shows where)")  # in a finding of a check; on the page above
    missing = [sentence for sentence in told if not any(is_same(sentence, message) for message in documented())]
    assert not [sentence for sentence in missing if not any(aside in sentence for aside in asides)]
    seen = [
        *(sentence for *_, sentence in SETTINGS),
        *(sentence for *_, sentence in USAGE),
        *(sentence for *_, sentence in FILES),
        *(sentence for *_, sentence in STRAYS),
        "; see `leadboxer sandbox --help`",
        # tests/test_check.py
        "is ignored, as there is no such setting",
        " as LeadBoxer does: ",
        # of no error
        "Stopped; the slices that were finished are kept",
        "Stopped; no slice was finished",
        "Stopped while it wrote what it had read",
        "cannot be had",
    ]
    assert not [message for message in documented() if not any(is_same(message, known) for known in (*told, *seen))]


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
    [counts] = (
        duckdb.connect("cli.duckdb")
        .execute(
            "SELECT (SELECT count(*) FROM leadboxer_data.users), (SELECT count(*) FROM leadboxer_data.sessions), "
            "(SELECT count(*) FROM leadboxer_data.events), (SELECT count(*) FROM leadboxer_data.properties)"
        )
        .fetchall()
    )
    again = subprocess.run([COMMAND, "sync", "--db", "new.duckdb"], capture_output=True, text=True, check=True)
    users, sessions, events, properties = (f"{count:,}" for count in counts)
    assert (
        f"\nRead {users} users, {sessions} sessions, {events} events, {properties} properties into new.duckdb, "
        "dataset leadboxer_data.\n"
    ) in again.stdout


def test_of_a_part_it_says_what_of_it_was_read(configured: Desk, capsys: Any) -> None:
    assert main(["sync", "--db", "part.duckdb", "--only", "events"]) == 0
    told = capsys.readouterr().out
    with duckdb.connect("part.duckdb") as connection:
        [events] = connection.execute("SELECT count(*) FROM leadboxer_data.events").fetchone() or ()
    assert f"\nRead {events:,} events into part.duckdb, dataset leadboxer_data.\n" in told


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
    with pytest.raises(StateUnreadable) as raised:
        remember({"coverage": stored}, "s")
    assert is_documented(str(raised.value))


def test_promoting_what_has_a_column_already_is_refused(desk: Desk) -> None:
    for promote in (["email"], ["Plan", "plan"], [""], ["_dlt_id"]):
        with pytest.raises(ConfigurationInvalid, match="promote"):
            desk.source(promote=promote)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_minutes": "soon"}, "max_minutes cannot be read: write a number."),
        ({"max_minutes": [5]}, "max_minutes cannot be read: write a number."),
        ({"max_minutes": True}, "max_minutes cannot be read: write a number."),
        ({"max_minutes": "-5"}, "max_minutes is -5: it must be 0 or more."),
        ({"max_requests": "7.5"}, "max_requests cannot be read: write a whole number."),
        ({"chunk_size": 2.5}, "chunk_size cannot be read: write a whole number."),
        ({"settle_seconds": {}}, "settle_seconds cannot be read: write a number."),
        ({"relist_days": float("inf")}, "relist_days cannot be read: write a whole number."),
        ({"rate_limit": 10}, "rate_limit 10 is not a rate: write it like '10/minute' or '10/second', or 'unlimited'."),
        ({"start_date": 20261101}, "start_date 20261101 is not a date: write it like '2026-05-31'."),
        ({"end_date": 1.5}, "end_date 1.5 is not a date: write it like '2026-05-31'."),
        ({"filters": "x"}, 'filters cannot be read: write a table like {"search": "acme"}.'),
        ({"filters": ["search"]}, 'filters cannot be read: write a table like {"search": "acme"}.'),
        ({"display": 5}, "display takes any of company, person, unidentified, joined by ';'."),
        ({"display": [["company"]]}, "display takes any of company, person, unidentified, joined by ';'."),
        ({"promote": 5}, 'promote cannot be read: write a list like ["Customer ID"].'),
        ({"hash_fields": [5]}, 'hash_fields cannot be read: write a list like ["Customer ID"].'),
        ({"hash_key": 5}, "hash_key cannot be read: write a text."),
        ({"site": 5}, "site cannot be read: write a text."),
        ({"api_key": 5}, "api_key cannot be read: write a text."),
        ({"base_url": 5}, "base_url cannot be read: write a text."),
        ({"limiter_store": 5}, "limiter_store cannot be read: write a text."),
    ],
)
def test_a_setting_of_another_type_gets_its_sentence(desk: Desk, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationInvalid) as raised:
        desk.source(**given)
    assert str(raised.value) == sentence
    assert is_documented(sentence)


def test_numbers_may_be_texts_as_templates_send_them(desk: Desk) -> None:
    assert desk.load(max_minutes="5", max_requests=" 3", chunk_size="2", settle_seconds="60").stopped == "requests"
    budgets: dict[str, Any] = {"max_minutes": "5", "max_requests": "3", "slice_minutes": "1"}
    assert desk.sync(rate_limit="unlimited", **budgets)[0].stopped == "requests"
    for name in budgets:
        with pytest.raises(ConfigurationInvalid, match=f"{name} cannot be read: write a "):
            desk.sync(**{name: "soon"})
