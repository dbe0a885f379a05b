"""What can go wrong between a client and LeadBoxer, by name."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from random import Random

RETRYABLE = (
    "429", "429_header", "500", "502_html", "503_empty", "html_200", "torn_json", "cut_body", "reset",
    "response_code", "empty_body", "slow_drip",
)  # fmt: skip
"""Faults that pass: the same request, sent again, may well be answered."""

NAMES = frozenset(
    {
        *RETRYABLE, "429_bare", "429_zero", "429_negative", "429_absurd", "daily_quota", "400", "401", "402", "403",
        "404", "empty_list", "timeout_after", "endless_drip", "wrong_type", "redirect_other_host",
    }
)  # fmt: skip
"""Every fault the server can make."""


class Faults:
    """Which request meets which fault: by chance, by script, or because of what it asks for.

    Args:
        rates: Probability of each fault.
        seed: The same seed meets the same requests.
        hang_s: Seconds that a `timeout_after` hangs before the connection is reset, and an `endless_drip` drips.
        endpoints: Endpoints that meet faults by chance; all if not given.
    """

    def __init__(
        self,
        rates: Mapping[str, float] | None = None,
        seed: int = 0,
        hang_s: float = 0.05,
        endpoints: Iterable[str] | None = None,
    ) -> None:
        self.hang_s = hang_s
        self._rates = {_known(name): rate for name, rate in (rates or {}).items()}
        self._dice = Random(seed)
        self._endpoints = frozenset(endpoints) if endpoints is not None else None
        self._scripts: defaultdict[str, list[str | None]] = defaultdict(list)
        self._poisoned: dict[str, str] = {}
        self._lock = threading.Lock()

    @classmethod
    def mixed(cls, probability: float, seed: int = 0) -> Faults:
        """Spreads a probability over the faults that pass."""
        return cls(dict.fromkeys(RETRYABLE, probability / len(RETRYABLE)), seed)

    def fail_next(self, endpoint: str, fault: str, times: int = 1, after: int = 0) -> None:
        """The next `times` requests to an endpoint meet the fault, but for the `after` before them."""
        with self._lock:
            self._scripts[endpoint] += [None] * after + [_known(fault)] * times

    def poison(self, parent_id: str, fault: str) -> None:
        """Every request for this lead or session meets the fault."""
        self._poisoned[parent_id] = _known(fault)

    def heal(self, parent_id: str) -> None:
        """Ends what `poison` began."""
        self._poisoned.pop(parent_id, None)

    def meets(self, endpoint: str, parent_id: str) -> str | None:
        """Returns the fault that a request meets, if any."""
        if parent_id in self._poisoned:
            return self._poisoned[parent_id]
        with self._lock:
            if self._scripts[endpoint]:
                return self._scripts[endpoint].pop(0)
            if not self._rates or (self._endpoints is not None and endpoint not in self._endpoints):
                return None
            roll = self._dice.random()
        for name, rate in self._rates.items():
            roll -= rate
            if roll < 0:
                return name
        return None


def _known(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"There is no fault {name!r}; there are {', '.join(sorted(NAMES))}.")
    return name
