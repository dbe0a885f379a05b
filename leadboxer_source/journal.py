"""What is kept beside a pipeline's working files: the plan, the last runs, and the run that is under way.

It is there to be looked at while a load runs, when a DuckDB file is locked. Nothing depends on it: what is loaded is
in dlt's state alone, and a lost journal is an empty one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from leadboxer_source.plan import Plan
from leadboxer_source.report import Report, total

_RUNS = 20
_WRITE_SECONDS = 2.0


class Journal:
    """The journal of one pipeline.

    Args:
        folder: The pipeline's working directory.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / "leadboxer.json"
        self._written_at = 0.0

    def read(self) -> dict[str, Any]:
        """Returns what was kept: `plan`, `spent` on it, `runs` (newest last) and `now`.

        What is spent is counted until all is covered; it is `None` once another kind of load did some of what was
        planned.
        """
        with suppress(OSError, orjson.JSONDecodeError):
            kept = orjson.loads(self._path.read_bytes())
            if isinstance(kept, dict):
                return kept
        return {}

    def plan(self) -> Plan | None:
        """Returns the plan that was kept; one of another version is as good as none."""
        with suppress(KeyError, TypeError, ValueError):
            return Plan.of(self.read()["plan"])
        return None

    def unended(self) -> dict[str, Any] | None:
        """Returns the report of the run that is under way, or that was killed."""
        now = self.read().get("now")
        return now["report"] if now else None

    def keep_plan(self, plan: dict[str, Any]) -> None:
        """Keeps a plan, and counts from now on what is spent on it."""
        self._write({**self.read(), "plan": plan, "spent": {"requests": {}, "seconds": 0.0}})

    def note(self, report: Report, *, is_whole: bool = True) -> None:
        """Keeps how a run goes, and that it went.

        Args:
            report: Of the run.
            is_whole: Whether it loads all resources and is no one-off, as plans are made for.
        """
        if not report.stopped and time.monotonic() - self._written_at < _WRITE_SECONDS:
            return
        self._written_at = time.monotonic()
        kept, told = self.read(), asdict(report)
        if report.stopped:
            kept["runs"] = [*kept.get("runs", []), told][-_RUNS:]
            plan, spent = self.plan(), kept.get("spent")
            if plan is not None and spent and plan.scope == report.scope and not spent.get("complete"):
                if is_whole and plan.is_of(report.scope, report.since_ms, report.started_ms):
                    kept["spent"] = _added(spent, report)
                elif report.until_ms:
                    kept["spent"] = None
        self._write({**kept, "now": {"report": told}})

    def close(self) -> None:
        """Notes that no run is under way."""
        kept = self.read()
        if kept.pop("now", None) is not None:
            self._write(kept)

    def _write(self, kept: dict[str, Any]) -> None:
        # a disk that is full or cannot be written will be told by the load itself
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_bytes(orjson.dumps(kept, default=list))
            new.replace(self._path)


def _added(spent: Mapping[str, Any], report: Report) -> dict[str, Any]:
    requests = total([spent["requests"], report.requests])
    seconds = spent["seconds"] + (report.ended_ms - report.started_ms) / 1000
    return {"requests": requests, "seconds": seconds, "complete": report.complete}
