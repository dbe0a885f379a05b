"""The time, passed in, so that tests can let it jump."""

from __future__ import annotations

import threading
import time
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time and lets it pass; tests bring one that jumps."""

    def time(self) -> float:
        """Returns epoch seconds."""

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        """Waits, or returns early when `stop` is set."""


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        """Returns epoch seconds."""
        return time.time()

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        """Waits, or returns early when `stop` is set."""
        stop.wait(seconds)


def http_date(text: str | None) -> float | None:
    """Reads a date of an HTTP header, in any of the three forms it may have; returns epoch seconds."""
    try:
        date = parsedate_to_datetime(text or "")
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    # one of the forms names no zone: all are in UTC
    return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
