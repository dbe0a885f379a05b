"""How a sync goes, for a person to read: a picture that moves on a terminal, else a line now and then."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from leadboxer_source.cli.picture import bar, clock, lasting, moment, percent, share
from leadboxer_source.coverage import Stretch, add
from leadboxer_source.plan import Plan
from leadboxer_source.report import Report
from leadboxer_source.rows import instant

LINE_SECONDS = 20.0
"""Between two lines where nothing moves: whoever reads a log should not think that it hangs."""


class Progress:
    """Shows how a sync goes, from `with` until it ends. It is a watch of `sync`.

    Args:
        plan: What was planned; with it the time that is left can be told from the beginning.
        console: Where to; standard error if not given.
        now: Epoch seconds.
        line_seconds: Between two lines where it is no terminal.
    """

    def __init__(
        self,
        plan: Plan | None = None,
        console: Console | None = None,
        now: Callable[[], float] = time.time,
        line_seconds: float = LINE_SECONDS,
    ) -> None:
        self._plan = plan
        self._console = console or Console(stderr=True, highlight=False)
        self._now = now
        self._line_seconds = line_seconds
        self._report: Report | None = None
        self._slices = self._told_slice = 0
        self._told_at = time.monotonic()
        self._stopping = False
        self._ended = threading.Event()
        self._live: Live | None = None
        self._teller: threading.Thread | None = None

    def __enter__(self) -> Progress:
        """Begins to show."""
        if self._console.is_terminal and not self._console.is_dumb_terminal and not os.environ.get("CI"):
            self._live = Live(console=self._console, refresh_per_second=4, transient=True, get_renderable=self._picture)
            self._live.start()
        else:
            self._teller = threading.Thread(target=self._tell_now_and_then, daemon=True)
            self._teller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends."""
        self._ended.set()
        if self._live is not None:
            self._live.stop()
        if self._teller is not None:
            self._teller.join()

    def __call__(self, report: Report) -> None:
        """Takes in how it goes."""
        is_new = self._report is not report
        self._report = report
        self._slices += is_new
        if report.stopped:
            # of one that failed before it read anything there is nothing to tell but why
            if report.stopped != "closed" or report.handed:
                self._tell()
        elif report.listed and self._told_slice != self._slices and self._live is None:
            self._tell()

    def stopping(self) -> None:
        """Notes that the slice is being ended; does no more, as it is called from a signal's handler."""
        self._stopping = True

    def _tell_now_and_then(self) -> None:
        told_of_stopping = False
        while not self._ended.wait(min(1.0, self._line_seconds)):
            if self._stopping and not told_of_stopping:
                told_of_stopping = True
                self._line(stopping(self._report, self._now()))
            elif time.monotonic() - self._told_at >= self._line_seconds:
                self._tell()

    def _tell(self) -> None:
        self._told_slice = self._slices
        self._line(describe(self._report, self._slices, self._now(), self._plan))

    def _line(self, text: str) -> None:
        self._told_at = time.monotonic()
        self._console.print(text, markup=False, soft_wrap=self._live is None)

    def _picture(self) -> RenderableType:
        shown = picture(self._report, self._slices, self._now(), self._plan, self._console)
        return Group(shown, Text(stopping(self._report, self._now()), style="yellow")) if self._stopping else shown


def describe(report: Report | None, slice_number: int, now: float | None = None, plan: Plan | None = None) -> str:
    """Returns how it goes as one line.

    Args:
        report: Of the slice that goes on or has just ended.
        slice_number: Which one it is.
        now: Epoch seconds.
        plan: What was planned.
    """
    now = time.time() if now is None else now
    if report is None:
        return "starting"
    told = [f"slice {slice_number}: {_counts(report)}", f"{sum(report.requests.values()):,} requests"]
    if report.set_aside:
        told.append(f"{report.set_aside} set aside")
    if not report.stopped and (waits := waiting(report, now)):
        told.append(waits)
    if report.stopped == "closed":
        return ", ".join([*told, "not kept"])
    told.append(f"{percent(share(_reached(report), _span(report, now)))} covered")
    if not report.stopped and (left := eta(report, now, plan)):
        told.append(left)
    return ", ".join(told)


def picture(
    report: Report | None, slice_number: int, now: float, plan: Plan | None, console: Console
) -> RenderableType:
    """Returns how it goes as a few lines, with a bar over time.

    Args:
        report: Of the slice that goes on or has just ended.
        slice_number: Which one it is.
        now: Epoch seconds.
        plan: What was planned.
        console: Where it will be shown.
    """
    if report is None:
        return Text("Starting ...")
    span = _span(report, now)
    plain = not console.encoding.lower().startswith("utf")
    width = max(10, min(console.width, 100) - 24)
    doing = "loading what was read" if report.stopped else waiting(report, now) or "reading"
    requests = ", ".join(
        f"{report.requests.get(endpoint, 0):,} {name}"
        for endpoint, name in (("leads", "listing"), ("sessions", "sessions"), ("events", "events"))
    )
    lines = [
        Text(f"slice {slice_number}: {_counts(report)}"),
        Text(f"requests: {requests}" + (f"; {report.set_aside} set aside" if report.set_aside else "")),
        Text.assemble(
            f"{instant(span.lo):%Y-%m-%d} ",
            (bar(report.covered, span, width, report.staged, plain=plain), "green"),
            " now",
            f" {percent(share(_reached(report), span))}",
        ),
        Text(", ".join(filter(None, (doing, eta(report, now, plan)))), style="dim"),
    ]
    for line in lines:
        line.truncate(console.width, overflow="ellipsis")
    return Group(*lines)


def stopping(report: Report | None, now: float) -> str:
    """Says what happens after the first Ctrl-C."""
    owed = report.owed_seconds if report and not report.stopped else 0.0
    until = f" by about {clock(now + owed)}" if owed > 1 else ""
    return f"Stopping: what is under way is finished{until} and kept. Ctrl-C again loses this slice."


def waiting(report: Report, now: float) -> str:
    """Says until when the quota holds requests back; empty if it does not."""
    wait = report.waiting_until - now
    return f"waiting for quota until {clock(report.waiting_until)}" if wait > 1 else ""


def eta(report: Report, now: float, plan: Plan | None) -> str:
    """Says when all is going to be loaded, as far as that can be told; empty if it cannot."""
    reached = _reached(report)
    if plan is not None and plan.scope == report.scope and plan.since_ms <= report.since_ms:
        left = plan.seconds_left(add(reached, [Stretch(0, report.since_ms)]))
        if left is not None and not report.stopped:
            left += report.owed_seconds  # what is handed out counts as reached
        how = "to go"
    else:
        # who is older is rarer, so this is rather too long
        gained = share(reached, _span(report, now)) - share(report.covered, _span(report, now))
        elapsed = (report.ended_ms or int(now * 1000)) - report.started_ms
        known = gained > 0 and elapsed > 60_000
        left = (1 - share(reached, _span(report, now))) / gained * elapsed / 1000 if known else None
        how = "to go at the most"
    if left is None or left < 1:
        return ""
    return f"about {lasting(left)} {how}, done {moment(now + left, now)}"


def _reached(report: Report) -> list[Stretch]:
    return add(report.covered, report.staged)


def _span(report: Report, now: float) -> Stretch:
    return Stretch(report.since_ms, max(report.since_ms + 1, report.until_ms or int(now * 1000)))


def _counts(report: Report) -> str:
    users = f"{report.handed:,} users" if report.stopped else f"{report.handed:,} of {report.listed:,} users"
    return ", ".join(
        [users, *(f"{report.loaded[name]:,} {name}" for name in ("sessions", "events") if name in report.loaded)]
    )
