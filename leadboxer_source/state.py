"""What a resource keeps between runs, for each scope: its coverage, and the children that were set aside.

    {"coverage": {"version": 1, "scopes": {SCOPE: {"covered": [[lo, hi], ...], "set_aside": {ID: {"since": ms, ...}}}}}}

It has a key of its own in the resource's state, because dlt keeps things there too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from leadboxer_source.coverage import Coverage, Stretch, add
from leadboxer_source.errors import StateUnreadable

VERSION = 1
KEY = "coverage"

SetAside = dict[str, dict[str, int]]
"""By id: since when it fails (`since`, epoch milliseconds) and how many runs tried (`attempts`)."""


@dataclass
class Remembered:
    """One resource's memory of one scope."""

    covered: Coverage = field(default_factory=list)
    set_aside: SetAside = field(default_factory=dict)


def remember(resource_state: dict[str, Any], scope: str) -> Remembered:
    """Reads a resource's memory of a scope; nothing is remembered of a scope that was never loaded.

    Raises:
        StateUnreadable: A newer version wrote it, or it is damaged. It is never taken for empty: that would reload
            everything without a word.
    """
    memory = resource_state.get(KEY)
    if memory is None:
        return Remembered()
    version = memory.get("version") if isinstance(memory, dict) else None
    if version != VERSION:
        raise StateUnreadable(
            f"The pipeline's state has version {version!r} and this package reads {VERSION}: "
            'upgrade leadboxer-source, or reload everything with refresh="drop_sources".'
        )
    try:
        stored = memory["scopes"].get(scope, {"covered": []})
        covered = [Stretch(int(lo), int(hi)) for lo, hi in stored["covered"]]
        set_aside = {
            str(key): {k: int(v) for k, v in entry.items()} for key, entry in stored.get("set_aside", {}).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        covered, set_aside = [Stretch(1, 0)], {}
    if add([], covered) != covered:
        raise StateUnreadable(
            "The pipeline's state is damaged: restore it with `dlt pipeline ... sync`, or reload everything with "
            'refresh="drop_sources".'
        )
    return Remembered(covered, set_aside)


def record(resource_state: dict[str, Any], scope: str, memory: Remembered) -> None:
    """Writes a resource's memory of a scope."""
    stored: dict[str, Any] = {"covered": [list(stretch) for stretch in memory.covered]}
    if memory.set_aside:
        stored["set_aside"] = memory.set_aside
    kept = resource_state.setdefault(KEY, {"scopes": {}})
    kept["version"] = VERSION
    kept["scopes"][scope] = stored
