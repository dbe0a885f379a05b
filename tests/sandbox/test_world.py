"""A sandbox's data looks like that of a real website: its numbers add up, its places, people and hours fit together."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from leadboxer_source.sandbox import Truth, World

NOW_MS = 1_795_000_000_000


def grouped(records: list[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(record[name], []).append(record)
    return found


def at(event: dict[str, Any]) -> int:
    return int(event["eventUnixTimestamp"])


def moved(world: World) -> World:
    """The same world after some have come back, went on, and turned out to be one."""
    users = world.user_ids()
    world.return_user(users[3], NOW_MS - 5_000, events=4)
    world.continue_session(users[4], NOW_MS - 4_000)
    oldest = (world.session_records(users[6]) or [])[-1]["session_id"]
    world.continue_session(users[6], NOW_MS - 3_000, session_id=oldest)
    world.merge(users[1], users[8], NOW_MS - 2_000)
    world.add_user(NOW_MS - 1_000, events=3)
    return world


@pytest.fixture(scope="module")
def truth() -> Truth:
    return World(seed=7, users=300, days=90, now_ms=NOW_MS, hostile=False).truth()


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("moves", [False, True])
def test_a_session_is_what_its_events_make_it(*, hostile: bool, moves: bool) -> None:
    world = World(seed=7, users=150, now_ms=NOW_MS, hostile=hostile)
    truth = (moved(world) if moves else world).truth()
    events = grouped(truth.events, "session_id")
    for session in truth.sessions:
        hits = events[session["session_id"]]
        pages = [hit for hit in hits if "root_url" in hit]
        first, last = min(map(at, hits)), max(map(at, hits))
        assert session["lastEvent"] == last
        assert first - int(session["session_unix_timestamp"]) in ((0, 1_606) if hostile else (0,))
        assert session["visit_duration"] == str((last - first) // 1000)
        assert session["pages_viewed"] == len(pages) > 0
        assert (session["entry_root_url"], session["exit_url"]) == (pages[0]["root_url"], pages[-1]["root_url"])
        assert session["referrer"] == pages[0]["referrer"]
        assert {hit["browser"] for hit in pages} == {session["browser"]}


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("moves", [False, True])
def test_a_user_is_what_their_sessions_make_them(*, hostile: bool, moves: bool) -> None:
    world = World(seed=7, users=150, now_ms=NOW_MS, hostile=hostile)
    truth = (moved(world) if moves else world).truth()
    sessions, events = grouped(truth.sessions, "use_id"), grouped(truth.events, "session_id")
    for user in truth.users:
        visits = sorted(sessions[user["use_id"]], key=lambda session: session["lastEvent"])
        last, previous = visits[-1], visits[-2 if len(visits) > 1 else -1]
        assert user["total_number_visits"] == len(visits)
        assert user["total_pages_viewed"] == sum(visit["pages_viewed"] for visit in visits)
        assert user["total_session_duration"] == sum(int(visit["visit_duration"]) for visit in visits)
        assert user["lastEvent"] == last["lastEvent"]
        assert user["last_visit_duration"] == last["visit_duration"]
        assert user["last_session_id"] == user["session_id"] == last["session_id"]
        assert user["previous_session_id"] == previous["session_id"]
        assert user["last_session_unix_timestamp"] == last["session_unix_timestamp"]
        assert int(user["first_session_unix_timestamp"]) == min(int(v["session_unix_timestamp"]) for v in visits)
        assert user["event_id"] in {event["event_id"] for event in events[last["session_id"]]}
        for name in ("channel", "browser", "platform", "city", "latitude", "ip_number", "referrer"):
            assert user[f"last_{name}"] == last[name], name
        assert user["entry_root_url"] == last["entry_root_url"]


def test_visits_of_one_user_do_not_overlap_and_their_events_come_one_after_the_other(truth: Truth) -> None:
    events = grouped(truth.events, "session_id")
    for visits in grouped(truth.sessions, "use_id").values():
        visits.sort(key=lambda session: session["lastEvent"])
        for before, after in pairwise(visits):
            assert int(after["session_unix_timestamp"]) > before["lastEvent"] + 30 * 60_000
    gaps = [b - a for hits in events.values() for a, b in pairwise(map(at, hits))]
    assert min(gaps) > 0
    assert max(gaps) < 10 * 60_000, "longer ones would end the visit"
    assert len(set(gaps)) > 0.9 * len(gaps)


def test_people_come_when_they_are_at_work(truth: Truth) -> None:
    local = [
        datetime.fromtimestamp(int(s["session_unix_timestamp"]) / 1000, timezone.utc).astimezone(
            ZoneInfo(s["timezone"])
        )
        for s in truth.sessions
    ]
    assert sum(moment.weekday() > 4 for moment in local) < 0.15 * len(local)
    assert sum(8 <= moment.hour < 19 for moment in local) > 0.75 * len(local)
    assert sum(moment.hour < 6 for moment in local) < 0.05 * len(local)


def test_places_have_coordinates_of_their_own_and_come_in_different_numbers(truth: Truth) -> None:
    found = {(user["last_city"], user["last_latitude"], user["last_longitude"]) for user in truth.users}
    assert len(found) == len({city for city, _, _ in found}) > 10
    assert len(set(Counter(user["last_city"] for user in truth.users).values())) > 5
    for name in ("last_browser", "last_platform", "last_resolution_width", "last_channel"):
        assert len({user[name] for user in truth.users}) > 3, name


def test_companies_differ_in_size_and_people_fit_them(truth: Truth) -> None:
    companies = grouped([user for user in truth.users if "organizationDomain" in user], "organizationDomain")
    assert len(companies) >= 12
    assert max(map(len, companies.values())) > 4 * min(map(len, companies.values()))
    for domain, users in companies.items():
        assert domain.endswith(".example")
        for name in ("Name", "City", "Country", "NaicsCode", "Latitude", "Longitude"):
            assert len({user[f"organization{name}"] for user in users}) == 1
    known = [user for user in truth.users if "email" in user]
    for user in known:
        domain = user.get("organizationDomain", "mail.example")
        assert user["email"] == f"{user['firstName']}.{user['lastName']}@{domain}".lower()
    assert len({user["email"] for user in known}) > 0.9 * len(known)


def test_properties_are_few_and_sensible_unless_hostile_ones_are_asked_for(truth: Truth) -> None:
    events = [event for event in truth.events if "Price" in event or "Plan" in event]
    names = {name for event in truth.events for name in event if not re.fullmatch("[a-zE]+(_[a-z]+)*", name)}
    names -= {"eventEsTimestamp", "eventUnixTimestamp", "customEventInfo"}
    assert names == {"Customer ID", "Plan", "Product", "Price", "lb_articleSection", "How did you hear about us?"}
    assert all(isinstance(event["Price"], float) for event in events if "Price" in event)
    of_user = {user["use_id"]: user for user in truth.users}
    for event in events:
        assert of_user[event["use_id"]].get("Customer ID") == event.get("Customer ID")


def test_the_person_whom_examples_name_is_in_every_world() -> None:
    for seed in range(1, 9):
        users = World(seed=seed, users=200, hostile=False).truth().users
        [ada] = [user for user in users if user.get("email") == "ada.moreau@widgets.example"]
        assert ada["organizationName"] == "Example Widgets GmbH"


def test_users_were_seen_within_the_days_that_were_asked_for() -> None:
    for days in (0, 0.01, 1, 30, 365):
        world = World(users=50, days=days, now_ms=NOW_MS)
        last = [world.last_ms(user) for user in world.user_ids()]
        assert NOW_MS - max(1, math.ceil(days * 86_400_000)) <= min(last)
        assert max(last) < NOW_MS


def test_who_never_changed_is_not_made_to_remember() -> None:
    world = World(users=30, now_ms=NOW_MS)
    first = [world.user_record(user, NOW_MS) for user in world.user_ids()]
    assert all(user.history is None for user in world._users.values())
    assert world.truth().users == first
