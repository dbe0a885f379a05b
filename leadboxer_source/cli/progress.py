"""How a sync goes, for a person to read: a picture that moves on a terminal, else a line now and then."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from leadboxer_source.cli.picture import LISTING, bar, clock, lasting, many, moment, percent, share
from leadboxer_source.cli.terminal import Terminal
from leadboxer_source.coverage import Stretch, add
from leadboxer_source.plan import Plan, seconds_for
from leadboxer_source.report import Report
from leadboxer_source.rows import instant
from leadboxer_source.settings import DAY_MS, RETENTION_DAYS

_LITTLE = 0.001
"""The share of the time that counts as none: the last minutes are never covered. Nor does so little tell of the rest: a
minute of the time that waits an hour for quota would make it decades."""

_LONGEST_SECONDS = RETENTION_DAYS * DAY_MS / 1000
"""Whoever is listed now has expired by then."""

LINE_SECONDS = 29.0
"""Between two lines, so that one comes every 30 s: whoever reads a log should not think that it hangs."""


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
        self._console = console or Terminal(stderr=True)
        self._now = now
        self._line_seconds = line_seconds
        self._report: Report | None = None
        self._slices = self._told_slice = 0
        self._told_at = time.monotonic()
        self._news, self._news_at = "", 0.0
        self._stopping = False
        self._ends_at = 0.0
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
                self._line(self._told_stopping())
            elif time.monotonic() - self._told_at >= self._line_seconds:
                self._tell()

    def _tell(self) -> None:
        self._told_slice = self._slices
        now = self._now()
        news = describe(self._report, self._slices, now, self._plan)
        if news != self._news:
            self._news, self._news_at = news, now
            self._line(news)
        else:
            self._line(f"still {_doing(self._report, now)}, for {lasting(now - self._news_at)}")

    def _line(self, text: str) -> None:
        self._told_at = time.monotonic()
        self._console.print(text, markup=False, soft_wrap=self._live is None)

    def _picture(self) -> RenderableType:
        shown = picture(self._report, self._slices, self._now(), self._plan, self._console)
        is_lost = self._report is not None and self._report.stopped == "closed"
        is_ending = self._stopping and not is_lost
        return Group(shown, Text(self._told_stopping(), style="yellow")) if is_ending else shown

    def _told_stopping(self) -> str:
        """What is being finished, and until when: a time that stays as it was told until it is over."""
        if self._ends_at < self._now():
            self._ends_at = self._now() + (owed_seconds(self._report) if self._report else 0.0)
        return stopping(self._report, self._ends_at)


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
    work = Work.of(report, now, plan)
    told = [_counts(report, work), many(sum(report.requests.values()), "request")]
    if report.set_aside:
        told.append(f"{report.set_aside} set aside")
    if not report.stopped and (held := trouble(report.failing) or waiting(report, now)):
        told.append(held)
    if report.stopped == "closed":
        told.append("not kept")
    elif not report.one_off:
        span = _span(report, now)
        told.append(f"{percent(share(report.covered, span))} of the time covered")
        if not report.stopped and report.staged:
            told.append(f"{percent(share(report.staged, span))} being read")
    if not report.stopped and (main := work.told(now)):
        told.insert(0, main)
    return f"slice {slice_number}: {', '.join(told)}"


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
    span, work = _span(report, now), Work.of(report, now, plan)
    plain = not console.encoding.lower().startswith("utf")
    width = max(10, min(console.width, 100) - 44)
    requests = ", ".join(
        f"{report.requests.get(endpoint, 0):,} {name}"
        for endpoint, name in (("leads", LISTING), ("sessions", "sessions"), ("events", "events"))
    )
    covered = Text.assemble(
        f"{instant(span.lo):%Y-%m-%d} ",
        (bar(report.covered, span, width, report.staged, plain=plain), "green"),
        f" now, {percent(share(report.covered, span))} of the time covered",
    )
    lines = [
        Text(f"slice {slice_number}: {_counts(report, work)}"),
        Text(f"requests: {requests}" + (f"; {report.set_aside} set aside" if report.set_aside else "")),
        *([] if report.one_off else [covered]),
        Text(_doing(report, now), style="dim"),
    ]
    if not report.stopped and (main := work.told(now)):
        lines.insert(0, Text(main, style="bold"))
    for line in lines:
        line.truncate(console.width, overflow="ellipsis")
    return Group(*lines)


def stopping(report: Report | None, until: float) -> str:
    """Says what happens after the first Ctrl-C.

    Args:
        report: Of the slice that is being ended.
        until: Epoch seconds at which it will be, about.
    """
    owed = report.owed if report and not report.stopped else {}
    begun = [f"{many(owed['sessions'], 'user')} with their sessions"] if owed.get("sessions") else []
    begun += [many(owed["events"], "session")] if owed.get("events") else []
    told = "keeping what was read"
    if begun:
        minute_after = (until // 60 + 1) * 60
        told = f"reading the {' and '.join(begun)} that were begun, until about {moment(minute_after, until)}"
    return f"Stopping: {told}.\nCtrl-C again stops at once and loses this slice."


def trouble(failing: Mapping[str, str]) -> str:
    """Says that LeadBoxer does not answer as it should, and why; empty if it does.

    Args:
        failing: As in a report.
    """
    told = ", ".join(f"{LISTING if name == 'leads' else name}: {reason}" for name, reason in sorted(failing.items()))
    return f"LeadBoxer does not answer ({told}), trying again" if told else ""


def waiting(report: Report, now: float) -> str:
    """Says until when the quota holds requests back; empty if it does not."""
    wait = report.waiting_until - now
    return f"waiting for quota until {clock(report.waiting_until)} ({lasting(wait)})" if wait > 1 else ""


def _doing(report: Report | None, now: float) -> str:
    if report is None:
        return "starting"
    if report.stopped == "closed":
        return "stopping at once: this slice is not kept"
    if report.stopped:
        return "loading what was read"
    return trouble(report.failing) or waiting(report, now) or "reading"


class Work(NamedTuple):
    """What of a load is done. What is covered says little of it: whoever is listed counts as covered before being read.

    Attributes:
        users: Whose sessions are read, or who owed none.
        all_users: Those and the ones to be read, as far as they are listed or were planned.
        sessions: Whose events are read.
        all_sessions: Those and the ones to be read.
        planned: Whether both totals are estimates of the whole load.
        share: Of all requests for sessions and events that are known or were planned; `None` if unlisted time is left.
        seconds_left: How long the rest takes; `None` if that cannot be told.
        at_most: Whether it may well be less.
    """

    users: int
    all_users: int
    sessions: int
    all_sessions: int
    planned: bool
    share: float | None
    seconds_left: float | None
    at_most: bool

    @classmethod
    def of(cls, report: Report, now: float, plan: Plan | None) -> Work:
        """Reads it off a report.

        Args:
            report: Of the slice that goes on or has just ended.
            now: Epoch seconds.
            plan: What was planned.
        """
        plan = _fitting(plan, report)
        reached, owed_users = _reached(report), report.owed.get("sessions", 0)
        users = max(0, report.handed - owed_users)
        sessions, known_sessions = _read_sessions(report), report.asked.get("events", 0)
        unlisted = 1 - share(reached, _span(report, now))
        if plan is not None:
            wanted, later = plan.estimates[0].requests, plan.remaining(_with_before(reached, report))
            owed_events = _owed_events(report, wanted["events"] / max(1, wanted["sessions"]))
            left = {"sessions": owed_users + later["sessions"], "events": owed_events + later["events"]}
            known_sessions = sessions + round(left["events"])
            done: float | None = 1 - sum(left.values()) / max(1, wanted["sessions"] + wanted["events"])
            seconds = seconds_for(left, plan.rate_limit)
        else:
            left = {"sessions": float(owed_users), "events": _owed_events(report)}
            read = report.asked.get("sessions", 0) - owed_users + sessions
            done = read / (read + sum(left.values())) if read and unlisted < _LITTLE else None
            seconds = _seconds_left(report, now, unlisted)
        return cls(
            users,
            max(report.listed, users + round(left["sessions"])),
            sessions,
            known_sessions,
            plan is not None,
            None if done is None else max(0.0, min(done, 0.999)),
            None if report.stopping or report.failing else seconds,
            plan is None and unlisted >= _LITTLE,
        )

    def told(self, now: float) -> str:
        """Says how much is done and when all will be; empty if neither can be told.

        Args:
            now: Epoch seconds.
        """
        told = [] if self.share is None else [f"{percent(self.share)} done"]
        if self.seconds_left is not None and self.seconds_left >= 1:
            most = " at the most" if self.at_most else ""
            left = self.seconds_left
            told.append(f"about {lasting(left)} to go{most}, until {moment(now + left, now)}")
        return ", ".join(told)


def owed_seconds(report: Report) -> float:
    """Estimates how long it takes to read whole whoever was begun."""
    most = max(report.owed.values(), default=0)
    each = report.owed_seconds / most if most else 0.0
    return each * max(report.owed.get("sessions", 0), _owed_events(report))


def _read_sessions(report: Report) -> int:
    return report.asked.get("events", 0) - report.owed.get("events", 0)


def _owed_events(report: Report, each: float | None = None) -> float:
    """Sessions whose events are owed, and those that users who are being asked will probably have.

    Args:
        report: Of the slice that goes on.
        each: Sessions of a user; as many as those had who were read if not given.
    """
    owed_users = report.owed.get("sessions", 0)
    if each is None:
        read = report.asked.get("sessions", 0) - owed_users
        each = report.asked.get("events", 0) / read if read > 0 else 1.0
    return report.owed.get("events", 0) + owed_users * each


def _seconds_left(report: Report, now: float, unlisted: float) -> float | None:
    """Estimates it without a plan from the time covered so far; who is older is rarer, so this is rather too long."""
    gained = 1 - unlisted - share(report.covered, _span(report, now))
    elapsed = (report.ended_ms or int(now * 1000)) / 1000 - report.started_ms / 1000
    owed = owed_seconds(report)
    if unlisted < _LITTLE:
        return owed
    if gained < _LITTLE or elapsed <= 60:
        return None
    left = owed + unlisted / gained * (elapsed + owed)
    return left if left < _LONGEST_SECONDS else None


def _fitting(plan: Plan | None, report: Report) -> Plan | None:
    """The plan, if it is one of this load that was not carried out before."""
    if plan is None or not plan.is_of(report.scope, report.since_ms, report.started_ms):
        return None
    return plan if sum(plan.remaining(_with_before(report.covered, report)).values()) >= 1 else None


def _with_before(covered: Sequence[Stretch], report: Report) -> list[Stretch]:
    """What is covered, and all that is older than what is wanted."""
    return add(covered, [Stretch(0, report.since_ms)])


def _reached(report: Report) -> list[Stretch]:
    return add(report.covered, report.staged)


def _span(report: Report, now: float) -> Stretch:
    return Stretch(report.since_ms, max(report.since_ms + 1, report.until_ms or int(now * 1000)))


def _counts(report: Report, work: Work) -> str:
    def of(done: int, total: int, noun: str) -> str:
        if report.stopped:
            return many(done, noun)
        return f"{done:,} of {'about ' if work.planned else ''}{many(total, noun)}"

    told = [of(work.users, work.all_users, "user")]
    if "events" in report.asked:
        told.append(of(work.sessions, work.all_sessions, "session"))
    elif "sessions" in report.loaded:
        told.append(many(report.loaded["sessions"], "session"))
    if "events" in report.loaded:
        told.append(many(report.loaded["events"], "event"))
    return ", ".join(told)
