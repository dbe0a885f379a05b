"""The runs of one source: reads the state before a slice begins, and writes it when the slice has ended."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping
from typing import Any

from leadboxer_source.children import Children, Polled
from leadboxer_source.clock import Clock, SystemClock
from leadboxer_source.connection import Connection, connect
from leadboxer_source.privacy import Privacy
from leadboxer_source.report import Watch
from leadboxer_source.rows import Fillable, Shapes
from leadboxer_source.settings import Settings
from leadboxer_source.slice import Slice
from leadboxer_source.state import COVERED, Remembered, forgotten_people, record, remember


class Slices:
    """The slices of one source: a fresh one for every run.

    Args:
        config: What to load, and how fast.
        clock: The time, for tests.
        watch: Is told how the runs go.
        connect: Opens a way to the API.
        prepare: Is called when a run begins; returns what tells which columns a table may fill.
        people: Gives the state that holds who was forgotten.

    Raises:
        ConfigurationInvalid: A promoted property cannot have a column of its own.
    """

    def __init__(
        self,
        config: Settings,
        clock: Clock | None = None,
        watch: Watch | None = None,
        connect: Callable[[Settings, Clock], Connection] = connect,
        prepare: Callable[[], Mapping[str, Fillable]] = dict,
        people: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._config = config
        self._shapes = Shapes(
            config.site, config.promote, Privacy(config.exclude_fields, config.hash_fields, config.hash_key)
        )
        self._clock = clock or SystemClock()
        self._watch = watch
        self._connect = connect
        self._prepare = prepare
        self._people = people
        self._connection: Connection | None = None
        self._slice: Slice | None = None

    def users(self, state: Callable[[str], dict[str, Any]], selected: set[str]) -> Polled:
        """Runs the head: reads the state, yields users, and writes the state when it is done.

        Args:
            state: Gives the state of a resource, to read and to write.
            selected: Names of the resources that are loaded.
        """
        scope, one_off = self._config.scope, self._config.end_ms is not None
        memories = {name: Remembered() if one_off else remember(state(name), scope) for name in COVERED}
        run = self._begin(memories, selected)
        try:
            yield from run.users()
            if not one_off:
                for name, memory in run.memories().items():
                    record(state(name), scope, memory)
        except GeneratorExit:
            raise  # closed by a limit: the children still finish what they received
        except BaseException:
            self.close()
            raise
        self.close()

    @property
    def children(self) -> Children:
        """The children of the running slice; of nobody's users if the head was replaced by another parent."""
        if self._slice is None:
            self._begin({name: Remembered() for name in COVERED}, set(COVERED))
        assert self._slice is not None  # noqa: S101 - begun above
        return self._slice.children

    def metrics(self) -> dict[str, Any]:
        """Returns what the last slice cost and why it ended, for dlt's trace."""
        return self._slice.metrics() if self._slice is not None else {}

    def failures(self) -> Polled:
        """Yields a row for each child that failed or may be cut, and one that deletes it once it has healed."""
        run = yield from self._ended("load_failures")
        if run is not None and run.children.failures.rows:
            yield run.children.failures.rows

    def runs(self) -> Polled:
        """Yields the rows of the run that has just ended."""
        run = yield from self._ended("load_runs")
        if run is not None:
            yield run.rows_of_run()

    def _ended(self, table: str) -> Generator[None, None, Slice | None]:
        """Waits for the run and its children to end; returns it, or `None` if there is none to tell about."""
        for _ in range(5):
            if self._slice is None or table in self._slice.reported:
                yield None  # the head has not been polled yet, or never will be
        run = self._slice
        if run is None or table in run.reported:
            return None
        while not run.ended:
            yield None
        yield from run.children.rest()
        run.reported.add(table)
        return run

    def close(self) -> None:
        """Gives threads and connections back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _begin(self, memories: dict[str, Remembered], selected: set[str]) -> Slice:
        self.close()
        forgotten = forgotten_people(self._people(), self._config.site)
        self._shapes.fill(self._prepare())
        self._connection = self._connect(self._config, self._clock)
        # a run that nobody finishes gives its threads and files back with its source
        weakref.finalize(self, self._connection.close)
        self._slice = Slice(
            self._config, self._connection, self._clock, self._shapes, memories, selected, self._watch, forgotten
        )
        return self._slice
