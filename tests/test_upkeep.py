"""What is read again, and who is forgotten: in the destination, in the state, in later loads and after a crash."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dlt
import pytest

from leadboxer_source import settings
from leadboxer_source.cli import main
from leadboxer_source.errors import ConfigurationInvalid, PipelineBusy, StateUnreadable
from leadboxer_source.lock import alone
from leadboxer_source.rows import instant
from leadboxer_source.sandbox import World
from leadboxer_source.state import FORGOTTEN
from leadboxer_source.upkeep import forget, resync
from tests.conftest import NOW_MS, Desk

DAY_S = 86_400
TABLES = ("users", "sessions", "events", "properties", "load_failures")


def since(desk: Desk, days: float) -> str:
    return instant(desk.now_ms - int(days * DAY_S * 1000)).isoformat()


def last_seen(desk: Desk, days: float) -> set[str]:
    return {user for user in desk.world.user_ids() if desk.world.last_ms(user) >= desk.now_ms - days * DAY_S * 1000}


def a_user(desk: Desk) -> str:
    """A user with several sessions."""
    ((user_id,),) = desk.rows("SELECT user_id FROM sessions GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1")
    return str(user_id)


def rows_about(desk: Desk, user_id: str) -> dict[str, int]:
    sessions = [record["session_id"] for record in desk.world.session_records(user_id) or []]
    ids = ", ".join(f"'{found}'" for found in [user_id, *sessions])
    found = {}
    for schema in ("lb", "lb_staging"):
        for table in ("users", "sessions", "events", "properties"):
            columns = {name for (name,) in desk.rows(f"SELECT column_name FROM (DESCRIBE {schema}.{table})")}
            conditions = [f"{name} IN ({ids})" for name in ("user_id", "session_id") if name in columns]
            ((found[f"{schema}.{table}"],),) = desk.rows(
                f"SELECT count(*) FROM {schema}.{table} WHERE {' OR '.join(conditions)}"
            )
    return {table: count for table, count in found.items() if count}


@pytest.mark.usefixtures("loaded")
def test_what_was_active_since_is_read_again_and_nothing_else(desk: Desk) -> None:
    assert resync(desk.pipeline(), since(desk, 5), site=desk.world.site) == [
        "users",
        "sessions",
        "events",
        "properties",
    ]
    desk.load_until_done()
    asked = {request.params["leadId"] for request in desk.server.requests if request.endpoint == "sessions"}
    assert asked == last_seen(desk, 5)
    assert asked < set(desk.world.user_ids())
    desk.assert_equal_to_truth()


@pytest.mark.usefixtures("loaded")
def test_a_change_that_moves_nothing_is_seen_after_it(desk: Desk) -> None:
    user_id = desk.world.user_ids()[0]
    desk.rows(f"UPDATE events SET title = 'changed' WHERE user_id = '{user_id}'")
    desk.load_until_done()
    assert desk.rows("SELECT count(*) FROM events WHERE title = 'changed'") != [(0,)]
    resync(desk.pipeline(), "2020-01-01", site=desk.world.site)
    desk.load_until_done()
    assert desk.rows("SELECT count(*) FROM events WHERE title = 'changed'") == [(0,)]
    desk.assert_equal_to_truth()


@pytest.mark.usefixtures("loaded")
def test_only_the_named_resources_are_read_again(desk: Desk) -> None:
    assert resync(desk.pipeline(), "2020-01-01", only=["users"], site=desk.world.site) == ["users"]
    desk.load_until_done()
    assert set(desk.requests()) == {"leads"}
    assert resync(desk.pipeline(), "2999-01-01", site=desk.world.site) == []


@pytest.mark.usefixtures("loaded")
def test_what_is_uncovered_is_so_in_the_destination_too(desk: Desk) -> None:
    resync(desk.pipeline(), since(desk, 5), site=desk.world.site)
    shutil.rmtree(desk.folder / "pipelines")
    desk.load_until_done()
    assert desk.requests()["sessions"] == len(last_seen(desk, 5))


@pytest.mark.usefixtures("loaded")
def test_another_scope_stays_covered(desk: Desk) -> None:
    desk.load_until_done(display="company")
    resync(desk.pipeline(), "2020-01-01", site=desk.world.site, display="company")
    desk.load()
    assert set(desk.requests()) == {"leads"}
    desk.load_until_done(display="company")
    assert desk.requests()["sessions"] > 0


@pytest.mark.parametrize("wrong", ["", "soon"])
def test_a_wrong_date_or_resource_is_told(desk: Desk, wrong: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="write it like"):
        resync(desk.pipeline(), wrong, site=desk.world.site)
    with pytest.raises(ConfigurationInvalid, match="can be read again"):
        resync(desk.pipeline(), "2026-01-01", only=["load_failures"], site=desk.world.site)


def test_an_address_is_no_user_id(desk: Desk) -> None:
    with pytest.raises(ConfigurationInvalid, match="not by e-mail address"):
        forget(desk.pipeline(), "ada@widgets.example", site=desk.world.site)


@pytest.mark.usefixtures("loaded")
def test_who_was_never_loaded_is_told_and_kept_out(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--db", "desk.duckdb", "--dataset", "lb", "--pipeline", "desk", "--site", desk.world.site]
    shutil.copytree(desk.folder / "pipelines", desk.folder / "dlt" / "pipelines")
    assert main(["forget", *place, "17.4"]) == 0
    assert "No rows of a user 17.4 were found" in capsys.readouterr().out
    assert main(["resync", *place, "--since", "2020-01-01"]) == 0
    assert "Run `leadboxer sync --db desk.duckdb --dataset lb --pipeline desk` now." in capsys.readouterr().out


@pytest.mark.parametrize("command", [["forget", "1.2"], ["resync", "--since", "2020-01-01"]])
def test_a_file_that_is_not_there_is_told_and_not_made(
    desk: Desk, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--db", "typo.duckdb"]) == 4
    assert "There is no" in capsys.readouterr().err
    assert not (desk.folder / "typo.duckdb").exists()


def test_a_pipeline_that_loaded_nothing_has_nothing_to_keep_up(desk: Desk) -> None:
    for upkeep in (lambda: resync(desk.pipeline(), "2026-01-01", site=desk.world.site), lambda: forgotten(desk, "1.2")):
        with pytest.raises(ConfigurationInvalid, match="Nothing was ever loaded from LeadBoxer"):
            upkeep()


def forgotten(desk: Desk, user_id: str) -> dict[str, int]:
    return forget(desk.pipeline(), user_id, site=desk.world.site)


@pytest.mark.usefixtures("loaded")
def test_who_is_forgotten_is_in_no_table_and_does_not_come_back(desk: Desk) -> None:
    user_id = a_user(desk)
    about, others = rows_about(desk, user_id), desk.rows("SELECT count(*) FROM users")[0][0]
    assert set(about) >= {"lb.users", "lb.sessions", "lb.events", "lb_staging.sessions"}
    deleted = forgotten(desk, user_id)
    assert {f"lb.{table}": count for table, count in deleted.items() if count} == {
        table: count for table, count in about.items() if not table.startswith("lb_staging")
    }
    assert not rows_about(desk, user_id)
    desk.world.return_user(user_id, desk.now_ms - 400_000)
    desk.load_until_done()
    assert user_id not in {request.params.get("leadId") for request in desk.server.requests}
    desk.load(relist_days=30)
    resync(desk.pipeline(), "2020-01-01", site=desk.world.site)
    desk.load_until_done()
    assert not rows_about(desk, user_id)
    assert desk.rows("SELECT count(*) FROM users") == [(others - 1,)]


@pytest.mark.usefixtures("loaded")
def test_blanks_around_an_id_do_not_matter(desk: Desk) -> None:
    user_id = a_user(desk)
    assert forgotten(desk, f" {user_id}\n")["users"] == 1
    desk.pipeline().run(desk.source(), refresh="drop_sources")
    assert not rows_about(desk, user_id)


@pytest.mark.usefixtures("loaded")
def test_neither_a_lost_folder_nor_a_load_from_scratch_brings_anybody_back(desk: Desk) -> None:
    user_id = a_user(desk)
    forgotten(desk, user_id)
    shutil.rmtree(desk.folder / "pipelines")
    desk.load_until_done()
    assert not rows_about(desk, user_id)
    desk.pipeline().run(desk.source(), refresh="drop_sources", loader_file_format="parquet")
    desk.load_until_done()
    assert not rows_about(desk, user_id)
    assert desk.rows("SELECT count(*) FROM users") == [(len(desk.world.user_ids()) - 1,)]


@pytest.mark.usefixtures("loaded")
def test_users_of_ones_own_bring_nobody_back(desk: Desk) -> None:
    user_id, other, *_ = (user for (user,) in desk.rows("SELECT DISTINCT user_id FROM events ORDER BY user_id"))
    forgotten(desk, user_id)
    desk.rows("DELETE FROM sessions")
    source = desk.source()
    ours = dlt.resource([{"user_id": user_id}, {"user_id": other}], name="ours")
    desk.server.clear_requests()
    desk.pipeline().run([ours | source.sessions, source.events])
    assert desk.rows("SELECT DISTINCT user_id FROM sessions") == [(other,)]
    assert not rows_about(desk, user_id)
    assert user_id not in {request.params.get("leadId") for request in desk.server.requests}


@pytest.mark.usefixtures("loaded")
def test_the_state_keeps_no_id_of_who_is_forgotten(desk: Desk) -> None:
    user_id = a_user(desk)
    forgotten(desk, user_id)
    assert user_id not in str(desk.pipeline().state["sources"])
    assert not [path for path in files_below(desk.folder / "pipelines") if user_id.encode() in path.read_bytes()]


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_who_was_set_aside_is_not_tried_again(desk: Desk) -> None:
    user_id = desk.world.user_ids()[0]
    (session_id, *_) = [record["session_id"] for record in desk.world.session_records(user_id) or []]
    desk.load_until_done()
    pipeline = desk.pipeline()
    with pipeline.managed_state(extract_state=True) as state:
        resources: Any = state["sources"]["leadboxer"]["resources"]
        for name, parent in (("sessions", user_id), ("events", session_id)):
            resources[name]["coverage"]["scopes"][desk.world.site]["set_aside"] = {parent: {"since": 1, "attempts": 1}}
    pipeline.run()
    forgotten(desk, user_id)
    desk.load()
    assert set(desk.requests()) == {"leads"}


@pytest.mark.parametrize("merged_lead", ["winner", "404"])
def test_sessions_that_a_merge_gave_to_the_forgotten_are_left_out(desk: Desk, merged_lead: Any) -> None:
    desk.reading(merged_lead=merged_lead)
    desk.load_until_done()
    user_id = a_user(desk)
    forgotten(desk, user_id)
    other = next(found for found in desk.world.user_ids() if found != user_id)
    resync(desk.pipeline(), "2020-01-01", site=desk.world.site)

    def merge(request: Any) -> None:
        if request.params.get("leadId") == other and desk.world.has_user(other):
            desk.world.merge(other, user_id, desk.now_ms)

    desk.server.on_request = merge
    desk.load_until_done()
    assert desk.rows(f"SELECT * FROM sessions WHERE user_id = '{user_id}'") == []
    assert desk.rows(f"SELECT * FROM events WHERE user_id = '{user_id}'") == []


def test_a_crash_between_state_and_deletion_is_mended_by_a_second_try(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.load_until_done()
    user_id = a_user(desk)
    from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient

    execute = DuckDbSqlClient.execute_sql
    for survived in range(12):
        left = survived

        def dies(self: Any, sql: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if str(sql).startswith("DELETE FROM") and args:
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
            return execute(self, sql, *args, **kwargs)

        monkeypatch.setattr(DuckDbSqlClient, "execute_sql", dies)
        try:
            forgotten(desk, user_id)
        except KeyboardInterrupt:
            monkeypatch.setattr(DuckDbSqlClient, "execute_sql", execute)
            if not survived:
                desk.load()
                assert user_id not in {request.params.get("leadId") for request in desk.server.requests}
        else:
            break
    else:
        raise AssertionError("it never ended")
    assert survived > 5
    assert not rows_about(desk, user_id)


def test_a_destination_that_cannot_delete_says_what_is_left_to_do(desk: Desk) -> None:
    pipeline = dlt.pipeline(
        "files",
        destination=dlt.destinations.filesystem(str(desk.folder / "files")),
        dataset_name="lb",
        pipelines_dir=str(desk.folder / "pipelines"),
    )
    pipeline.run(desk.source(), loader_file_format="jsonl")
    user_id = desk.world.user_ids()[0]
    with pytest.raises(ConfigurationInvalid, match="kept out of later loads from now on, but filesystem cannot delete"):
        forget(pipeline, user_id, site=desk.world.site)
    desk.world.return_user(user_id, desk.now_ms - 400_000)
    desk.server.clear_requests()
    pipeline.run(desk.source(), loader_file_format="jsonl")
    assert set(desk.requests()) == {"leads"}


def test_only_so_many_can_be_forgotten_and_a_damaged_list_is_no_empty_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.load_until_done()
    monkeypatch.setattr(settings, "MAX_FORGOTTEN", 2)
    users = desk.world.user_ids()
    for user_id in [*users[:2], users[0]]:
        forgotten(desk, user_id)
    with pytest.raises(ConfigurationInvalid, match="2 people"):
        forgotten(desk, users[2])
    with desk.pipeline().managed_state() as state:
        state["sources"][FORGOTTEN] = {"version": 2}
    with pytest.raises(StateUnreadable):
        forgotten(desk, users[2])
    with pytest.raises(Exception, match="list of forgotten people"):
        desk.load()


@pytest.mark.usefixtures("loaded")
def test_forgetting_waits_for_no_running_load(desk: Desk) -> None:
    with alone(desk.pipeline()):
        with pytest.raises(PipelineBusy, match="desk"):
            forgotten(desk, desk.world.user_ids()[0])
        with pytest.raises(PipelineBusy):
            resync(desk.pipeline(), "2026-01-01", site=desk.world.site)
    assert desk.rows("SELECT count(*) FROM users") == [(len(desk.world.user_ids()),)]


def test_the_command_line_does_both(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.with_world(World(seed=5, users=8, days=3, now_ms=NOW_MS))
    desk.configure(monkeypatch)
    place = ["--db", str(desk.folder / "desk.duckdb"), "--dataset", "lb"]
    assert main(["sync", *place, "--rate-limit", "unlimited"]) in (0, 3)
    assert main(["resync", *place, "--since", "2026-11-01", "--only", "events,properties"]) == 0
    assert "events, properties" in capsys.readouterr().out
    user_id = desk.world.user_ids()[0]
    assert main(["forget", *place, user_id]) == 0
    told = capsys.readouterr().out
    assert "1 of users" in told
    assert user_id not in told
    assert desk.rows(f"SELECT count(*) FROM users WHERE user_id = '{user_id}'") == [(0,)]
    assert main(["forget", *place, user_id]) == 0
    assert main(["resync", *place, "--since", "soon"]) == 4


@pytest.mark.servers
def test_postgres_forgets_too(desk: Desk, postgres: str) -> None:
    def made() -> dlt.Pipeline:
        return dlt.pipeline(
            "forgetful",
            destination=dlt.destinations.postgres(postgres.replace("loader@", "loader:any@")),
            dataset_name="forgetful",
            pipelines_dir=str(desk.folder / "pipelines"),
        )

    made().run(desk.source(max_requests=30, chunk_size=5))

    def people(schema: str, table: str) -> set[str]:
        with made().sql_client() as client:
            rows = client.execute_sql(f"SELECT DISTINCT user_id FROM {schema}.{table}")
        return {str(row[0]) for row in rows or ()}

    user_id = min(people("forgetful", "events"))
    places = [
        (schema, table) for schema in ("forgetful", "forgetful_staging") for table in ("users", "sessions", "events")
    ]
    assert all(user_id in people(*place) for place in places)
    deleted = forget(made(), user_id, site=desk.world.site)
    assert min(deleted[table] for table in ("users", "sessions", "events")) >= 1
    assert not any(user_id in people(*place) for place in places)
    shutil.rmtree(desk.folder / "pipelines")
    resync(made(), "2020-01-01", site=desk.world.site)
    made().run(desk.source())
    assert len(people("forgetful", "users")) == len(desk.world.user_ids()) - 1
