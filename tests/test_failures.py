"""What fails for a while is tried again; what keeps failing is set aside; too much of it is an outage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from leadboxer_source import Report, SyncResult, settings
from leadboxer_source.cli import main
from leadboxer_source.errors import ApiUnavailable
from leadboxer_source.sandbox import Faults, Profile, World
from leadboxer_source.sandbox.faults import RETRYABLE
from leadboxer_source.upkeep import resync
from tests.conftest import NOW_MS, Desk
from tests.oracle import HandClock, Order
from tests.test_oracle import InMemoryMachine


def later_visit(desk: Desk) -> str:
    """A session whose id is nobody's: a first one has the id of its user."""
    users = set(desk.world.user_ids())
    return next(id_ for session in desk.world.truth().sessions if (id_ := str(session["session_id"])) not in users)


@pytest.mark.parametrize("fault", [*RETRYABLE, "timeout_after", "wrong_type"])
def test_a_passing_fault_loses_nothing(desk: Desk, fault: str) -> None:
    desk.with_world(World(seed=5, users=10, days=3, now_ms=NOW_MS)).reading(max_limit=4)
    for endpoint in ("leads", "sessions", "events"):
        desk.server.faults.fail_next(endpoint, fault, after=2, times=2)
    desk.load(start_date="2026-11-10")
    desk.load_until_done(start_date="2026-11-10")
    desk.assert_equal_to_truth()
    assert desk.rows("SELECT count(*) FROM load_failures") == [(0,)]


def test_at_a_fifth_of_faulty_requests_the_load_ends_equal_to_the_truth(desk: Desk) -> None:
    desk.server.faults = Faults.mixed(0.2, seed=1)
    desk.load_until_done()
    desk.assert_equal_to_truth()


def sync_with(desk: Desk, befalls: Callable[[Desk], None]) -> SyncResult:
    """Syncs in several slices; something happens between the first and the second."""
    desk.with_world(World(seed=5, users=20, days=20, now_ms=NOW_MS))
    ended: set[str] = set()

    def watch(report: Report) -> None:
        if report.stopped and report.run_id not in ended:
            ended.add(report.run_id)
            if len(ended) == 1:
                befalls(desk)

    result, _ = desk.sync(rate_limit="10/minute", slice_minutes=1, chunk_size=5, watch=watch)
    return result


@pytest.mark.parametrize("fault", ["503_empty", "html_200", "reset"])
def test_a_moments_trouble_when_a_slice_begins_does_not_end_a_sync(desk: Desk, fault: str) -> None:
    assert sync_with(desk, lambda desk: desk.server.faults.fail_next("leads", fault, times=4)).complete
    desk.assert_equal_to_truth()


def test_a_server_that_is_gone_after_a_slice_is_no_typing_error_in_its_address(desk: Desk) -> None:
    with pytest.raises(ApiUnavailable, match=r"connection refused; what was loaded is kept, run again later\.$"):
        sync_with(desk, lambda desk: desk.server.stop())


@pytest.mark.parametrize("fault", ["500", "400", "html_200"])
def test_a_poisoned_session_is_set_aside_and_cleared_when_it_heals(desk: Desk, fault: str) -> None:
    session = later_visit(desk)
    desk.server.faults.poison(session, fault)
    assert desk.load().complete
    assert desk.rows("SELECT resource, id, attempts FROM load_failures") == [("events", session, 1)]
    desk.load()
    assert desk.rows("SELECT id, attempts FROM load_failures") == [(session, 2)]
    desk.server.faults.heal(session)
    desk.load()
    assert [r.params["sessionId"] for r in desk.server.requests if r.endpoint == "events"] == [session]
    assert desk.rows("SELECT count(*) FROM load_failures") == [(0,)]
    desk.assert_equal_to_truth()
    desk.load()
    assert set(desk.requests()) == {"leads"}


def test_a_poisoned_user_is_set_aside_and_loaded_whole_when_it_heals(desk: Desk) -> None:
    user = max(desk.world.user_ids(), key=lambda user: len(desk.world.session_records(user) or ()))
    desk.server.faults.poison(user, "500")
    assert desk.load().complete
    desk.server.faults.heal(user)
    desk.load()
    desk.assert_equal_to_truth()


@pytest.mark.parametrize(
    ("arguments", "how", "joined"),
    [
        ([], "All is covered", ", but"),
        (
            ["--end-date", f"{datetime.now(timezone.utc) + timedelta(1):%Y-%m-%d}"],
            "All of that stretch is loaded",
            ", but",
        ),
        (["--max-requests", "30"], "Requests used up; run it again to go on", "."),
    ],
    ids=["all", "one-off", "a part"],
)
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_sync_says_at_its_end_what_it_could_not_read(
    desk: Desk, arguments: list[str], how: str, joined: str, number: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    desk.with_world(World(seed=5, users=30, days=3, now_ms=int(time.time() * 1000)), clock=time.time)
    desk.configure(monkeypatch, rate_limit="unlimited", limiter_store=":memory:", chunk_size="5")
    for user_id in sorted(desk.world.user_ids(), key=desk.world.last_ms)[30 - number :]:
        desk.server.faults.poison(user_id, "400")
    main(["sync", *arguments])
    [closing, *_] = capsys.readouterr().out.splitlines()
    named = "1 user or session" if number == 1 else f"{number} users or sessions"
    but = f"{joined} {named} could not be read whole yet: the table load_failures names them" if number else ""
    assert closing == f"{how}{but}."
    main(["sync", *arguments, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["set_aside"] == told["runs"][-1]["set_aside"] == number


@pytest.mark.parametrize("endpoint", ["sessions", "events"])
def test_an_outage_fails_the_run_and_keeps_nothing_of_it(desk: Desk, endpoint: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("leadboxer_source.settings.MAX_FAILURES", 3)
    desk.load(max_requests=30, chunk_size=5)
    before = desk.rows("SELECT count(*) FROM events")
    desk.server.faults = Faults({"500": 1.0}, endpoints=[endpoint])
    with pytest.raises(Exception, match="Nothing of this run is kept"):
        desk.load()
    assert desk.rows("SELECT count(*) FROM events") == before
    desk.server.faults = Faults()
    desk.load_until_done()
    desk.assert_equal_to_truth()


def test_any_number_of_bad_sessions_is_set_aside_as_long_as_others_can_be_read(desk: Desk) -> None:
    desk.with_world(World(seed=5, users=100, days=20, now_ms=NOW_MS))
    sessions = sorted(desk.world.truth().sessions, key=lambda session: -int(session["lastEvent"]))
    bad = {session["session_id"] for session in sessions[::2]} - set(desk.world.user_ids())
    assert len(bad) > settings.MAX_FAILURES
    for session_id in bad:
        desk.server.faults.poison(session_id, "400")
    assert desk.load().complete
    assert {found for (found,) in desk.rows("SELECT id FROM load_failures")} == bad
    for session_id in bad:
        desk.server.faults.poison(session_id, "500")
    desk.load()
    assert desk.requests() == {"leads": 1, "events": len(bad)}, "what failed before is asked for once in a run"
    for session_id in bad:
        desk.server.faults.heal(session_id)
    desk.load()
    desk.assert_equal_to_truth()


def test_one_session_that_may_not_be_read_is_set_aside(desk: Desk) -> None:
    session = later_visit(desk)
    desk.server.faults.poison(session, "403")
    assert desk.load().complete
    assert desk.rows("SELECT id FROM load_failures") == [(session,)]


@pytest.mark.parametrize("endpoint", ["sessions", "events"])
def test_a_key_that_may_read_nobody_is_told(desk: Desk, endpoint: str) -> None:
    desk.server.faults = Faults({"403": 1.0}, endpoints=[endpoint])
    with pytest.raises(Exception, match="may not read"):
        desk.load()


@pytest.mark.parametrize("endpoint", ["sessions", "events"])
@pytest.mark.parametrize("users", [5, 60])
def test_an_endpoint_that_knows_nobody_for_a_while_loses_nothing(desk: Desk, endpoint: str, users: int) -> None:
    desk.with_world(World(seed=5, users=users, days=3, now_ms=NOW_MS))
    desk.server.faults = Faults({"404": 1.0}, endpoints=[endpoint])
    if users > settings.MAX_FAILURES:
        with pytest.raises(Exception, match="does not know whom it has just listed"):
            desk.load()
    else:
        desk.load()
        assert len(desk.rows("SELECT id FROM load_failures")) >= users
    desk.server.faults = Faults()
    desk.load()
    assert desk.rows("SELECT count(*) FROM load_failures") == [(0,)]
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("endpoint", ["sessions", "events"])
def test_an_endpoint_that_has_nothing_for_anybody_is_warned_of(
    desk: Desk, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("leadboxer_source.children.logger.warning", told.append)
    desk.server.faults = Faults({"empty_list": 1.0}, endpoints=[endpoint])
    assert desk.load().complete
    assert [f"LeadBoxer had no {endpoint} for any of " in sentence for sentence in told] == [True]
    desk.server.faults = Faults()
    told.clear()
    desk.clock.advance(3_600)
    desk.world.return_user(desk.world.user_ids()[0], desk.now_ms - 600_000)
    desk.load()
    resync(desk.pipeline(), "2025-01-01", site=desk.world.site)
    desk.load()
    desk.assert_equal_to_truth()
    assert told == []


def test_what_a_one_off_could_not_read_is_named(desk: Desk) -> None:
    session = later_visit(desk)
    desk.server.faults.poison(session, "400")
    assert not desk.load(start_date="2025-01-01", end_date="2027-01-01").complete
    assert desk.rows("SELECT id FROM load_failures") == [(session,)]


def test_users_without_an_id_are_left_out_and_the_rest_arrives(desk: Desk) -> None:
    real = desk.world.user_record
    nameless = desk.world.user_ids()[3]

    def record(user_id: str, now_ms: int) -> dict[str, Any]:
        found = real(user_id, now_ms)
        return {name: value for name, value in found.items() if user_id != nameless or name != "use_id"}

    desk.world.user_record = record  # type: ignore[method-assign]  # the world is data here
    desk.load()
    assert desk.rows("SELECT count(*) FROM users") == [(39,)]


@pytest.mark.parametrize(
    ("endpoint", "some"),
    [("sessions", ("users", "sessions")), ("sessions", ("events", "properties")), ("events", ("events",))],
    ids=str,
)
def test_what_healed_stays_owed_to_those_who_claimed_it_and_were_not_loaded(
    desk: Desk, endpoint: str, some: tuple[str, ...]
) -> None:
    desk.with_world(World(seed=5, users=6, days=3, now_ms=NOW_MS))
    user = max(desk.world.user_ids(), key=lambda user: len(desk.world.session_records(user) or ()))
    sessions = desk.world.session_records(user) or []
    parent = user if endpoint == "sessions" else sessions[0]["session_id"]
    desk.server.faults.poison(parent, "400")
    assert desk.load().complete
    desk.server.faults.heal(parent)
    desk.load(only=(*some, "load_failures"))
    assert desk.rows("SELECT resource, id FROM load_failures") == [(endpoint, parent)]
    desk.load()
    assert desk.rows("SELECT count(*) FROM load_failures") == [(0,)]
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("number", [3, 4], ids=["own browser", "a session without one"])
def test_somebody_who_was_set_aside_and_then_merged_away_is_loaded_as_part_of_the_other(
    desk: Desk, number: int
) -> None:
    desk.with_world(World(seed=5, users=5, days=3, now_ms=NOW_MS))
    loser, winner = desk.world.user_ids()[number], desk.world.user_ids()[0]
    desk.server.faults.poison(loser, "400")
    assert desk.load().complete
    desk.clock.advance(600)
    desk.world.merge(loser, winner, desk.now_ms)
    desk.server.faults.heal(loser)
    desk.clock.advance(600)
    desk.load(max_requests=1, chunk_size=1)
    assert desk.load().complete
    assert desk.rows("SELECT count(*) FROM load_failures") == [(0,)]
    desk.assert_equal_to_truth()


def test_what_somebody_who_was_set_aside_had_taken_in_before_comes_with_them_to_the_other(desk: Desk) -> None:
    desk.with_world(World(seed=5, users=5, days=3, now_ms=NOW_MS))
    winner, _, _, unread, loser = desk.world.user_ids()
    desk.world.merge(unread, loser, desk.now_ms)
    desk.server.faults.poison(loser, "400")
    desk.clock.advance(600)
    assert desk.load().complete
    desk.clock.advance(600)
    desk.world.merge(loser, winner, desk.now_ms)
    desk.server.faults.heal(loser)
    desk.clock.advance(600)
    assert desk.load().complete
    assert desk.rows("SELECT count(*) FROM load_failures") == [(0,)]
    desk.assert_equal_to_truth()


def test_at_any_number_of_failures_the_state_stays_bounded_and_nothing_is_lost(monkeypatch: Any) -> None:
    monkeypatch.setattr("leadboxer_source.settings.MAX_SET_ASIDE", 10)
    machine = InMemoryMachine()
    machine.open(World(seed=5, users=60, days=10, now_ms=HandClock().now_ms), Profile())
    site, loader = machine.site, machine.loader
    bad = [site.world.session_records(user)[-1]["session_id"] for user in site.world.user_ids()]  # type: ignore[index]  # all are known
    for first in range(0, len(bad), 6):
        for session_id in bad[first : first + 6]:
            site.server.faults.poison(session_id, "400")
        site.run(loader, Order(max_requests=60, chunk_size=5))
        machine.oracle.assert_sentence_holds()
        assert sum(len(loader.remembered(name).set_aside) for name in ("sessions", "events")) <= 10
    for session_id in bad:
        site.server.faults.heal(session_id)
    machine.it_is_quiet()
    assert not loader.remembered("events").set_aside


def test_a_claim_does_not_reach_into_the_future_of_a_wrong_date(desk: Desk) -> None:
    assert desk.load().complete
    desk.server._clock = lambda: desk.clock.time() + 30 * 86_400
    desk.clock.advance(3_600)
    desk.load()
    desk.server._clock = desk.clock.time
    user = desk.world.user_ids()[0]
    for _ in range(3):
        desk.clock.advance(86_400)
        desk.world.return_user(user, desk.now_ms - 3_600_000, events=2)
        assert desk.load().complete
    desk.assert_equal_to_truth()
