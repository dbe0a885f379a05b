"""Whatever happens to the world and to the pipeline, the sentence holds after every run; and the search can fail."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import dlt
import duckdb
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from leadboxer_source import Report, leadboxer_source
from leadboxer_source.children import Children
from leadboxer_source.client import Page
from leadboxer_source.coverage import Stretch, add, uncover
from leadboxer_source.listing import Lister, _ChainBroken
from leadboxer_source.rows import instant
from leadboxer_source.sandbox import Faults, Profile, Sandbox, World
from leadboxer_source.slice import COVERED, Slice
from leadboxer_source.state import Remembered, record, remember
from leadboxer_source.transport import Transport
from tests.oracle import DAY_MS, HandClock, Happening, InMemory, Loader, Oracle, Order, Rows, Site

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
    )
    def run(self, faulty: float, plan: list[Happening], lost_answers: list[bool], **drawn: Any) -> None:
        drawn |= {name: value for name, value in self.fixed.items() if name in drawn}
        lost_answers, faulty = self.fixed.get("lost_answers", lost_answers), self.fixed.get("faulty", faulty)
        faults, self.site.plan = self.site.server.faults, plan
        self.site.seconds_a_request = drawn.pop("seconds_a_request")
        self.site.server.faults = Faults.mixed(faulty, seed=len(plan)) if faulty else Faults(hang_s=0.0)
        for parent_id in self.poisoned:
            self.site.server.faults.poison(parent_id, "500")
        for is_lost in lost_answers:  # after the server has moved the token on
            self.site.server.faults.fail_next("leads", "timeout_after", times=int(is_lost), after=int(not is_lost))
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


class Dlt:
    """dlt, HTTP and DuckDB."""

    def __init__(self, folder: Path, server: Sandbox, site: str, clock: HandClock) -> None:
        self._folder, self._server, self._site, self._clock = folder, server, site, clock

    @property
    def pipeline(self) -> dlt.Pipeline:
        return dlt.pipeline(
            "oracle",
            destination=dlt.destinations.duckdb(str(self._folder / "oracle.duckdb")),
            dataset_name="lb",
            pipelines_dir=str(self._folder / "pipelines"),
        )

    def run(self, order: Order) -> Report | None:
        reports: list[Report] = []
        source = leadboxer_source(
            self._site,
            self._server.key,
            base_url=self._server.url,
            rate_limit="unlimited",
            max_minutes=None,
            start_date=None if order.start_ms is None else instant(order.start_ms),
            limiter_store=":memory:",
            clock=self._clock,
            watch=reports.append,
            **{name: value for name, value in order._asdict().items() if name not in {"only", "start_ms", "dies_at"}},
        )
        try:
            self.pipeline.run(source.with_resources(*order.only, "load_failures"), loader_file_format="parquet")
        except PipelineStepFailed:
            return None
        return reports[-1]

    def rows(self) -> Rows:
        found = Rows({}, {}, defaultdict(Counter), defaultdict(Counter))
        with duckdb.connect(str(self._folder / "oracle.duckdb")) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS lb; SET search_path = 'lb'")
            tables = {
                row[0] for row in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
            }

            def select(table: str, key: str, columns: str) -> list[tuple[Any, ...]]:
                if table not in tables:
                    return []
                doubled = f"SELECT count(*) - count(DISTINCT ({key})) FROM {table}"
                assert connection.execute(doubled).fetchall() == [(0,)], f"{table} holds a key twice"
                return connection.execute(f"SELECT {columns} FROM {table}").fetchall()

            users = select("users", "site, user_id", "* EXCLUDE (read_at)")
            names = [column[0] for column in connection.description or ()]
            for user in (dict(zip(names, row, strict=True)) for row in users):
                last = user["last_event_at"]
                found.users[user["user_id"]] = (last and round(last.timestamp() * 1000), user.get("lead_tag"))
            found.sessions.update(select("sessions", "site, session_id", "session_id, user_id"))
            seen = "session_id, event_id, epoch_ms(occurred_at), title, original_url"
            for session_id, *identity in select("events", "site, event_key", seen):
                found.events[session_id][tuple(identity)] += 1
            for session_id, *pair in select("properties", "site, event_key, name", "session_id, name, value"):
                found.properties[session_id][tuple(pair)] += 1
        return found

    def remembered(self, resource: str) -> Remembered:
        return remember(self._state(self.pipeline.state, resource), self._site)

    def forget(self, since_ms: int) -> None:
        with self.pipeline.managed_state(extract_state=True) as state:
            for name in COVERED:
                memory = remember(self._state(state, name), self._site)
                memory.covered = uncover(memory.covered, Stretch(since_ms, 2**62))
                record(self._state(state, name), self._site, memory)

    def lose_folder(self) -> None:
        """As on a machine that never saw the pipeline: the state comes back from the destination."""
        shutil.rmtree(self._folder / "pipelines", ignore_errors=True)
        self.pipeline.sync_destination()

    @staticmethod
    def _state(state: Any, resource: str) -> dict[str, Any]:
        sources = state.setdefault("sources", {}).setdefault("leadboxer", {})
        found: dict[str, Any] = sources.setdefault("resources", {}).setdefault(resource, {})
        return found


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


def test_the_sentence_holds_with_dlt_and_a_database() -> None:
    search(DltMachine, examples=3, steps=7)


@pytest.mark.slow
def test_the_sentence_holds_with_dlt_and_a_database_in_a_long_search() -> None:
    search(DltMachine, examples=60, steps=15)


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


def _one_high_water_mark(patch: pytest.MonkeyPatch) -> None:
    def covers(covered: Any, instant: int | None) -> bool:
        return instant is not None and bool(covered) and instant < covered[-1].hi

    for module in ("slice", "children"):
        patch.setattr(f"leadboxer_source.{module}.covers", covers)


def _a_hole_is_closed_too_far(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "leadboxer_source.slice.add", lambda covered, more: add(covered, [Stretch(lo - DAY_MS, hi) for lo, hi in more])
    )


def _settle_is_dropped(patch: pytest.MonkeyPatch) -> None:
    conclude = Slice._conclude

    def settled_at_once(self: Slice, claim_top: int | None) -> None:
        self._stage(Stretch(self._start_ms, self._start_ms + 1))
        conclude(self, None if claim_top is None else claim_top + int(self._config.settle_seconds * 1_000))

    patch.setattr(Slice, "_conclude", settled_at_once)


def _a_token_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    get = Transport.get

    def resend(self: Transport, endpoint: str, path: str, params: Any, **_: Any) -> Any:
        return get(self, endpoint, path, params)

    patch.setattr(Transport, "get", resend)


def _sorted_asc(patch: pytest.MonkeyPatch) -> None:
    get = Transport.get

    def ascending(self: Transport, endpoint: str, path: str, params: Any, **more: Any) -> Any:
        return get(self, endpoint, path, {**params, "sortBy": "lastEvent|asc"}, **more)

    patch.setattr(Transport, "get", ascending)


def _claimed_before_it_was_fetched(patch: pytest.MonkeyPatch) -> None:
    hand_out = Slice._hand_out

    def hand_out_claimed(self: Slice, listing: Any, **more: Any) -> Any:
        self._stage(listing.window)
        return (yield from hand_out(self, listing, **more))

    patch.setattr(Slice, "_hand_out", hand_out_claimed)


def _claimed_for_everybody(patch: pytest.MonkeyPatch) -> None:
    memories = Slice.memories

    def all_of_them(self: Slice) -> Any:
        self._selected = list(COVERED)
        return memories(self)

    patch.setattr(Slice, "memories", all_of_them)


def _a_dead_token_ends_the_list(patch: pytest.MonkeyPatch) -> None:
    page = Lister._page

    def ended(self: Lister, days: Any, token: str | None, listing: Any) -> Any:
        try:
            return page(self, days, token, listing)
        except _ChainBroken:
            return Page([], None, None, None)

    patch.setattr(Lister, "_page", ended)


def _failures_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Children, "_put_aside", lambda self, name, parent_id, reason: None)


def _settled_by_anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slice, "_claimed_elsewhere", lambda self, endpoint: False)


def _read_once_is_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slice, "_forget", lambda self, unsettled: None)


def _no_last_look(patch: pytest.MonkeyPatch) -> None:
    def last_look(self: Slice) -> Any:
        yield None
        return self._start_ms - int(self._config.settle_seconds * 1_000)

    patch.setattr(Slice, "_last_look", last_look)


def _time_zones_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("leadboxer_source.settings.OVERLAP_BEFORE_DAYS", 0)
    patch.setattr("leadboxer_source.settings.OVERLAP_AFTER_DAYS", 0)


CALM: dict[str, Any] = {"dies_at": None, "max_requests": None, "faulty": 0.0}
ONE_ON_A_PAGE = {**CALM, "max_limit": 1}
BUGS: list[tuple[Callable[[pytest.MonkeyPatch], None], dict[str, Any]]] = [
    (_one_high_water_mark, {}),
    (_a_hole_is_closed_too_far, {}),
    (_settle_is_dropped, {}),
    (_a_token_is_sent_again, {**ONE_ON_A_PAGE, "token_style": "constant", "lost_answers": [False, True, False] * 8}),
    (_sorted_asc, {**ONE_ON_A_PAGE, "list_state": "live"}),
    (_claimed_before_it_was_fetched, {}),
    (_claimed_for_everybody, {}),
    (_a_dead_token_ends_the_list, {**ONE_ON_A_PAGE, "only": COVERED}),
    (_failures_are_forgotten, CALM),
    (_settled_by_anybody, {**CALM, "lost_answers": []}),
    (_read_once_is_read, {**CALM, "seconds_a_request": 30, "lost_answers": []}),
    (_no_last_look, {**CALM, "seconds_a_request": 30, "lost_answers": [], "only": COVERED}),
    (_time_zones_do_not_matter, {}),
]


@pytest.mark.parametrize(("plant", "fixed"), BUGS, ids=lambda value: getattr(value, "__name__", "").strip("_"))
def test_the_search_finds_a_planted_bug(
    plant: Callable[[pytest.MonkeyPatch], None], fixed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    machine = type("Biased", (InMemoryMachine,), {"fixed": fixed})
    with pytest.raises(AssertionError):
        search(machine, examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)
