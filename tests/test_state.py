"""The state: every released shape is read, damage is told and never taken for empty, and it stays small."""

from __future__ import annotations

import json
import random
from bisect import bisect_left
from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from leadboxer_source.client import EVENTS, LISTING, SESSIONS, Answer, Days, Page
from leadboxer_source.coverage import Stretch
from leadboxer_source.errors import StateUnreadable
from leadboxer_source.settings import DAY_MS, MAX_SET_ASIDE
from leadboxer_source.state import COVERED, KEY, VERSION, Remembered, record, remember
from tests.conftest import Desk
from tests.model import START_MS, Loader, World

SITE = "07bacbd9d46a4e26b58b15d69f69250f"
FOLDER = Path(__file__).parent / "state"
TWO = [Stretch(1_763_164_800_000, 1_764_547_200_000), Stretch(1_793_491_200_000, 1_795_420_821_000)]
MEANT = {
    ("users", SITE): Remembered(TWO),
    ("users", f"{SITE}&display=company&search=widgets"): Remembered([Stretch(1_795_000_000_000, 1_795_420_821_000)]),
    ("sessions", SITE): Remembered(TWO, {"1783024862163.757717719": {"since": 1_795_420_900_000, "attempts": 2}}),
    ("events", SITE): Remembered(
        [], {"0367b906-9fb5-45fb-b30e-edd861fe0000": {"since": 1_795_420_900_001, "attempts": 1}}
    ),
    ("properties", SITE): Remembered(),
    ("users", "0" * 32): Remembered(),
}
"""What the golden copies say, in whatever shape."""


def golden(version: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"v{version}.json").read_text())
    return found


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_every_released_shape_is_read(version: int) -> None:
    state = golden(version)
    assert {key: remember(state[key[0]], key[1]) for key in MEANT} == MEANT


def test_what_is_written_has_the_released_shape() -> None:
    written: dict[str, Any] = {name: {} for name in COVERED}
    for (name, scope), memory in MEANT.items():
        if memory != Remembered():
            record(written[name], scope, memory)
    assert json.loads(json.dumps(written)) == golden(VERSION), "another shape needs another version and a golden copy"


def test_what_is_to_be_read_again_is_noted_until_its_end_is_covered() -> None:
    state: dict[str, Any] = {}
    again = Stretch(TWO[1].lo, TWO[1].hi)
    record(state, SITE, Remembered(TWO[:1], {}, again))
    assert remember(state, SITE) == Remembered(TWO[:1], {}, again)
    record(state, SITE, Remembered(TWO[:1]))
    assert remember(state, SITE).again == again, "a run that has claimed nothing"
    record(state, SITE, Remembered([TWO[0], Stretch(TWO[1].hi - 1, TWO[1].hi)]))
    assert remember(state, SITE).again is None


def test_what_else_is_kept_in_a_resources_state_is_left_alone() -> None:
    state: dict[str, Any] = {"incremental": {"cursor": 1}}
    record(state, SITE, Remembered(TWO))
    assert state["incremental"] == {"cursor": 1}


def scopes(**entry: Any) -> Any:
    return {"version": 1, "scopes": {SITE: entry}}


DAMAGED = {
    "null": None,
    "a list": [],
    "a text": "v1",
    "no version": {"scopes": {}},
    "version as text": {"version": "1", "scopes": {}},
    "no scopes": {"version": 1},
    "scopes as a list": {"version": 1, "scopes": []},
    "a scope of null": {"version": 1, "scopes": {SITE: None}},
    "a scope without coverage": scopes(),
    "coverage of null": scopes(covered=None),
    "a stretch of one": scopes(covered=[[1]]),
    "a stretch of three": scopes(covered=[[1, 2, 3]]),
    "a stretch of words": scopes(covered=[["a", "b"]]),
    "a stretch of null": scopes(covered=[[None, 2]]),
    "a stretch backwards": scopes(covered=[[2, 1]]),
    "an empty stretch": scopes(covered=[[2, 2]]),
    "stretches out of order": scopes(covered=[[5, 6], [1, 2]]),
    "stretches that overlap": scopes(covered=[[1, 5], [4, 9]]),
    "stretches that touch": scopes(covered=[[1, 5], [5, 9]]),
    "set aside as a list": scopes(covered=[], set_aside=["a"]),
    "set aside without facts": scopes(covered=[], set_aside={"a": {}}),
    "set aside of null": scopes(covered=[], set_aside={"a": None}),
    "set aside with words": scopes(covered=[], set_aside={"a": {"since": "x", "attempts": 1}}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_told_and_never_taken_for_empty(damage: str) -> None:
    with pytest.raises(StateUnreadable, match='or reload everything with refresh="drop_sources"'):
        remember({KEY: DAMAGED[damage]}, SITE)


def test_a_newer_version_is_told() -> None:
    with pytest.raises(StateUnreadable, match="has version 2 and this package reads 1: upgrade leadboxer-source"):
        remember({KEY: {"version": 2, "scopes": {}}}, SITE)


def test_a_run_on_damaged_state_fails_before_it_sends_anything(desk: Desk) -> None:
    desk.load(only=("users",))
    pipeline = desk.pipeline()
    with pipeline.managed_state(extract_state=True) as state:
        state["sources"]["leadboxer"]["resources"]["users"][KEY]["scopes"][SITE]["covered"] = [[2, 1]]
    pipeline.run()
    with pytest.raises(Exception, match="The pipeline's state is damaged"):
        desk.load(only=("users",))
    assert desk.requests() == {}


class Large(World):
    """A model of many users, each with one session of one event; the list is sorted once."""

    def __init__(self, users: int, days: int) -> None:
        super().__init__(random.Random(1))
        step = days * DAY_MS // users
        self.listed = [(START_MS - number * step - 1, f"{number}.{number}") for number in range(users)][::-1]
        self.last = {user_id: last for last, user_id in self.listed}

    def arrive(self) -> None:
        self.now_ms += 900_000
        user_id = f"new{len(self.listed)}.{len(self.listed)}"
        self.listed.append((self.now_ms - 600_000, user_id))
        self.last[user_id] = self.now_ms - 600_000

    def page(self, days: Days, token: str | None, limit: int) -> Page:
        self.now_ms += 1
        self.requests[LISTING] += 1
        midnight = time(tzinfo=timezone.utc)
        lo, hi = (
            bisect_left(self.listed, (datetime.combine(day, midnight).timestamp() * 1000, ""))
            for day in (days.first, days.last + timedelta(days=1))
        )
        top = hi - int(token or 0)
        users = [{"use_id": user, "lastEvent": last} for last, user in self.listed[max(lo, top - limit) : top][::-1]]
        return Page(users, str(int(token or 0) + len(users)), None, self.now_ms)

    def sessions_of(self, user_id: str, *, once: bool = False) -> Answer:
        self.requests[SESSIONS] += 1
        return Answer([{"session_id": user_id, "use_id": user_id, "lastEvent": self.last[user_id]}])

    def events_of(self, session_id: str, *, once: bool = False) -> Answer:
        self.requests[EVENTS] += 1
        return Answer([{"event_id": session_id, "eventUnixTimestamp": str(self.last[session_id])}])


@pytest.mark.parametrize(
    ("users", "slices"),
    [pytest.param(2_000, 25, id="2,000"), pytest.param(100_000, 500, id="100,000", marks=pytest.mark.slow)],
)
def test_the_state_stays_small(users: int, slices: int) -> None:
    world = Large(users, days=300)
    loader = Loader(world, start_ms=START_MS - 310 * DAY_MS, settle_seconds=300.0, chunk_size=50)
    sizes, runs = [], 0
    while not loader.complete:
        world.arrive()
        loader.run(max_requests=2 * users // slices)
        sizes.append(len(json.dumps(loader._state)))
        runs += 1
    assert runs >= 0.9 * slices
    assert max(sizes) < 1_500, "bytes, of all resources together"
    assert len(loader.sessions) >= users


def test_a_state_with_as_much_set_aside_as_there_may_be_stays_below_twenty_kilobytes() -> None:
    state: dict[str, Any] = {}
    aside = {
        f"1783024862{n:03}.757717{n:03}": {"since": 1_795_420_900_000, "attempts": 99} for n in range(MAX_SET_ASIDE)
    }
    record(state, SITE, Remembered(TWO, aside))
    assert len(json.dumps(state)) < 20_000
