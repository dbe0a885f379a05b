"""A lead's whole profile: read from the destination, stitched, shown to people, and never run as code."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unicodedata import category

import dlt
import pytest
from rich.console import Console

from leadboxer_source.cli import main
from leadboxer_source.cli.terminal import Terminal
from leadboxer_source.profile import SESSION_COLUMNS, USER_COLUMNS, Profile, profile_of, read
from leadboxer_source.profile_views import as_html, as_text
from tests import destinations
from tests.conftest import NOW_MS, Desk, World
from tests.test_bad_input import is_documented, sentence_in

MADE_AT = datetime(2026, 11, 18, 12, tzinfo=timezone.utc)
HOSTILE = '"><img src=http://tracker.example/pixel><script>alert(1)</script>'


@pytest.fixture
def show(desk: Desk, capsys: Any) -> Callable[..., tuple[int, str]]:
    """Runs the command over what the desk loaded; returns its exit code and what it said."""

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        destinations.let_go()
        code = main(["profile", *arguments, "--db", str(desk.folder / "desk.duckdb"), "--dataset", "lb"])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run


def known_user(desk: Desk) -> tuple[str, str]:
    """The id and address of the user with an address who has most sessions."""
    [row] = desk.rows(
        "SELECT u.user_id, u.email FROM users u JOIN sessions s USING (user_id) WHERE u.email IS NOT NULL "
        "GROUP BY ALL ORDER BY count(*) DESC, 1 LIMIT 1"
    )
    return row[0], row[1]


@pytest.mark.usefixtures("loaded")
def test_the_whole_profile_is_read(desk: Desk, show: Any) -> None:
    user_id, _ = known_user(desk)
    code, shown = show(user_id, "--json")
    profile = json.loads(shown)
    truth = desk.world.truth()
    sessions = {record["session_id"] for record in truth.sessions if record["use_id"] == user_id}
    events = [record for record in truth.events if record["session_id"] in sessions]
    assert (code, profile["user_id"]) == (0, user_id)
    assert {visit["session_id"] for visit in profile["visits"]} == sessions
    hits = [hit for visit in profile["visits"] for hit in visit["hits"]]
    assert sorted(hit["title"] for hit in hits) == sorted(record["title"] for record in events)
    assert hits == sorted(hits, key=lambda hit: hit["at"]), "oldest first"
    [values] = desk.rows(
        f"SELECT count(*) FROM properties p JOIN sessions s USING (session_id) WHERE s.user_id = '{user_id}'"
    )
    assert sum(len(hit["properties"]) for hit in hits) == values[0] > 0


@pytest.mark.usefixtures("loaded")
def test_the_timeline_can_be_read_in_a_terminal(desk: Desk, show: Any) -> None:
    user_id, email = known_user(desk)
    code, shown = show(email.upper())
    assert code == 0
    titles = desk.rows(f"SELECT e.title FROM events e JOIN sessions s USING (session_id) WHERE s.user_id = '{user_id}'")
    assert f"visits with {len(titles)} hits from" in shown
    assert all(title in shown for (title,) in titles)


@pytest.mark.parametrize("who", ["1.2", "nobody@nowhere.example"])
@pytest.mark.usefixtures("loaded")
def test_an_unknown_user_is_told(desk: Desk, show: Any, who: str) -> None:
    code, shown = show(who)
    assert code == 1
    assert shown.startswith("leadboxer: No loaded user has this")
    assert is_documented(sentence_in(shown))
    assert who not in shown


def test_several_users_with_one_address_are_named(desk: Desk, show: Any) -> None:
    source = desk.source()
    source.users.add_map(lambda user: {**user, "email": "shared@widgets.example"})
    desk.pipeline().run(source)
    code, shown = show("shared@widgets.example")
    assert code == 1
    newest = desk.rows("SELECT user_id FROM users ORDER BY last_event_at DESC LIMIT 10")
    assert f"name one of them: {', '.join(row[0] for row in newest)} and 30 more." in shown
    assert is_documented(sentence_in(shown))


@pytest.mark.parametrize("row_left", [True, False], ids=["row left over", "row never loaded"])
@pytest.mark.usefixtures("loaded")
def test_a_merged_user_leads_to_the_one_they_became(desk: Desk, show: Any, row_left: bool) -> None:
    loser, winner = desk.world.user_ids()[3], desk.world.user_ids()[7]
    desk.clock.advance(3_600)
    desk.world.merge(loser, winner, desk.now_ms)
    desk.load()
    if not row_left:
        with dlt.attach("desk", str(desk.folder / "pipelines")).sql_client() as sql:
            sql.execute_sql("DELETE FROM users WHERE user_id = %s", loser)
    code, shown = show(loser, "--json")
    profile = json.loads(shown)
    assert (code, profile["user_id"], profile["merged_from"]) == (0, winner, loser)
    owned = {record["session_id"] for record in desk.world.truth().sessions if record["use_id"] == winner}
    assert {visit["session_id"] for visit in profile["visits"]} == owned
    assert f"{loser} was merged into this user." in show(loser)[1]


def test_a_profile_without_sessions_says_so(desk: Desk, show: Any) -> None:
    desk.load(only=("users",))
    code, shown = show(desk.world.user_ids()[0])
    assert code == 0
    assert "No visits are loaded for this user." in shown


def test_where_nothing_is_loaded_it_says_so_and_makes_no_file(show: Any, capsys: Any) -> None:
    assert main(["profile", "1.2", "--db", "none.duckdb"]) == 4
    assert "run `leadboxer sync` first" in capsys.readouterr().err
    assert not Path("none.duckdb").exists()


def lead(**changes: Any) -> Profile:
    """A lead with two visits, all of whose texts are given."""
    text = changes.get("text", "text")
    user: dict[str, Any] = dict.fromkeys(USER_COLUMNS, text)
    user |= {"first_seen_at": None, "last_event_at": MADE_AT, "lead_score": 7.0, "properties": json.dumps({text: text})}
    session = dict.fromkeys(SESSION_COLUMNS, text)
    times = {"started_at": "2026-03-01T09:00:00", "last_event_at": "2026-03-01T10:00:00"}  # some drop the zone
    sessions = [
        {**session, "session_id": "one", **times},
        {**session, "session_id": "two", "started_at": None, "last_event_at": None},
    ]
    event = {"session_id": "one", "title": text, "root_url": text, "referrer": text}
    events = [
        {**event, "event_key": "b", "occurred_at": "2026-03-01T09:30:00+00:00"},
        {**event, "event_key": "a", "occurred_at": None},
    ]
    return profile_of(user, sessions, events, [{"event_key": "b", "name": text, "value": text}])


def test_nothing_that_was_loaded_becomes_markup() -> None:
    page = as_html(lead(text=HOSTILE), MADE_AT)
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;") > 10
    console = Console(width=200, file=open("/dev/null", "w"), record=True)  # noqa: SIM115, PTH123 - the recorder's sink
    with console.file:
        console.print(as_text(lead(text="[bold red]brackets[/]")))
        assert "[bold red]brackets[/]" in console.export_text()


CONTROLS = "\x1b]0;owned\x07\x1b[2J\x9b31m\x00\r\x7f"


def controls_in(text: str) -> set[str]:
    return {char for char in text if category(char) == "Cc"} - {"\n"}


def test_what_a_visitor_wrote_does_not_command_the_terminal(desk: Desk, show: Any) -> None:
    desk.with_world(World(seed=5, users=6, days=3, now_ms=NOW_MS))
    source = desk.source()
    source.users.add_map(lambda user: {**user, "first_name": f"Ada{CONTROLS}", "last_company": CONTROLS})
    source.sessions.add_map(lambda session: {**session, "referrer": CONTROLS, "city": CONTROLS, "channel": CONTROLS})
    source.events.add_map(lambda event: {**event, "title": f"Page {CONTROLS}", "original_url": f"/{CONTROLS}"})
    source.properties.add_map(lambda row: {**row, "value": CONTROLS})
    desk.pipeline().run(source)
    user_id = desk.rows("SELECT user_id FROM properties JOIN sessions USING (session_id) LIMIT 1")[0][0]
    told = {way: show(user_id, *way.split()) for way in ("", "--html page.html", "--json")}
    for way, (code, shown) in told.items():
        assert code == 0
        assert "Ada" in shown
        assert not controls_in(shown), way
    assert {hit["title"] for visit in json.loads(told["--json"][1])["visits"] for hit in visit["hits"]} == {
        f"Page {CONTROLS}"
    }


def test_a_terminal_gets_the_colours_and_no_other_command() -> None:
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, width=200).print(as_text(lead(text=CONTROLS)))
    coloured = out.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert plain != coloured
    assert not controls_in(plain)
    assert "\\u001b]0;owned" in plain


def test_unknown_times_are_shown_last_and_do_not_hurt() -> None:
    profile = lead()
    assert [visit.session_id for visit in profile.visits] == ["one", "two"]
    assert [hit.at is None for hit in profile.visits[0].hits] == [False, True]
    assert "at an unknown time" in as_html(profile, MADE_AT)
    assert "javascript" not in as_html(lead(text="javascript:alert(1)"), MADE_AT).split("Open in LeadBoxer")[0][-80:]


@contextmanager
def proxy() -> Iterator[tuple[int, list[str]]]:
    """A proxy that lets nothing through; yields its port and what was asked of it."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            asked.append(self.rfile.readline().decode(errors="replace").strip())
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def rendered(page: Path, port: int, folder: Path) -> str:
    """What a browser makes of a page, all of whose requests would go to a proxy."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.fail("chromium is not installed: `make servers` installs it on Debian.")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={folder}",
        f"--proxy-server=http://127.0.0.1:{port}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.servers
@pytest.mark.usefixtures("loaded")
def test_a_browser_shows_the_visits_and_sends_nothing(desk: Desk, show: Any, tmp_path: Path) -> None:
    user_id, _ = known_user(desk)
    page = tmp_path / "lead.html"
    code, shown = show(user_id, "--html", str(page))
    assert (code, shown[:5]) == (0, "Wrote")
    hostile, control = tmp_path / "hostile.html", tmp_path / "control.html"
    hostile.write_text(as_html(lead(text=HOSTILE), MADE_AT))
    control.write_text("<img src=http://tracker.example/pixel>")
    with proxy() as (port, asked):
        drawn = rendered(page, port, tmp_path / "one")
        visits = desk.rows(f"SELECT 1 FROM sessions WHERE user_id = '{user_id}'")
        assert drawn.count("<article") == drawn.count("<circle") == len(visits) > 1
        assert all(f'href="#visit-{number}"' in drawn for number in range(1, len(visits) + 1))
        assert "<img" not in rendered(hostile, port, tmp_path / "two")
        assert not [line for line in asked if "tracker.example" in line]
        rendered(control, port, tmp_path / "three")
        assert [line for line in asked if "tracker.example" in line], "the proxy sees what a page asks for"


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_of_files_it_takes_the_row_that_was_read_last(desk: Desk, file_format: Any) -> None:
    desk.with_world(World(seed=3, users=6, days=5, now_ms=NOW_MS))
    files = dlt.pipeline(
        "files",
        destination=dlt.destinations.filesystem(str(desk.folder / "lake")),
        dataset_name="lb",
        pipelines_dir=str(desk.folder / "files"),
    )
    loser, winner, *others = desk.world.user_ids()

    def load() -> None:
        desk.clock.advance(3_600)
        desk.load()
        files.run(desk.source(), loader_file_format=file_format)

    load()
    for user_id in (winner, *others):
        desk.world.return_user(user_id, desk.now_ms)
    load()
    desk.world.merge(loser, winner, desk.now_ms)
    load()
    with files.sql_client() as lake:
        table = lake.make_qualified_table_name("users")
        [[rows, users]] = lake.execute_sql(f"SELECT count(*), count(DISTINCT user_id) FROM {table}") or ()
        assert rows > users == 6, "a user stands there once for each run that listed them"
    for user_id in desk.world.user_ids():
        with desk.pipeline().sql_client() as here, files.sql_client() as there:
            assert read(there, user_id) == read(here, user_id)


@pytest.mark.servers
def test_it_reads_the_same_from_postgres(desk: Desk, postgres: str) -> None:
    desk.with_world(World(seed=3, users=6, days=5, now_ms=NOW_MS))
    desk.load()
    elsewhere = dlt.pipeline(
        "elsewhere",
        destination=dlt.destinations.postgres(postgres.replace("@", ":trusted@")),
        dataset_name="profiles",
        pipelines_dir=str(desk.folder / "elsewhere"),
    )
    elsewhere.run(desk.source())
    for user_id in desk.world.user_ids():
        with desk.pipeline().sql_client() as here, elsewhere.sql_client() as there:
            assert read(there, user_id) == read(here, user_id)
