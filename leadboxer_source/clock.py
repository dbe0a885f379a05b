"""The time, passed in, so that tests can let it jump."""

from __future__ import annotations

import threading
import time
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
