"""The sandbox answers as the API's description says, in every reading of its open points."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

import leadboxer_source.sandbox
from leadboxer_source.sandbox import Faults, Profile, Sandbox, World

NOW_MS = 1_795_000_000_000
SEEN = "eventEsTimestamp"


class Caller:
    """Asks a sandbox whose clock it holds."""

    def __init__(self, world: World) -> None:
        self.now_s = NOW_MS / 1000
        self.world = world
        self.server = Sandbox(world, rate_limit=None, clock=lambda: self.now_s, foreign_sites=["f" * 32])
        self.server.start()
        self.session = requests.Session()
        self.session.headers["x-api-key"] = self.server.key

    def get(self, path: str, **params: Any) -> requests.Response:
        return self.session.get(f"{self.server.url}/{path}", params={"site": self.world.site, **params}, timeout=5)

    def page(self, **params: Any) -> Any:
        return self.get("leads", **{"criteriaTimeFilter": f"{SEEN}|lessthan|366", **params})

    def reading(self, **switches: Any) -> Caller:
        self.server.profile = Profile(**switches)
        return self

    def close(self) -> None:
        self.session.close()
        self.server.stop()


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller(World(seed=3, users=60, days=20, now_ms=NOW_MS))
    yield made
    made.close()


def ids(response: requests.Response) -> list[str]:
    body = response.json()
    return [user["use_id"] for user in body.get("data", body.get("resultsList"))]


def test_it_imports_nothing_of_the_package_outside_itself() -> None:
    for path in Path(leadboxer_source.sandbox.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.startswith("leadboxer_source") and ".sandbox" not in n], path


def test_errors_have_their_literal_bodies(caller: Caller) -> None:
    caller.session.headers["x-api-key"] = "wrong"
    refused = caller.page()
    assert (refused.status_code, refused.json()) == (
        401,
        {"error": "Unauthorized", "message": "Invalid or missing API key"},
    )
    caller.session.headers["x-api-key"] = caller.server.key
    foreign = caller.page(site="f" * 32)
    assert (foreign.status_code, foreign.json()) == (
        403,
        {
            "type": "https://developers.leadboxer.com/docs/access-denied",
            "title": "Access Denied",
            "status": 403,
            "detail": "You do not have permission to access this resource",
            "instance": "/v1/leads",
        },
    )
    caller.server.faults.fail_next("leads", "402")
    assert caller.page().json()["billing_portal"] == "https://app.leadboxer.com/billing"


def test_the_rate_limit_is_a_sliding_window_for_each_endpoint_and_told_in_the_body(caller: Caller) -> None:
    caller.server.rate_limit = "2/minute"
    assert [caller.page().status_code for _ in range(2)] == [200, 200]
    caller.now_s += 17
    refused = caller.page()
    assert refused.status_code == 429
    assert refused.json() == {
        "type": "https://developers.leadboxer.com/docs/rate-limit-exceeded",
        "title": "Rate Limit Exceeded",
        "status": 429,
        "detail": "API rate limit exceeded",
        "instance": "/v1/leads",
        "retry-after": 43,
        "rate-limit": 2,
        "rate-limit-remaining": 0,
        "rate-limit-period": "minute",
        "rate-limit-reset": int(caller.now_s + 43),
    }
    assert "Retry-After" not in refused.headers
    assert caller.get("leads/sessions", leadId=caller.world.user_ids()[0], limit=5).status_code == 200
    caller.now_s += 43
    assert [caller.page().status_code for _ in range(3)] == [200, 200, 429]
    assert caller.reading(retry_after_header=True).page().headers["Retry-After"] == "60"


def test_a_daily_quota_names_its_period(caller: Caller) -> None:
    caller.reading(daily_quota=1).page()
    assert caller.page().json()["rate-limit-period"] == "day"


def test_the_dataset_calls_have_a_limit_of_their_own(caller: Caller) -> None:
    assert [caller.get("users/datasets", email="a@b.example").status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("style", ["changing", "constant"])
@pytest.mark.parametrize("end", ["token", "absent", "null", "empty"])
def test_every_user_stands_on_one_page(caller: Caller, style: Any, end: Any) -> None:
    caller.reading(token_style=style, end_of_list=end)
    answer, found, tokens = caller.page(limit=7), [], []
    while page := ids(answer):
        found += page
        token = answer.json().get("nextToken")
        if not token:
            break
        tokens.append(token)
        answer = caller.page(limit=7, nextToken=token)
    assert sorted(found) == sorted(caller.world.user_ids())
    assert (len(set(tokens)) == 1) == (style == "constant")


@pytest.mark.parametrize("answer", [400, 404, 410, 500, "empty_page"])
def test_a_token_dies_after_ten_minutes_and_when_it_was_used(caller: Caller, answer: Any) -> None:
    caller.reading(token_expired=answer)
    token = caller.page(limit=7).json()["nextToken"]
    caller.now_s += 601
    late = caller.page(limit=7, nextToken=token)
    assert late.status_code == (200 if answer == "empty_page" else answer)
    assert answer != "empty_page" or ids(late) == []
    token = caller.page(limit=7).json()["nextToken"]
    assert ids(caller.page(limit=7, nextToken=token))
    assert caller.page(limit=7, nextToken=token).status_code == late.status_code
    caller.reading(token_reuse="reusable")
    token = caller.page(limit=7).json()["nextToken"]
    assert ids(caller.page(nextToken=token)) == ids(caller.page(nextToken=token))


@pytest.mark.parametrize("state", ["snapshot", "live"])
def test_a_live_list_shifts_while_it_is_paged_and_a_snapshot_does_not(caller: Caller, state: Any) -> None:
    caller.reading(list_state=state)
    first = caller.page(limit=5)
    oldest = min(caller.world.user_ids(), key=caller.world.last_ms)
    caller.now_s += 1
    caller.world.return_user(oldest, int(caller.now_s * 1000))
    second = caller.page(limit=5, nextToken=first.json()["nextToken"])
    assert bool(set(ids(first)) & set(ids(second))) == (state == "live")


def test_a_limit_above_the_largest_is_capped_refused_or_kept(caller: Caller) -> None:
    assert len(ids(caller.reading(max_limit=9).page(limit=50))) == 9
    for status in (400, 413, 422):
        caller.reading(max_limit=9, limit_rule="reject", too_large=status)
        assert caller.page(limit=50).status_code == status
    assert caller.page(limit="many").status_code == 400
    assert len(ids(caller.reading(max_limit=9, limit_rule="uncapped").page(limit=50))) == 50


@pytest.mark.parametrize(
    ("zone", "day", "lo", "hi"),
    [
        ("Etc/UTC", "18/11/2026", "2026-11-18T00:00", "2026-11-19T00:00"),
        ("Europe/Amsterdam", "18/11/2026", "2026-11-17T23:00", "2026-11-18T23:00"),
        ("Europe/Amsterdam", "29/03/2026", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("Europe/Amsterdam", "25/10/2026", "2026-10-24T22:00", "2026-10-25T23:00"),
    ],
)
def test_days_are_cut_at_midnight_in_the_zone_asked_for(caller: Caller, zone: str, day: str, lo: str, hi: str) -> None:
    first, after = (
        int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1000) for text in (lo, hi)
    )
    inside = [caller.world.add_user(first), caller.world.add_user(after - 1)]
    outside = [caller.world.add_user(first - 1), caller.world.add_user(after)]
    found = ids(caller.page(criteriaTimeFilter=f"{SEEN}|between|{day}-{day}", timeZone=zone, limit=500))
    assert set(inside) <= set(found)
    assert not set(outside) & set(found)


def test_between_may_leave_its_last_day_out_and_the_zone_may_be_ignored(caller: Caller) -> None:
    day = f"{SEEN}|between|18/11/2026-18/11/2026"
    assert ids(caller.page(criteriaTimeFilter=day))
    assert not ids(caller.reading(range_end="exclusive").page(criteriaTimeFilter=day))
    ignored = ids(caller.reading(ignores_time_zone=True).page(criteriaTimeFilter=day, timeZone="Asia/Tokyo"))
    assert ignored == ids(caller.page(criteriaTimeFilter=day, timeZone="Europe/Amsterdam"))


def test_filters_sort_and_missing_parameters(caller: Caller) -> None:
    last = [caller.world.last_ms(user) for user in ids(caller.page(limit=60))]
    assert last == sorted(last, reverse=True)
    assert ids(caller.page(limit=60, sortBy="lastEvent|asc"))[0] == min(
        caller.world.user_ids(), key=lambda user: (caller.world.last_ms(user), user)
    )
    kinds = {caller.world.kind(user) for user in ids(caller.page(limit=60, criteriaDisplayFilter="company;person"))}
    assert kinds == {"company", "person"}
    assert len(ids(caller.reading(default_display="identified").page(limit=60))) < 60
    assert ids(caller.page(limit=60, criteriaTextFilter="organizationName|contains|widgets"))
    assert caller.get("leads").status_code == 400
    assert caller.page(criteriaTimeFilter="yesterday").status_code == 400
    assert caller.reading(malformed_filter="ignore").page(criteriaTimeFilter="yesterday").status_code == 200
    assert caller.reading(strict_time_field=True).page().status_code == 400
    assert caller.get("leads/sessions", leadId="x").status_code == 400


@pytest.mark.parametrize("envelope", ["v1", "legacy", "bare"])
@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_truth_is_what_the_api_gives(caller: Caller, envelope: Any, order: Any) -> None:
    caller.reading(children_envelope=envelope, children_order=order)
    truth = caller.world.truth()

    def children(kind: str, **parent: str) -> Any:
        body = caller.get(f"leads/{kind}", limit=1000, **parent).json()
        return body if envelope == "bare" else body["data" if envelope == "v1" else kind]

    sessions = [s for user in caller.world.user_ids() for s in children("sessions", leadId=user)]
    assert sorted(map(str, sessions)) == sorted(map(str, truth.sessions))
    events = [e for session in sessions for e in children("events", sessionId=session["session_id"])]
    assert sorted(map(str, events)) == sorted(map(str, truth.events))


def test_unknown_and_merged_leads_and_what_is_hidden(caller: Caller) -> None:
    loser, winner = caller.world.user_ids()[:2]
    caller.world.merge(loser, winner, NOW_MS)
    sessions = "leads/sessions"
    assert caller.get(sessions, leadId=loser, limit=9).status_code == 404
    assert caller.reading(merged_lead="empty").get(sessions, leadId=loser, limit=9).json() == {"data": []}
    moved = caller.reading(merged_lead="winner").get(sessions, leadId=loser, limit=99).json()["data"]
    assert {session["use_id"] for session in moved} == {winner}
    assert caller.reading(unknown_lead="empty").get(sessions, leadId="nobody", limit=9).json() == {"data": []}
    assert len(caller.reading(children_cap=1).get(sessions, leadId=winner, limit=9).json()["data"]) == 1
    assert "lastEvent" not in caller.reading(session_times="start_only").get(sessions, leadId=winner, limit=9).text
    assert caller.reading().get(f"leads/{winner}", email="a@b.example").json()["use_id"] == winner
    wrapped = caller.reading(detail_envelope="wrapped").get(f"leads/{winner}", email="a@b.example").json()
    assert wrapped["resultsList"][0]["use_id"] == winner
    assert caller.get("leads/nobody", email="a@b.example").status_code == 404
    caller.world.expire(winner)
    assert winner not in ids(caller.page(limit=500))


def test_envelopes(caller: Caller) -> None:
    assert caller.reading(envelope="legacy").page().json()["total"] == 60
    assert caller.reading(envelope="nested").page().json()["meta"]["nextToken"]
    assert caller.reading(show_total=True).page().json()["total"] == 60


def test_a_change_can_become_visible_late(caller: Caller) -> None:
    user = caller.world.add_user(NOW_MS, visible_at_ms=NOW_MS + 5_000)
    assert user not in ids(caller.page(limit=500))
    caller.now_s += 5
    assert user in ids(caller.page(limit=500))


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("500", 500),
        ("502_html", 502),
        ("503_empty", 503),
        ("html_200", 200),
        ("429_bare", 429),
        ("redirect_other_host", 301),
    ],
)
def test_faults_that_answer(caller: Caller, fault: str, status: int) -> None:
    caller.server.faults.fail_next("leads", fault, after=1)
    assert caller.page().status_code == 200
    url = f"{caller.server.url}/leads"
    params = {"site": caller.world.site, "criteriaTimeFilter": f"{SEEN}|exactly|0"}
    assert caller.session.get(url, params=params, allow_redirects=False, timeout=5).status_code == status
    assert caller.page().status_code == 200


@pytest.mark.parametrize("fault", ["reset", "cut_body", "timeout_after"])
def test_faults_that_break_the_connection(caller: Caller, fault: str) -> None:
    caller.server.faults.fail_next("leads", fault)
    with pytest.raises(requests.exceptions.RequestException):
        caller.page()
    assert caller.page().status_code == 200


def test_the_same_seed_makes_the_same_data_and_faults_have_known_names() -> None:
    assert World(seed=4, users=30).truth() == World(seed=4, users=30).truth()
    assert World(seed=4, users=30).truth() != World(seed=5, users=30).truth()
    with pytest.raises(ValueError, match="There is no fault"):
        Faults({"gremlins": 1.0})


def test_sixty_users_already_show_everything_that_is_awkward(caller: Caller) -> None:
    truth = caller.world.truth()
    names = {name for event in truth.events for name in event}
    assert {"Plan", "plan", "Customer ID", "customer_id", "_dlt_id", "", "select", "dotted.name", "Answer 299"} <= names
    assert len({type(event["drift"]) for event in truth.events if "drift" in event}) >= 5
    shared = [(e["session_id"], e["event_id"]) for e in truth.events]
    assert len(set(shared)) < len(shared)
    assert len({str(event) for event in truth.events}) < len(truth.events), "two hits that nothing tells apart"
    assert any("-" in session["session_id"] for session in truth.sessions), "an id that is a UUID"
    assert any(e["use_id"] == e["session_id"] == e["event_id"] for e in truth.events)
    assert any("original_url" not in event for event in truth.events), "a system event"
    last = [user["lastEvent"] for user in truth.users]
    assert len(set(last)) < len(last), "users of one millisecond"
    assert any(user["organizationName"] for user in truth.users if "organizationName" in user)
    assert any(user["last_most_likely_company"] == "" for user in truth.users)
