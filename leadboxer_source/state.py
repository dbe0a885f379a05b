"""What a resource keeps between runs, for each scope: its coverage, and the children that were set aside.

    {"coverage": {"version": 1, "scopes": {SCOPE: {"covered": [[lo, hi], ...], "set_aside": {ID: {"since": ms, ...}}}}}}

Beside them `"again": [lo, hi]` notes, for whoever looks, what a resync has taken out of the coverage.

It has a key of its own in the resource's state, because dlt keeps things there too. Who was forgotten stands beside the
source's state, so that `refresh="drop_sources"` does not bring them back:

    {"version": 1, "people": {SITE: [DIGEST, ...]}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from leadboxer_source import settings
from leadboxer_source.coverage import Coverage, Stretch, add
from leadboxer_source.errors import ConfigurationInvalid, StateUnreadable

COVERED = ("users", "sessions", "events", "properties")
"""Resources that have a coverage."""

SOURCE = "leadboxer"
"""Name of the source in a pipeline's state, unless it was given another."""

VERSION = 1
KEY = "coverage"
FORGOTTEN = "leadboxer_forgotten"
"""Key of the source state that holds who was forgotten."""

SetAside = dict[str, dict[str, int]]
"""By id: since when it fails (`since`, epoch milliseconds) and how many runs tried (`attempts`)."""


@dataclass
class Remembered:
    """One resource's memory of one scope.

    Attributes:
        covered: What is loaded.
        set_aside: What could not be read.
        again: What was loaded and is marked to be read again, until the newest of it is.
    """

    covered: Coverage = field(default_factory=list)
    set_aside: SetAside = field(default_factory=dict)
    again: Stretch | None = None


def resources_of(pipeline_state: Mapping[str, Any], source_name: str = SOURCE) -> dict[str, Any]:
    """Returns the states of a source's resources, by name, as a pipeline's state holds them; none if there are none."""
    resources: dict[str, Any] = pipeline_state.get("sources", {}).get(source_name, {}).get("resources", {})
    return resources


def remember(resource_state: dict[str, Any], scope: str) -> Remembered:
    """Reads a resource's memory of a scope; nothing is remembered of a scope that was never loaded.

    Raises:
        StateUnreadable: A newer version wrote it, or it is damaged. It is never taken for empty: that would reload
            everything without a word.
    """
    if KEY not in resource_state:
        return Remembered()
    memory = resource_state[KEY]
    version = memory.get("version") if isinstance(memory, dict) else None
    if version != VERSION:
        raise StateUnreadable(
            f"The pipeline's state has version {version!r} and this package reads {VERSION}: "
            'upgrade leadboxer-source, or reload everything with refresh="drop_sources".'
        )
    try:
        stored = memory["scopes"].get(scope, {"covered": []})
        covered = [Stretch(int(lo), int(hi)) for lo, hi in stored["covered"]]
        again = Stretch(*map(int, stored["again"])) if "again" in stored else None
        set_aside = {
            str(key): {"since": int(entry["since"]), "attempts": int(entry["attempts"])}
            for key, entry in stored.get("set_aside", {}).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        covered, set_aside, again = [Stretch(1, 0)], {}, None
    if add([], covered) != covered:
        raise StateUnreadable(
            "The pipeline's state is damaged: restore it with `dlt pipeline ... sync`, or reload everything with "
            'refresh="drop_sources".'
        )
    return Remembered(covered, set_aside, again)


def record(resource_state: dict[str, Any], scope: str, memory: Remembered) -> None:
    """Writes a resource's memory of a scope."""
    stored: dict[str, Any] = {"covered": [list(stretch) for stretch in memory.covered]}
    if memory.set_aside:
        stored["set_aside"] = memory.set_aside
    kept = resource_state.setdefault(KEY, {"scopes": {}})
    again = memory.again or kept["scopes"].get(scope, {}).get("again")
    if again and (not memory.covered or memory.covered[-1].hi < again[1]):
        stored["again"] = list(again)
    kept["version"] = VERSION
    kept["scopes"][scope] = stored


def take_over(resource_state: dict[str, Any], stored: Mapping[str, Any]) -> None:
    """Replaces a resource's memory, of all scopes, by that in another state of it."""
    resource_state.pop(KEY, None)
    if KEY in stored:
        resource_state[KEY] = stored[KEY]


def drop_set_aside(resource_state: dict[str, Any], site: str, ids: Iterable[str]) -> None:
    """Takes children off the lists of what is to be asked for again, in every scope of a dataset."""
    for scope, stored in (resource_state.get(KEY) or {}).get("scopes", {}).items():
        if scope == site or scope.startswith(f"{site}&"):
            for key in ids:
                stored.get("set_aside", {}).pop(key, None)


class Forgotten(Container[object]):
    """Users that must not be loaded any more. Only digests of their ids are kept.

    Args:
        site: Their dataset.
        digests: Digests of their ids.
    """

    def __init__(self, site: str = "", digests: Iterable[str] = ()) -> None:
        self._site = site
        self._digests = frozenset(digests)

    def __contains__(self, user_id: object) -> bool:
        """Tells whether a user was forgotten."""
        return bool(self._digests) and _digest(self._site, str(user_id)) in self._digests


NOBODY = Forgotten()


def forgotten_people(source_state: dict[str, Any], site: str) -> Forgotten:
    """Reads who of a dataset was forgotten.

    Raises:
        StateUnreadable: A newer version wrote it, or it is damaged; nobody who was forgotten may come back for that.
    """
    people = source_state.get("people", {}) if source_state.get("version", VERSION) == VERSION else None
    digests = people.get(site, []) if isinstance(people, dict) else None
    if not isinstance(digests, list):
        raise StateUnreadable(
            "The pipeline's list of forgotten people cannot be read: upgrade leadboxer-source, or restore the state "
            "with `dlt pipeline ... sync`."
        )
    return Forgotten(site, digests)


def note_forgotten(source_state: dict[str, Any], site: str, user_id: str) -> None:
    """Writes down that a user must not be loaded any more.

    Raises:
        ConfigurationInvalid: There is no room for another one.
    """
    if user_id in forgotten_people(source_state, site):
        return
    digests = source_state.setdefault("people", {}).setdefault(site, [])
    if len(digests) >= settings.MAX_FORGOTTEN:
        raise ConfigurationInvalid(
            f"{settings.MAX_FORGOTTEN} people of this dataset are forgotten already, which is all that the pipeline's "
            "state has room for: have further ones deleted in LeadBoxer itself, then they cannot come back either."
        )
    source_state["version"] = VERSION
    source_state["people"][site] = sorted([*digests, _digest(site, user_id)])


def _digest(site: str, user_id: str) -> str:
    return hashlib.blake2b(f"{site}\n{user_id}".encode(), digest_size=8).hexdigest()
