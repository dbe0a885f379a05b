"""Pacing: how many requests may go in any window, and what a refusal says about it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from dlt.common import logger
from pyrate_limiter import Rate, RateItem

from leadboxer_source import errors, settings, stores
from leadboxer_source.clock import Clock
from leadboxer_source.settings import RateLimit
from leadboxer_source.stores import Place

_PERIOD_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0, "month": 30 * 86_400.0}

_SET_BACK_MS = 60_000
"""A stamp so much later than now was made before the clock was set back; it would hold requests back for long."""


class Told(NamedTuple):
    """What a 429 says about its limit; `None` where it says nothing usable."""

    wait_seconds: float | None
    rate: RateLimit | None


def told_by(headers: Mapping[str, str], body: Any, now: float) -> Told:
    """Reads a 429: how long to wait (header, else body, else reset time) and which limit was hit."""
    body = body if isinstance(body, dict) else {}
    requests_allowed = positive(body.get("rate-limit"))
    period = _PERIOD_SECONDS.get(str(body.get("rate-limit-period")).lower())
    rate = RateLimit(int(requests_allowed), period) if requests_allowed and requests_allowed >= 1 and period else None
    reset = positive(body.get("rate-limit-reset"))
    waits = (
        positive(headers.get("Retry-After")),
        positive(body.get("retry-after")),
        positive(reset - now) if reset else None,
    )
    return Told(next((wait for wait in waits if wait), None), rate)


def positive(value: Any) -> float | None:
    """The value as a number, or `None` for what is none, zero or negative."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 else None


class Pace:
    """Lets at most so many requests go in any window, for one key and endpoint, as close to the limit as it goes."""

    def __init__(self, rate: RateLimit | None, clock: Clock, stop: threading.Event, store: Place | None, name: str):
        self.waiting_until = 0.0
        self.spent: errors.QuotaExhausted | None = None
        self.on_wait: Callable[[], None] = lambda: None
        self._configured = self._rate = rate
        self._clock = clock
        self._stop = stop
        self._held_until = 0.0
        self._waiting, self._waiting_since, self._waited_seconds = 0, 0.0, 0.0
        self._counting = threading.Lock()  # not the other one, which is held while a store is asked
        self._lock = threading.Lock()
        self._store = stores.opened(store, name, [self._window(rate)], clock) if rate else None

    @property
    def waited_seconds(self) -> float:
        """Seconds in which requests waited here; several that wait at once count once."""
        with self._counting:
            return self._waited_seconds + (self._clock.time() - self._waiting_since if self._waiting else 0.0)

    def acquire(self) -> float:
        """Waits for a slot and takes it; returns the seconds waited.

        Raises:
            Cancelled: The run ended meanwhile.
            QuotaExhausted: The quota is spent, as an earlier request was told.
        """
        started = self._clock.time()
        while True:
            if self._stop.is_set():
                raise errors.Cancelled("The run ended before this request was sent.")
            if self.spent is not None:
                raise self.spent
            with self._lock:
                wait = self._wait()
            if wait <= 0:
                return self._clock.time() - started
            self.waiting_until = self._clock.time() + wait
            self.on_wait()
            with self._counted():
                self._clock.sleep(wait, self._stop)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._counting:
            if not self._waiting:
                self._waiting_since = self._clock.time()
            self._waiting += 1
        try:
            yield
        finally:
            with self._counting:
                self._waiting -= 1
                if not self._waiting:
                    self._waited_seconds += self._clock.time() - self._waiting_since

    def hold(self, seconds: float) -> None:
        """Lets nothing go for so long: the server said so."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock.time() + seconds)

    def learn(self, told: RateLimit) -> None:
        """Takes over a limit that the server named, if it is lower than the configured one; a higher one lifts it."""
        with self._lock:
            if self._store is None or self._configured is None:
                return
            rate = min(self._configured, told, key=lambda limit: limit.requests / limit.period_seconds)
            if rate != self._rate:
                logger.warning(f"LeadBoxer allows {rate.requests} requests in {rate.period_seconds:g} s; adapting.")
                self._rate = rate
                self._store.bucket.rates = [self._window(rate)]

    def seconds_for(self, requests_owed: int) -> float:
        """Estimates how long so many requests take at this pace."""
        return requests_owed * self._rate.period_seconds / self._rate.requests if self._rate else 0.0

    @property
    def burst(self) -> int:
        """Requests that may go at once after a pause."""
        return self._rate.requests if self._rate else settings.LANE_WORKERS

    @property
    def free(self) -> int:
        """Requests that may go now."""
        if self._store is None or self._rate is None:
            return self.burst
        with self._lock, self._store.exclusively() as bucket:
            bucket.leak(self._store.now_ms())
            taken = bucket.count()
            assert isinstance(taken, int)  # noqa: S101 - pyrate-limiter types it for its asynchronous buckets too
            return max(0, self._rate.requests - taken)

    def close(self) -> None:
        """Gives the store back."""
        if self._store is not None:
            self._store.close()

    def _wait(self) -> float:
        """Seconds until a slot is free; 0 takes it."""
        now = self._clock.time()
        if now < self._held_until:
            return self._held_until - now
        if self._store is None or self._rate is None:
            return 0.0
        with self._store.exclusively() as bucket:
            slot = RateItem("request", self._store.now_ms())
            if bucket.put(slot):
                bucket.leak(slot.timestamp)
                return 0.0
            wait_ms = bucket.waiting(slot)
            assert isinstance(wait_ms, int)  # noqa: S101 - pyrate-limiter types it for its asynchronous buckets too
            if wait_ms > self._window(self._rate).interval + _SET_BACK_MS:
                bucket.flush()
        return max(wait_ms, self._store.patience_ms) / 1000

    @staticmethod
    def _window(rate: RateLimit) -> Rate:
        """The server counts on arrival: a first request that travelled slowly must not make the window look short."""
        return Rate(rate.requests, int(rate.period_seconds * 1000 * 1.01) + 2)
