"""How a run goes, and what is kept of it: pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from leadboxer_source.coverage import Coverage, Stretch
from leadboxer_source.rows import Row, instant
from leadboxer_source.state import Remembered

ENDPOINTS = {"users": "leads", "sessions": "sessions", "events": "events"}
"""Whose requests a resource causes; properties come with their events."""


@dataclass
class Report:
    """How a run goes, or went.

    Attributes:
        stopped: Why it ended: `covered`, `minutes`, `requests`, `quota`, `unsettled` (the users moved faster than they
            could be listed), `asked` (by `stopping`) or `closed` (by whoever runs it). Empty while it goes on.
        stopping: Set it, and the run hands out no more users, finishes what it owes, and ends with its claims.
        run_id: Tells the runs in `load_runs` apart.
        scope: Dataset and listing filters.
        one_off: It has an end date and marks nothing as loaded.
        started_ms: When it began, epoch milliseconds.
        ended_ms: When it ended; 0 while it goes on.
        complete: All that there was when it ended is covered (of a one-off: was read).
        listed: Users handed out, and those that were listed and wait to be.
        handed: Users handed out.
        asked: Parents asked for their children, by endpoint.
        loaded: Rows read, by resource.
        gone: Parents that the API did not know any more.
        set_aside: Parents whose children could not be fetched yet.
        requests: Requests, by endpoint.
        refusals: Requests answered 429, by endpoint.
        waited_seconds: Seconds in which requests waited for quota, by endpoint; several that wait at once count once.
        waiting_until: Epoch seconds until which the quota holds requests back; in the past if it does not.
        failing: Why requests are being sent again, by endpoint; empty while all are answered.
        since_ms: From when on users are wanted, epoch milliseconds.
        until_ms: Up to when this run claims, epoch milliseconds; 0 if it claims nothing.
        covered: What every selected resource covers; when it ended, claims of this run included.
        staged: What this run is going to claim, if it ends well.
        owed: Parents that were asked for and did not answer yet, by endpoint.
        owed_seconds: How long these take, at the pace that the quota allows.
    """

    stopped: str = ""
    stopping: bool = False
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    scope: str = ""
    one_off: bool = False
    started_ms: int = 0
    ended_ms: int = 0
    complete: bool = False
    listed: int = 0
    handed: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    loaded: dict[str, int] = field(default_factory=dict)
    gone: int = 0
    set_aside: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    waited_seconds: dict[str, float] = field(default_factory=dict)
    waiting_until: float = 0.0
    failing: dict[str, str] = field(default_factory=dict)
    since_ms: int = 0
    until_ms: int = 0
    covered: Coverage = field(default_factory=list)
    staged: Coverage = field(default_factory=list)
    owed: dict[str, int] = field(default_factory=dict)
    owed_seconds: float = 0.0

    @property
    def can_go_on(self) -> bool:
        """Whether a run after it would get further at once: nothing but a budget of its own has ended it."""
        return self.stopped in {"minutes", "requests"} and not self.stopping


Watch = Callable[[Report], None]
"""Is told how the run goes, a few times a second and once more when it ended."""


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Adds up counts that have names."""
    totals: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            totals[name] = totals.get(name, 0) + count
    return totals


def run_rows(report: Report, site: str, memories: Mapping[str, Remembered]) -> list[Row]:
    """Returns the rows of `load_runs`: one for each resource and stretch that is covered after the run.

    Args:
        report: Of a run that has ended.
        site: Dataset id.
        memories: What each resource that the run selected, or asked for its children's sake, remembers after the run.
    """
    rows: list[Row] = []
    for resource, memory in memories.items():
        endpoint = ENDPOINTS.get(resource, "")
        took = {
            "requests": report.requests.get(endpoint, 0),
            "refusals": report.refusals.get(endpoint, 0),
            "waited_seconds": report.waited_seconds.get(endpoint, 0.0),
            "rows_read": report.loaded.get(resource, 0),
            "failures": len(memory.set_aside),
        }
        stretches: list[tuple[int, Stretch | None]] = list(enumerate(reversed(memory.covered), 1))
        for number, stretch in stretches or [(0, None)]:
            rows.append(
                {
                    "site": site,
                    "run_id": report.run_id,
                    "resource": resource,
                    "stretch": number,
                    "scope": report.scope,
                    "covered_from": instant(stretch.lo) if stretch else None,
                    "covered_to": instant(stretch.hi) if stretch else None,
                    **(took if number <= 1 else dict.fromkeys(took)),
                    "stopped": report.stopped,
                    "complete": report.complete,
                    "started_at": instant(report.started_ms),
                    "ended_at": instant(report.ended_ms),
                }
            )
    return rows
