"""What a run took, and what is covered after it, is a table: "is this day complete?" is one query."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from leadboxer_source.rows import instant
from leadboxer_source.sandbox import Faults
from tests.conftest import Desk

KEPT = ("users", "sessions", "events", "properties")


def is_complete(desk: Desk, day: date, resource: str = "events") -> bool:
    """The query of the documentation."""
    next_day = day + timedelta(1)
    [(answer,)] = desk.rows(
        f"SELECT count(*) > 0 FROM load_runs WHERE resource = '{resource}' "
        f"AND covered_from <= TIMESTAMPTZ '{day}T00:00:00Z' AND covered_to >= TIMESTAMPTZ '{next_day}T00:00:00Z'"
    )
    return bool(answer)


def stretches_of_newest_run(desk: Desk, resource: str) -> list[list[int]]:
    return [
        list(row)
        for row in desk.rows(
            f"SELECT epoch_ms(covered_from), epoch_ms(covered_to) FROM load_runs WHERE resource = '{resource}' "
            "AND covered_from IS NOT NULL AND run_id = (SELECT max_by(run_id, ended_at) FROM load_runs) "
            "ORDER BY stretch DESC"
        )
    ]


def covered(desk: Desk, resource: str) -> Any:
    return desk.state(resource)["scopes"][desk.world.site]["covered"]


def test_the_rows_of_a_run_are_what_its_state_covers(desk: Desk) -> None:
    desk.load(max_requests=30, chunk_size=5)
    desk.clock.advance(86_400)
    for number in range(4):
        desk.world.add_user(desk.now_ms - 600_000 - number)
    desk.load(max_requests=4, chunk_size=2)
    assert len(covered(desk, "events")) == 2
    for resource in KEPT:
        assert stretches_of_newest_run(desk, resource) == covered(desk, resource)
    desk.clock.advance(60)
    assert desk.load().complete
    for resource in KEPT:
        assert stretches_of_newest_run(desk, resource) == covered(desk, resource)


def test_one_query_tells_whether_a_day_is_complete(desk: Desk) -> None:
    today = instant(desk.now_ms).date()
    desk.load(max_requests=60, chunk_size=5)
    desk.clock.advance(3 * 86_400)
    for number in range(30):
        desk.world.add_user(desk.now_ms - 600_000 - number * 3_600_000)
    desk.load(max_requests=10, chunk_size=2)
    (older, newer) = covered(desk, "events")
    inside_older = instant(older[0]).date() + timedelta(1)
    inside_hole = instant(newer[0]).date() - timedelta(1)
    assert older[1] < newer[0] - 86_400_000, "a whole day must lie in the hole"
    assert is_complete(desk, inside_older)
    assert not is_complete(desk, inside_hole)
    assert not is_complete(desk, instant(older[0]).date() - timedelta(1))
    assert not is_complete(desk, today + timedelta(30))
    desk.load_until_done()
    assert is_complete(desk, inside_hole)
    assert not is_complete(desk, today + timedelta(30))


def test_requests_and_rows_are_counted_once(desk: Desk) -> None:
    sent: dict[str, int] = {}
    for _ in range(3):
        desk.clock.advance(86_400)
        desk.world.add_user(desk.now_ms - 600_000)
        desk.load(max_requests=30, chunk_size=5)
        for endpoint, count in desk.requests().items():
            sent[endpoint] = sent.get(endpoint, 0) + count
    told = dict(desk.rows("SELECT resource, sum(requests) FROM load_runs GROUP BY 1"))
    assert told == {"users": sent["leads"], "sessions": sent["sessions"], "events": sent["events"], "properties": 0}
    [(rows,)] = desk.rows("SELECT sum(rows_read) FROM load_runs WHERE resource = 'properties'")
    assert rows >= desk.rows("SELECT count(*) FROM properties")[0][0] > 0
    [(least, most)] = desk.rows("SELECT min(ended_at - started_at), max(ended_at - started_at) FROM load_runs")
    assert least == timedelta(0)
    assert most < timedelta(minutes=1), "nothing waits here"


def test_requests_of_what_was_not_selected_are_counted_too(desk: Desk) -> None:
    desk.load(only=("events", "load_runs"))
    sent = desk.requests()
    told = desk.rows("SELECT resource, sum(requests), count(covered_from) FROM load_runs GROUP BY 1 ORDER BY 1")
    assert told == [("events", sent["events"], 1), ("sessions", sent["sessions"], 0), ("users", sent["leads"], 0)]


def test_what_was_not_selected_has_no_row_and_is_not_said_to_be_covered(desk: Desk) -> None:
    desk.load(only=("users", "sessions", "load_runs"))
    assert desk.rows("SELECT DISTINCT resource FROM load_runs ORDER BY 1") == [("sessions",), ("users",)]
    yesterday = instant(desk.now_ms).date() - timedelta(1)
    assert is_complete(desk, yesterday, "sessions")
    assert not is_complete(desk, yesterday)


def test_a_run_that_covers_nothing_has_a_row_all_the_same(desk: Desk) -> None:
    desk.load(start_date="2026-11-10", end_date="2026-11-15")
    rows = desk.rows("SELECT resource, stretch, covered_from, covered_to, requests > 0 FROM load_runs ORDER BY 1")
    assert [row[:4] for row in rows] == [(resource, 0, None, None) for resource in sorted(KEPT)]
    assert [row[4] for row in rows] == [True, False, True, True]


def test_a_run_closed_from_outside_says_what_was_covered_before(desk: Desk) -> None:
    desk.pipeline().run(desk.source(chunk_size=5).add_limit(2))
    assert desk.rows("SELECT DISTINCT stretch, covered_from, stopped, complete FROM load_runs") == [
        (0, None, "closed", False)
    ]


def test_waits_refusals_and_what_was_set_aside_are_told(desk: Desk) -> None:
    session = desk.world.truth().sessions[7]["session_id"]
    desk.server.faults.poison(session, "400")
    desk.server.faults.fail_next("sessions", "429", times=2)
    desk.load(rate_limit="10/minute")
    told = desk.rows("SELECT resource, refusals, failures, waited_seconds > 0 FROM load_runs ORDER BY 1")
    assert told == [
        ("events", 0, 1, True),
        ("properties", 0, 0, False),
        ("sessions", 2, 0, True),
        ("users", 0, 0, False),
    ]


def test_nobody_waits_longer_than_the_run_took(desk: Desk) -> None:
    desk.load(rate_limit="10/minute")
    [(longest, took)] = desk.rows(
        "SELECT max(waited_seconds), epoch_ms(max(ended_at)) - epoch_ms(min(started_at)) FROM load_runs"
    )
    assert took * 0.5 < longest * 1000 <= took + 1, "several threads wait at once"


def test_a_run_that_fails_tells_nothing(desk: Desk) -> None:
    desk.server.faults = Faults({"401": 1.0}, endpoints=["sessions"])
    desk.load(only=("users", "load_runs"))
    with pytest.raises(Exception, match="does not know this API key"):
        desk.load()
    assert desk.rows("SELECT DISTINCT resource FROM load_runs") == [("users",)]
