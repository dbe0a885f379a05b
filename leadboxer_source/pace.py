"""Pacing: how many requests may go in any window, and what a refusal says about it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil, inf
from typing import Any, NamedTuple

from dlt.common import logger
from pyrate_limiter import Rate, RateItem

from leadboxer_source import errors, settings, stores
from leadboxer_source.clock import Clock, http_date
from leadboxer_source.settings import PERIOD_SECONDS, RateLimit
from leadboxer_source.stores import Place

_SET_BACK_MS = 60_000
"""A stamp so much later than now was made before the clock was set back; it would hold requests back for long."""


class Told(NamedTuple):
    """What a 429 says about its limit; `None` where it says nothing usable."""

    wait_seconds: float | None
    rate: RateLimit | None


def told_by(headers: Mapping[str, str], body: Any, now: float) -> Told:
    """Reads a 429: how long to wait (header, else body, else reset time) and which limit was hit.

    Args:
        headers: Of the answer.
        body: Of the answer.
        now: Epoch seconds, by the server's clock.
    """
    body = body if isinstance(body, dict) else {}
    requests_allowed = positive(body.get("rate-limit"))
    period = PERIOD_SECONDS.get(str(body.get("rate-limit-period")).lower())
    rate = RateLimit(int(requests_allowed), period) if requests_allowed and requests_allowed >= 1 and period else None
    reset = positive(body.get("rate-limit-reset"))
    waits = (
        retry_after(headers, now),
        positive(body.get("retry-after")),
        positive(reset - now) if reset else None,
    )
    return Told(next((wait for wait in waits if wait), None), rate)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """How long the header `Retry-After` asks to wait: so many seconds, or up to a date of the server's clock."""
    told = headers.get("Retry-After")
    date = http_date(told)
    return positive(told) if date is None else positive(date - now)


def positive(value: Any) -> float | None:
    """The value as a number, or `None` for what is none, endless, zero or negative."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < inf else None


class _Window:
    """A limit, and the stamps of those who went: at most so many in any stretch of its length."""

    def __init__(self, rate: RateLimit, place: Place | None, name: str, clock: Clock) -> None:
        self.rate = rate
        self.believed_until = inf
        self._store = stores.opened(place, name, [_counted(rate)], clock)

    def keep_to(self, rate: RateLimit, believed_until: float) -> None:
        """Takes another limit of the same length; what has gone counts."""
        self.rate, self.believed_until = rate, believed_until
        self._store.bucket.rates = [_counted(rate)]

    def wait(self) -> float:
        """Seconds until a slot is free; 0 takes it."""
        with self._store.exclusively() as bucket:
            slot = RateItem("request", self._store.now_ms())
            if bucket.put(slot):
                bucket.leak(slot.timestamp)
                return 0.0
            wait_ms = bucket.waiting(slot)
            assert isinstance(wait_ms, int)  # noqa: S101 - pyrate-limiter types it for its asynchronous buckets too
            if wait_ms > _counted(self.rate).interval + _SET_BACK_MS:
                bucket.flush()
        return max(wait_ms, self._store.patience_ms) / 1000

    def free(self) -> int:
        """Slots that are free now."""
        with self._store.exclusively() as bucket:
            bucket.leak(self._store.now_ms())
            taken = bucket.count()
            assert isinstance(taken, int)  # noqa: S101 - pyrate-limiter types it for its asynchronous buckets too
            return max(0, self.rate.requests - taken)

    def close(self) -> None:
        """Gives the store back."""
        self._store.close()


def _counted(rate: RateLimit) -> Rate:
    """The server counts on arrival: a first request that travelled slowly must not make the window look short."""
    return Rate(rate.requests, int(rate.period_seconds * 1000 * 1.01) + 2)


def _is_lower(told: RateLimit, configured: RateLimit) -> bool:
    """Whether what is configured lets through more than was told, in any stretch of the told one's length."""
    return told.requests < configured.requests * ceil(told.period_seconds / configured.period_seconds)


class Pace:
    """Lets at most so many requests go in any window, for one key and endpoint, as close to the limit as it goes.

    A lower limit that the server names is kept to as well, until it was not named again for a period. Then requests go
    evenly for another one, so that a single refusal tells if it still holds.
    """

    def __init__(self, rate: RateLimit | None, clock: Clock, stop: threading.Event, store: Place | None, name: str):
        self.waiting_until = 0.0
        self.spent: errors.QuotaExhausted | None = None
        self.on_wait: Callable[[], None] = lambda: None
        self._configured = rate
        self._clock = clock
        self._stop = stop
        self._held_until = self._even_until = 0.0
        self._waiting, self._waiting_since, self._waited_seconds = 0, 0.0, 0.0
        self._counting = threading.Lock()  # not the other one, which is held while a store is asked
        self._lock = threading.Lock()
        self._windows = {rate.period_seconds: _Window(rate, store, name, clock)} if rate else {}
        self._learned: set[RateLimit] = set()

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
        started, taken = self._clock.time(), set[float]()
        while True:
            if self._stop.is_set():
                raise errors.Cancelled("The run ended before this request was sent.")
            if self.spent is not None:
                raise self.spent
            with self._lock:
                wait = self._wait(taken)
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
        """Keeps to a limit that the server named, if it is lower than the configured one; a higher one lifts it."""
        with self._lock:
            if self._configured is None:
                return
            period, window = told.period_seconds, self._windows.get(told.period_seconds)
            if not _is_lower(told, self._configured):
                if window is not None:
                    self._lift(window)
                return
            if window is None:
                # others who use the key learn it themselves
                window = self._windows[period] = _Window(told, None, "", self._clock)
            trial = max(period, self._configured.period_seconds)
            window.keep_to(told, max(self._clock.time(), self._held_until) + trial)
            if told not in self._learned:
                self._learned.add(told)
                logger.warning(f"LeadBoxer allows {told.requests} requests in {period:g} s; adapting.")

    def seconds_for(self, requests_owed: int) -> float:
        """Estimates how long so many requests take at this pace."""
        return max((requests_owed * rate.period_seconds / rate.requests for rate in self._rates), default=0.0)

    @property
    def burst(self) -> int:
        """Requests that may go at once after a pause."""
        return min((rate.requests for rate in self._rates), default=settings.LANE_WORKERS)

    @property
    def free(self) -> int:
        """Requests that may go now."""
        with self._lock:
            return min((window.free() for window in self._windows.values()), default=settings.LANE_WORKERS)

    def close(self) -> None:
        """Gives the stores back."""
        for window in self._windows.values():
            window.close()

    @property
    def _rates(self) -> list[RateLimit]:
        return [window.rate for window in tuple(self._windows.values())]

    def _wait(self, taken: set[float]) -> float:
        """Seconds until this request may take its next slot; 0 once it has one in every window.

        Args:
            taken: Lengths of the windows in which it has; grows.
        """
        now = self._clock.time()
        if now < self._held_until:
            return self._held_until - now
        for window in tuple(self._windows.values()):
            if self._configured and now >= window.believed_until:
                self._lift(window)
                self._even_until = now + self._configured.period_seconds
        # the shortest comes last: its stamp is to be the nearest to the sending
        for period in sorted(self._windows.keys() - taken, reverse=True):
            if wait := self._windows[period].wait():
                return wait
            taken.add(period)
        if self._configured and now < self._even_until:
            self._held_until = now + self._configured.period_seconds / self._configured.requests
        return 0.0

    def _lift(self, window: _Window) -> None:
        """Goes back from what was learned to what is configured."""
        if self._configured and window.rate.period_seconds == self._configured.period_seconds:
            window.keep_to(self._configured, inf)
        else:
            self._windows.pop(window.rate.period_seconds).close()
