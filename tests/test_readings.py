"""A full load equals the truth, however the API's open points turn out."""

from __future__ import annotations

from typing import Any

import pytest

from leadboxer_source.sandbox import Request, World
from leadboxer_source.sandbox.server import Answer
from leadboxer_source.settings import DAY_MS
from tests.conftest import NOW_MS, Desk

READINGS: list[dict[str, Any]] = [
    {},
    {"envelope": "legacy", "max_limit": 7},
    {"envelope": "nested", "max_limit": 7},
    {"show_total": True, "max_limit": 7},
    {"end_of_list": "absent", "max_limit": 7},
    {"end_of_list": "null", "max_limit": 7},
    {"end_of_list": "empty", "max_limit": 7},
    {"token_style": "constant", "max_limit": 7},
    {"token_reuse": "reusable", "max_limit": 7},
    {"list_state": "live", "max_limit": 1},
    {"limit_rule": "reject", "max_limit": 50},
    {"limit_rule": "uncapped", "max_limit": 7},
    {"strict_time_field": True, "malformed_filter": "ignore", "default_display": "identified"},
    {"range_end": "exclusive", "max_limit": 7},
    {"ignores_time_zone": True, "max_limit": 7},
    {"range_end": "exclusive", "ignores_time_zone": True},
    {"children_envelope": "legacy"},
    {"children_envelope": "bare"},
    {"children_order": "oldest"},
    {"show_total": True, "max_limit": 5, "total_counts": "page"},
    {"show_total": True, "max_limit": 7, "total_ceiling": 14},
    {"envelope": "inside", "max_limit": 7},
    {"session_times": "start_only"},
    {"session_times": "start_as_event"},
    {"session_id_name": "last_session_id"},
    {"children_max_limit": 500},
    {"children_max_limit": 60},
    {"children_max_limit": 60, "limit_rule": "reject", "max_limit": 50, "too_large": 413},
    {"children_max_limit": 60, "limit_rule": "reject", "max_limit": 50, "too_large": 422},
    {"unknown_lead": "empty", "merged_lead": "winner"},
    {"compressed": True},
]


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: ",".join(f"{k}={v}" for k, v in reading.items()))
def test_a_full_load_equals_the_truth(desk: Desk, reading: dict[str, Any]) -> None:
    report = desk.reading(**reading).load()
    assert report.complete
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("expired", [400, 404, 410, 500, "empty_page"])
@pytest.mark.parametrize("envelope", ["v1", "legacy"])
def test_a_token_that_dies_between_two_pages_loses_nobody(desk: Desk, expired: Any, envelope: Any) -> None:
    desk.reading(token_expired=expired, envelope=envelope, max_limit=7)
    pages = 0

    def late(request: Request) -> None:
        nonlocal pages
        if "nextToken" in request.params:
            pages += 1
            if pages in {3, 9}:
                desk.clock.advance(601)

    desk.server.on_request = late
    assert desk.load().complete
    desk.assert_equal_to_truth()


@pytest.mark.parametrize("page_size", [1, pytest.param(2, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("token_style", ["changing", "constant"])
def test_a_list_that_shifts_while_it_is_paged_loses_nobody(desk: Desk, page_size: int, token_style: Any) -> None:
    desk.reading(list_state="live", max_limit=page_size, token_style=token_style)
    moves = iter(desk.world.user_ids()[:12])

    def shift(request: Request) -> None:
        if request.endpoint == "leads" and (user := next(moves, None)):
            desk.clock.advance(1)
            desk.world.return_user(user, desk.now_ms)

    desk.server.on_request = shift
    desk.load()
    desk.server.on_request = None
    desk.clock.advance(600)
    desk.load_until_done()
    desk.assert_equal_to_truth()


def test_a_limit_that_the_api_takes_is_found_once(desk: Desk) -> None:
    desk.reading(children_max_limit=100).load()
    limits = [request.params["limit"] for request in desk.server.requests if request.endpoint == "events"]
    assert set(limits) == {"1000", "500", "100"}
    assert set(limits[20:]) == {"100"}


def test_rows_that_were_read_are_kept_if_a_higher_limit_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadboxer_source.settings.CHILD_LIMITS", (4, 2))
    desk.reading(children_max_limit=2).load()
    told = desk.rows(
        "SELECT count(*) FROM load_failures WHERE resource = 'sessions' AND reason LIKE '%no more than 2%'"
    )
    assert told > [(0,)]
    assert desk.rows("SELECT max(n) FROM (SELECT count(*) AS n FROM sessions GROUP BY user_id)") == [(2,)]


HIGHER: dict[str, Answer] = {
    "404": Answer(404, b"{}"),
    "410": Answer(410, b"{}"),
    "413": Answer(413, b"{}"),
    "500": Answer(500, b"{}"),
    "nothing": Answer(200, b'{"data": []}'),
    "null": Answer(200, b'{"data": null}'),
    "less": Answer(200, b'{"data": [{"session_id": "1.2", "event_id": "1.3"}]}'),
    "no list": Answer(200, b'{"error": "too many"}'),
    "a web page": Answer(200, b"<html></html>"),
}


@pytest.mark.parametrize("higher", HIGHER)
def test_rows_of_a_full_answer_are_kept_whatever_a_higher_limit_brings(
    desk: Desk, higher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadboxer_source.settings.CHILD_LIMITS", (2,))
    desk.with_world(World(seed=5, users=4, days=2, now_ms=NOW_MS))
    answer = desk.server._children

    def children(world: World, endpoint: str, params: dict[str, str], path: str) -> Answer:
        return HIGHER[higher] if int(params["limit"]) > 2 else answer(world, endpoint, params, path)

    monkeypatch.setattr(desk.server, "_children", children)
    report = desk.load()
    assert (report.complete, report.gone) == (True, 0)
    counts = {"sessions": "user_id", "events": "session_id"}
    for table, parent in counts.items():
        full = desk.rows(f"SELECT {parent} FROM {table} GROUP BY {parent} HAVING count(*) = 2")
        assert full
        assert desk.rows(f"SELECT max(n) FROM (SELECT count(*) AS n FROM {table} GROUP BY {parent})") == [(2,)]
        told = dict(desk.rows(f"SELECT id, reason FROM load_failures WHERE resource = '{table}'"))
        assert told == {one: "The API gives no more than 2 rows; there may be more." for (one,) in full}


def test_sessions_without_an_id_are_told(desk: Desk) -> None:
    user = max(desk.world.user_ids(), key=lambda user: len(desk.world.session_records(user) or ()))
    sessions = desk.world.session_records

    def records(user_id: str) -> list[dict[str, Any]] | None:
        found = sessions(user_id)
        if user_id == user and found:
            del found[0]["session_id"]
        return found

    desk.world.session_records = records  # type: ignore[method-assign]  # the world is data here
    desk.load()
    told = desk.rows(f"SELECT reason FROM load_failures WHERE id = '{user}'")
    assert "1 of " in str(told)
    assert "came without an id" in str(told)


def test_an_answer_that_is_full_is_asked_for_again_with_a_higher_limit(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadboxer_source.settings.CHILD_LIMITS", (2,))
    desk.load()
    desk.assert_equal_to_truth()
    assert desk.rows("SELECT count(*) FROM load_failures") == [(0,)]


def test_an_answer_that_stays_full_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadboxer_source.settings.CHILD_LIMITS", (1,))
    monkeypatch.setattr("leadboxer_source.settings.CHILD_LIMIT_FACTOR", 2)
    desk.load()
    told = desk.rows("SELECT DISTINCT resource FROM load_failures ORDER BY 1")
    assert told == [("events",), ("sessions",)]


def test_who_is_listed_under_a_newer_time_than_the_record_tells_is_loaded(desk: Desk) -> None:
    real, user = desk.world.user_record, desk.world.add_user(desk.now_ms - 7_200_000, events=3)

    def record(user_id: str, now_ms: int) -> dict[str, Any]:
        moved = {"lastEvent": desk.now_ms - 6 * DAY_MS} if user_id == user else {}
        return {**real(user_id, now_ms), **moved}

    desk.world.user_record = record  # type: ignore[method-assign]  # the world is data here
    assert desk.load().complete
    assert desk.rows(f"SELECT count(*) FROM events WHERE user_id = '{user}'") == [(3,)]
