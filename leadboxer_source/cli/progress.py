"""How a sync goes, for a person to read."""

from __future__ import annotations

import sys
import time
from datetime import datetime

from leadboxer_source.report import Report
from leadboxer_source.rows import instant

_QUIET_LINE_SECONDS = 15.0


class Progress:
    """Shows how a sync goes: one moving line on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._moving = sys.stderr.isatty()
        self._shown_at = 0.0
        self._slices = 1

    def __call__(self, report: Report) -> None:
        """Shows a report."""
        line = describe(report, self._slices)
        if report.stopped:
            self._slices += 1
            self._print(line, end="\n")
        elif self._moving:
            self._print(line, end="")
        elif time.monotonic() - self._shown_at > _QUIET_LINE_SECONDS:
            self._shown_at = time.monotonic()
            self._print(line, end="\n")

    def _print(self, line: str, end: str) -> None:
        print(f"\r\x1b[2K{line}" if self._moving else line, end=end, file=sys.stderr, flush=True)


def describe(report: Report, slice_number: int) -> str:
    """Returns a report as one line."""
    asked, loaded = report.asked, report.loaded
    told = [
        f"slice {slice_number}: {report.handed} users",
        f"{loaded.get('sessions', 0)} sessions of {asked.get('sessions', 0)}",
        f"{loaded.get('events', 0)} events of {asked.get('events', 0)} sessions",
        f"{sum(report.requests.values())} requests",
    ]
    if report.set_aside:
        told.append(f"{report.set_aside} set aside")
    wait = report.waiting_until - time.time()
    if not report.stopped and wait > 1:
        told.append(f"waiting for quota until {datetime.fromtimestamp(report.waiting_until).astimezone():%H:%M:%S}")
    if report.stopped and report.covered:
        told.append(f"covered down to {instant(report.covered[-1].lo):%Y-%m-%d %H:%M}")
    return ", ".join(told)
