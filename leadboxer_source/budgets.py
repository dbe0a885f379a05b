"""When a run hands out no more users: it was asked to stop, or its minutes, its requests or a day's quota are spent."""

from __future__ import annotations

import math

from leadboxer_source.children import Children
from leadboxer_source.clock import Clock
from leadboxer_source.connection import Traffic
from leadboxer_source.report import Report
from leadboxer_source.settings import Settings


class Budgets:
    """What one run may still spend, from now on; what is owed counts as spent.

    Args:
        config: The budgets.
        clock: The time.
        traffic: What was sent.
        children: What is owed.
        report: Tells whether the run is to stop.

    Attributes:
        lifted: Set it, and nothing ends the run any more: the last look must be whole, whatever it costs.
    """

    def __init__(self, config: Settings, clock: Clock, traffic: Traffic, children: Children, report: Report) -> None:
        self.lifted = False
        self._max_requests = config.max_requests
        # a one-off marks nothing: a run after it would begin anew, and come no further
        self._max_minutes = config.max_minutes if config.end_ms is None else None
        self._clock = clock
        self._traffic = traffic
        self._children = children
        self._report = report
        self._started = clock.time()

    @property
    def counts_requests(self) -> bool:
        """Whether requests are limited; what a chunk costs is known only once its sessions are."""
        return self._max_requests is not None

    def spent(self) -> str:
        """Names what ends the run, as `Report.stopped` does; empty if nothing does yet."""
        if self.lifted:
            return ""
        if self._report.stopping:
            return "asked"
        if self._children.exhausted is not None:
            return "quota"
        if self._max_requests is not None and self._requests() >= self._max_requests:
            return "requests"
        return "minutes" if self._seconds_left() <= self._children.owed_seconds() else ""

    def is_late(self, visits: int) -> bool:
        """Tells whether time may be up before so many visits are read, after all of those who were handed out."""
        return not self.lifted and self._seconds_left() < self._children.expected_seconds(visits)

    def is_dear(self, users: int, visits: int) -> bool:
        """Tells whether so many users, with so many visits, may take more requests than are left."""
        if self.lifted or self._max_requests is None:
            return False
        return self._requests() + self._children.expected_requests(users, visits) > self._max_requests

    def _seconds_left(self) -> float:
        if self._max_minutes is None:
            return math.inf
        return self._max_minutes * 60 - (self._clock.time() - self._started)

    def _requests(self) -> int:
        return sum(self._traffic.requests.values()) + sum(self._children.owed_requests().values())
