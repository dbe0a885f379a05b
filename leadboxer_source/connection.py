"""A way to the API for one run: the calls, and a lane for each child endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from leadboxer_source.client import EVENTS, LISTING, SESSIONS, Api, Client
from leadboxer_source.clock import Clock
from leadboxer_source.lanes import Lane, ThreadLane
from leadboxer_source.settings import Settings
from leadboxer_source.transport import Transport

_ANSWERED: set[str] = set()
"""Base URLs that have answered this process: what goes wrong at the beginning of a later slice is no typing error."""


class Traffic(Protocol):
    """What was sent so far, by endpoint."""

    requests: Counter[str]
    refusals: Counter[str]
    failing: dict[str, str]

    @property
    def waited_seconds(self) -> Mapping[str, float]:
        """Seconds in which requests waited for quota."""


class Connection(NamedTuple):
    """A way to the API: the calls, a lane for each child endpoint, and what was sent so far."""

    api: Api
    lanes: dict[str, Lane]
    traffic: Traffic
    waiting_until: Callable[[], float]
    close: Callable[[], None]
    on_listing_wait: Callable[[Callable[[], None]], None] = lambda _: None


def connect(config: Settings, clock: Clock) -> Connection:
    """Opens a way to the API over HTTP; sends nothing yet."""
    transport = Transport(config, clock, _ANSWERED)
    client = Client(transport, config)
    lanes = {
        SESSIONS: ThreadLane(client.sessions, transport.pace(SESSIONS)),
        EVENTS: ThreadLane(client.events, transport.pace(EVENTS)),
    }

    def close() -> None:
        transport.close()
        for lane in lanes.values():
            lane.close()

    def waiting_until() -> float:
        return max(transport.pace(endpoint).waiting_until for endpoint in (LISTING, SESSIONS, EVENTS))

    def on_listing_wait(tell: Callable[[], None]) -> None:
        transport.pace(LISTING).on_wait = tell

    return Connection(client, dict(lanes), transport, waiting_until, close, on_listing_wait)
