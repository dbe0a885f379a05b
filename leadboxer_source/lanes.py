"""A lane: the requests to one endpoint, sent by a few threads, so that both children's quotas are used at once."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import Protocol

from leadboxer_source import settings
from leadboxer_source.client import Answer
from leadboxer_source.pace import Pace


class Fetch(Protocol):
    """Fetches the children of a parent."""

    def __call__(self, parent_id: str, /, *, once: bool = False) -> Answer:
        """Returns them; `once`: no request is sent again if it fails."""


class Lane(Protocol):
    """Fetches the children of one parent after the other."""

    backlog: int
    """Parents submitted and not yet answered."""

    def submit(self, parent_id: str, *, once: bool = False) -> Future[Answer]:
        """Queues a request for the children of a parent; `once`: it is not sent again if it fails."""

    def seconds_for(self, requests_owed: int) -> float:
        """Estimates how long so many requests take."""

    def has_room(self) -> bool:
        """Tells whether the lane could soon run dry."""


class ThreadLane:
    """A lane of daemon threads.

    `ThreadPoolExecutor` is not used because the interpreter joins its threads on exit: a run that failed while a
    request waits a minute for its quota would hang for that minute, and for the whole queue behind it.
    """

    def __init__(self, fetch: Fetch, pace: Pace, workers: int = settings.LANE_WORKERS) -> None:
        self.backlog = 0
        self._fetch = fetch
        self._pace = pace
        self._workers = workers
        self._ahead = max(pace.burst, 2 * workers)
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[str, bool, Future[Answer]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, parent_id: str, *, once: bool = False) -> Future[Answer]:
        """Queues a request for the children of a parent; `once`: it is not sent again if it fails."""
        future: Future[Answer] = Future()
        with self._lock:
            self.backlog += 1
            if len(self._threads) < min(self._workers, self.backlog):
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
        self._queue.put((parent_id, once, future))
        return future

    def seconds_for(self, requests_owed: int) -> float:
        """Estimates how long so many requests take."""
        return self._pace.seconds_for(requests_owed)

    def has_room(self) -> bool:
        """Tells whether the lane could soon run dry."""
        return self.backlog < self._ahead

    def close(self) -> None:
        """Lets the threads end once they are done with what they are at."""
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            parent_id, once, future = task
            try:
                answer = self._fetch(parent_id, once=once)
            except BaseException as error:
                self._done()
                future.set_exception(error)
            else:
                self._done()
                future.set_result(answer)

    def _done(self) -> None:
        with self._lock:
            self.backlog -= 1
