"""Whatever happens to the world and to the pipeline, the sentence holds after every run; and the search can fail."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from leadboxer_source.sandbox import Faults, Profile, Sandbox, World
from leadboxer_source.state import COVERED
from tests.oracle import DAY_MS, HandClock, Happening, InMemory, Loader, Oracle, Order, Site
from tests.oracle_dlt import Dlt

SELECTIONS = [
    ("users",),
    ("users", "sessions"),
    ("users", "sessions", "events"),
    ("events", "properties"),
    ("sessions",),
    ("properties",),
]
HAPPENINGS = ["new", "return", "return", "go on", "go on", "overtake", "merge", "tag"]
WHO = st.integers(0, 400)
LATE = st.sampled_from([0, 0, 0, 1, 40, 250])

profiles = st.builds(
    Profile,
    max_limit=st.sampled_from([1, 1, 2, 3, 50]),
    list_state=st.sampled_from(["live", "snapshot"]),
    token_style=st.sampled_from(["changing", "constant"]),
    token_reuse=st.sampled_from(["single_use", "reusable"]),
    token_expired=st.sampled_from([400, 404, 410, 500, "empty_page"]),
    end_of_list=st.sampled_from(["token", "absent", "null", "empty"]),
    show_total=st.booleans(),
    range_end=st.sampled_from(["inclusive", "exclusive"]),
    ignores_time_zone=st.booleans(),
    children_order=st.sampled_from(["newest", "oldest"]),
    merged_lead=st.sampled_from(["404", "empty"]),
)
plans = st.lists(
    st.builds(Happening, st.integers(1, 60), st.sampled_from([*HAPPENINGS, "stall"]), WHO, LATE), max_size=8
)


class Machine(RuleBasedStateMachine):
    """Everything that may happen, in any order. What is in `fixed` is not left to the dice."""

    fixed: ClassVar[dict[str, Any]] = {}
    site: Site
    loader: Loader
    oracle: Oracle

    def __init__(self) -> None:
        super().__init__()
        self.start_ms: int | None = None
        self.poisoned: list[str] = []

    def open(self, world: World, profile: Profile) -> None:
        raise NotImplementedError

    @initialize(
        seed=st.integers(0, 10_000), users=st.integers(0, 6), days=st.sampled_from([1, 3, 12]), profile=profiles
    )
    def begin(self, seed: int, users: int, days: int, profile: Profile) -> None:
        self.open(World(seed=seed, users=users, days=days, now_ms=HandClock().now_ms), self.fix(profile))

    @rule(what=st.sampled_from(HAPPENINGS), who=WHO, late_s=LATE)
    def something_happens(self, what: str, who: int, late_s: int) -> None:
        self.site.happen(what, who, late_s)

    @rule(seconds=st.sampled_from([1, 60, 300, 3_600, 20_000, 86_400, 400_000]))
    def time_passes(self, seconds: int) -> None:
        self.site.clock.advance(seconds)

    @rule(hour_utc=st.sampled_from([0, 1, 22, 23]))
    def it_is_almost_midnight_somewhere(self, hour_utc: int) -> None:
        """Of UTC (0), and of Amsterdam in summer (22) and winter (23); at 1 the clocks are set, once on the way."""
        now = datetime.fromtimestamp(self.site.clock.time(), timezone.utc)
        then = now.replace(hour=hour_utc, minute=0, second=0, microsecond=0) - timedelta(seconds=2)
        self.site.clock.advance(((then - now).total_seconds() - 1) % 86_400 + 1)

    @rule(days=st.sampled_from([None, 1, 2, 5, 40]))
    def start_date_is_changed(self, days: int | None) -> None:
        self.start_ms = None if days is None else self.site.now_ms - days * DAY_MS

    @precondition(lambda self: self.site.world.user_ids())
    @rule(who=WHO, is_session=st.booleans(), fault=st.sampled_from(["500", "400", "html_200"]))
    def somebody_cannot_be_read(self, who: int, is_session: bool, fault: str) -> None:
        user_id = sorted(self.site.world.user_ids())[who % len(self.site.world.user_ids())]
        sessions = self.site.world.session_records(user_id) or []
        parent_id = sessions[who % len(sessions)]["session_id"] if is_session and sessions else user_id
        self.poisoned.append(parent_id)
        self.site.server.faults.poison(parent_id, fault)

    @rule()
    def all_can_be_read_again(self) -> None:
        self.heal()

    @rule(days=st.sampled_from([0, 1, 3, 400]))
    def the_past_is_read_again(self, days: int) -> None:
        self.loader.forget(self.site.now_ms - days * DAY_MS)
        self.oracle.assert_sentence_holds()

    @rule(
        only=st.sampled_from([COVERED, COVERED, *SELECTIONS]),
        max_requests=st.sampled_from([None, None, 1, 4, 12]),
        chunk_size=st.sampled_from([1, 2, 50]),
        relist_days=st.sampled_from([0, 0, 2]),
        dies_at=st.sampled_from([None, None, None, 1, 2, 5, 9, 17]),
        faulty=st.sampled_from([0.0, 0.0, 0.0, 0.1]),
        plan=plans,
        seconds_a_request=st.sampled_from([0.125, 1, 30]),
        lost_answers=st.one_of(st.just([]), st.lists(st.booleans(), max_size=12)),
        quota=st.sampled_from([None, None, None, ("sessions", 1), ("sessions", 3), ("events", 0), ("events", 4)]),
    )
    def run(
        self,
        faulty: float,
        plan: list[Happening],
        lost_answers: list[bool],
        quota: tuple[str, int] | None,
        **drawn: Any,
    ) -> None:
        drawn |= {name: value for name, value in self.fixed.items() if name in drawn}
        lost_answers, faulty = self.fixed.get("lost_answers", lost_answers), self.fixed.get("faulty", faulty)
        faults, self.site.plan = self.site.server.faults, plan
        self.site.seconds_a_request = drawn.pop("seconds_a_request")
        self.site.server.faults = Faults.mixed(faulty, seed=len(plan)) if faulty else Faults(hang_s=0.0)
        for parent_id in self.poisoned:
            self.site.server.faults.poison(parent_id, "500")
        for is_lost in lost_answers:  # after the server has moved the token on
            self.site.server.faults.fail_next("leads", "timeout_after", times=int(is_lost), after=int(not is_lost))
        if quota is not None:
            self.site.server.faults.fail_next(quota[0], "daily_quota", times=99, after=quota[1])
        self.site.run(self.loader, Order(start_ms=self.start_ms, **drawn))
        self.site.server.faults, self.site.plan = faults, []
        self.oracle.assert_sentence_holds()

    @rule()
    def it_is_quiet(self) -> None:
        """Nothing happens any more, everything is visible: a load, in as many runs as it takes, equals the truth."""
        self.heal()
        self.site.clock.advance(600)
        self.site.seconds_a_request = 0.125
        for _ in range(40):
            report = self.site.run(self.loader, Order(start_ms=self.start_ms, relist_days=500))
            self.oracle.assert_sentence_holds()
            if report is not None and report.complete:
                break
        else:
            raise AssertionError("it never ended")
        self.oracle.assert_equal_to_truth(self.start_ms)

    def fix(self, profile: Profile) -> Profile:
        return replace(profile, **{name: value for name, value in self.fixed.items() if hasattr(profile, name)})

    def heal(self) -> None:
        for parent_id in self.poisoned:
            self.site.server.faults.heal(parent_id)
        self.poisoned = []

    def teardown(self) -> None:
        if hasattr(self, "site"):
            self.it_is_quiet()


class InMemoryMachine(Machine):
    """The search proper: thousands of steps."""

    def open(self, world: World, profile: Profile) -> None:
        clock = HandClock()
        server = Sandbox(world, profile=profile, rate_limit=None, clock=clock.time)
        self.site = Site(clock, world, server)
        server.on_request = self.site.watch
        self.loader = InMemory(server, world.site, clock)
        self.oracle = Oracle(self.site, self.loader)


class DltMachine(Machine):
    """The whole of it; a second for each run."""

    def open(self, world: World, profile: Profile) -> None:
        self.folder = Path(tempfile.mkdtemp())
        clock = HandClock()
        server = Sandbox(world, profile=profile, rate_limit=None, clock=clock.time)
        server.start()
        self.site = Site(clock, world, server)
        server.on_request = self.site.watch
        self.loader = self.dlt = Dlt(self.folder, server, world.site, clock)
        self.oracle = Oracle(self.site, self.loader)

    @rule()
    def the_folder_is_lost(self) -> None:
        before = [self.dlt.remembered(name) for name in COVERED]
        self.dlt.lose_folder()
        assert [self.dlt.remembered(name) for name in COVERED] == before
        self.oracle.assert_sentence_holds()

    def teardown(self) -> None:
        super().teardown()
        self.site.server.stop()
        shutil.rmtree(self.folder)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world of a few users meets the borders that a real one meets after a thousand."""
    monkeypatch.setattr("leadboxer_source.slice._ROWS_AT_ONCE", 2)


def search(machine: type[Machine], examples: int, steps: int = 12, **more: Any) -> None:
    """Runs a machine; the same examples every time."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


def test_the_sentence_holds_after_every_run() -> None:
    search(InMemoryMachine, examples=60)


@pytest.mark.slow
def test_the_sentence_holds_after_every_run_of_a_long_search() -> None:
    search(InMemoryMachine, examples=3_000, steps=25)


@pytest.mark.slow
def test_the_sentence_holds_where_a_quota_cuts_off_more_than_can_be_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadboxer_source.settings.MAX_SET_ASIDE", 2)
    search(InMemoryMachine, examples=1_500, steps=25)


@pytest.mark.slow
def test_the_sentence_holds_with_dlt_and_a_database() -> None:
    search(DltMachine, examples=15, steps=10)


def test_an_event_that_shows_after_a_later_one_of_the_same_session_is_loaded() -> None:
    machine = InMemoryMachine()
    machine.open(World(seed=1, users=6, days=12, now_ms=HandClock().now_ms), Profile())
    site, user = machine.site, min(machine.site.world.user_ids())
    session = site.world.return_user(user, site.now_ms - 3_000)
    site.world.continue_session(user, site.now_ms - 2_000, session, visible_at_ms=site.now_ms + 200_000)
    site.world.continue_session(user, site.now_ms - 1_000, session)
    site.seconds_a_request = 30
    site.run(machine.loader, Order())
    assert machine.loader.remembered("events").covered[-1].hi > site.world.last_ms(user), "it is claimed"
    machine.oracle.assert_sentence_holds()


def test_an_event_that_shows_late_is_loaded_though_its_user_has_gone_on_in_another_session() -> None:
    machine = InMemoryMachine()
    machine.open(World(seed=1, users=1, days=1, now_ms=HandClock().now_ms), Profile(end_of_list="absent"))
    site, user = machine.site, min(machine.site.world.user_ids())
    session = site.world.return_user(user, site.now_ms - 67_000)
    site.world.continue_session(user, site.now_ms - 66_000, session, visible_at_ms=site.now_ms + 135_000)
    last_ms = site.now_ms - 65_000
    site.world.continue_session(user, last_ms, session)
    site.world.return_user(user, site.now_ms)
    site.seconds_a_request = 30
    site.run(machine.loader, Order())
    covered = machine.loader.remembered("events").covered
    assert last_ms < covered[-1].hi <= site.world.last_ms(user), "the session is claimed, the user is not"
    machine.oracle.assert_sentence_holds()
