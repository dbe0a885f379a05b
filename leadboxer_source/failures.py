"""What could not be fetched: set aside to be asked for again, told in `load_failures`, and judged for an outage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from leadboxer_source import errors, settings
from leadboxer_source.client import EVENTS, SESSIONS
from leadboxer_source.rows import ReadingClock, Row, instant
from leadboxer_source.state import SetAside

_UNKNOWN = "LeadBoxer does not know it (status 404), although it has just listed it."
_CUT_OFF = "The quota was spent before its turn came."


class Failures:
    """The children that failed, of one run and of those before it.

    Args:
        site: The dataset.
        reading: Stamps rows.
        set_aside: What earlier runs could not fetch.

    Attributes:
        set_aside: By endpoint, what could not be fetched so far.
        rows: For the table of failures.
        cut_off: What is set aside only because the quota was spent, by endpoint and id, and the user it was asked for.
    """

    def __init__(self, site: str, reading: ReadingClock, set_aside: Mapping[str, SetAside]) -> None:
        self._before: dict[str, SetAside] = {name: set_aside.get(name, {}) for name in (SESSIONS, EVENTS)}
        self.set_aside = {name: dict(entries) for name, entries in self._before.items()}
        self.rows: list[Row] = []
        self.cut_off: dict[tuple[str, str], str] = {}
        self._site = site
        self._reading = reading
        self._in_a_row: dict[str, set[str]] = {name: set() for name in self.set_aside}
        self._good: Counter[str] = Counter()

    def is_known(self, name: str, parent_id: str) -> bool:
        """Whether an earlier run set it aside."""
        return parent_id in self._before[name]

    def succeeded(self, name: str) -> None:
        """Notes an answer: whatever fails besides, the endpoint works."""
        self._good[name] += 1
        self._in_a_row[name].clear()

    def failed(self, name: str, parent_id: str, user_id: str | None, error: errors.LeadBoxerError) -> str:
        """Sets a child aside, so that one bad parent neither stops nor hides anything; returns why, in one sentence.

        Raises:
            AccessDenied: So it was for everybody who was asked for.
            OutageSuspected: Too many users in a row failed: it is not them.
        """
        # what is to be done about it is for the whole run to say
        reason = f"{str(error).split('; ')[0].rstrip('.')}."
        self._count(name, parent_id, user_id, reason)
        is_for_all = not self._good[name] and len(self._in_a_row[name]) > settings.MAX_DENIED
        if isinstance(error, errors.AccessDenied) and is_for_all:
            raise error
        self.put_aside(name, parent_id, reason)
        return reason

    def unknown(self, name: str, parent_id: str, user_id: str | None, *, once_more: bool) -> bool:
        """Sets aside what the API does not know although it has just listed it, to be sure; returns whether it did.

        Raises:
            OutageSuspected: So it was for too many users in a row.
        """
        self._count(name, parent_id, user_id, "LeadBoxer does not know whom it has just listed (status 404).")
        is_sure = self.is_known(name, parent_id) or len(self.set_aside[name]) >= settings.MAX_UNKNOWN
        if is_sure or not once_more:
            return False
        self.put_aside(name, parent_id, _UNKNOWN)
        return True

    def cut(self, name: str, parent_id: str, user_id: str | None) -> None:
        """Sets a child aside for which the quota did not last."""
        # what was set aside before lies inside coverage, where nobody would ask for it again
        is_new = parent_id not in self.set_aside[name]
        if is_new and user_id is not None and not self.is_known(SESSIONS, user_id):
            self.cut_off[name, parent_id] = user_id
        self.put_aside(name, parent_id, _CUT_OFF)

    def undo(self) -> None:
        """Leaves everything as earlier runs did: nothing is claimed, so a later run asks for it all the same."""
        self.rows.clear()
        self.set_aside = {name: dict(entries) for name, entries in self._before.items()}

    def put_aside(self, name: str, parent_id: str, reason: str) -> None:
        """Has a child asked for again in the next run."""
        before = self.set_aside[name].get(parent_id, {"since": self._now_ms(), "attempts": 0})
        entry = {**before, "attempts": before["attempts"] + 1}
        self.set_aside[name][parent_id] = entry
        self._note(name, parent_id, reason, entry)

    def tell(self, name: str, parent_id: str, reason: str) -> None:
        """Names what may be missing of a child that was fetched."""
        self._note(name, parent_id, reason, {"since": self._now_ms(), "attempts": 1})

    def resolve(self, name: str, parent_id: str) -> None:
        """Strikes off a child that has arrived."""
        self._note(name, parent_id, "", self.set_aside[name].pop(parent_id), resolved=True)

    def leave(self, cut_off: Collection[tuple[str, str]]) -> None:
        """Sets aside no more what the quota cut off: nothing will be claimed for it, so a later run asks anyway."""
        for name, parent_id in cut_off:
            del self.set_aside[name][parent_id]
        self.rows = [row for row in self.rows if (row["resource"], row["id"]) not in cut_off]

    def _count(self, name: str, parent_id: str, user_id: str | None, reason: str) -> None:
        """Judges by users: a single one may have any number of sessions that cannot be read."""
        if not self.is_known(name, parent_id):
            self._in_a_row[name].add(user_id or parent_id)
        if len(self._in_a_row[name]) > settings.MAX_FAILURES:
            raise errors.OutageSuspected(
                f"More than {settings.MAX_FAILURES} users in a row could not be read, the last one so: {reason} "
                "Nothing of this run is kept, but all of earlier ones; run again later."
            ) from None

    def _note(
        self, name: str, parent_id: str, reason: str, entry: Mapping[str, int], *, resolved: bool = False
    ) -> None:
        self.rows.append(
            {
                "site": self._site,
                "resource": name,
                "id": parent_id,
                "reason": reason,
                "failed_since": instant(entry["since"]),
                "attempts": entry["attempts"],
                "resolved": resolved,
                "read_at": self._reading.stamp(),
            }
        )

    def _now_ms(self) -> int:
        return int(self._reading.stamp().timestamp() * 1000)
