"""The oracle's loader that is dlt, HTTP and a database."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.pipeline.exceptions import PipelineStepFailed

from leadboxer_source import Report, leadboxer_source
from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.rows import instant
from leadboxer_source.sandbox import Sandbox
from leadboxer_source.state import Remembered, remember
from leadboxer_source.upkeep import resync
from tests.oracle import HandClock, Order, Rows


def rows_in(pipeline: dlt.Pipeline) -> Rows:
    """What the pipeline's destination holds, in any dialect; no key may be there twice."""
    found = Rows({}, {}, defaultdict(Counter), defaultdict(Counter))
    with pipeline.sql_client() as client:

        def select(table: str, columns: str, key: str) -> list[Any]:
            try:
                keys = client.execute_sql(f"SELECT {key} FROM {table}") or []
            except DatabaseUndefinedRelation:
                return []
            assert len(keys) == len(set(keys)), f"{table} holds a key twice"
            return list(client.execute_sql(f"SELECT {columns} FROM {table}") or [])

        for user_id, last, tag in select("users", "user_id, last_event_at, lead_tag", "site, user_id"):
            found.users[user_id] = (last and _ms(last), tag)
        found.sessions.update(select("sessions", "session_id, user_id", "site, session_id"))
        identity = "session_id, event_id, occurred_at, title, original_url"
        for session_id, event_id, at, title, url in select("events", identity, "site, event_key"):
            found.events[session_id][event_id, _ms(at), title, url] += 1
        for session_id, name, value in select("properties", "session_id, name, value", "site, event_key, name"):
            found.properties[session_id][name, value] += 1
    return found


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


class Dlt:
    """dlt, HTTP and DuckDB."""

    def __init__(self, folder: Path, server: Sandbox, site: str, clock: HandClock) -> None:
        self._folder, self._server, self._site, self._clock = folder, server, site, clock

    @property
    def pipeline(self) -> dlt.Pipeline:
        return dlt.pipeline(
            "oracle",
            destination=dlt.destinations.duckdb(str(self._folder / "oracle.duckdb")),
            dataset_name="lb",
            pipelines_dir=str(self._folder / "pipelines"),
        )

    def run(self, order: Order) -> Report | None:
        reports: list[Report] = []
        source = leadboxer_source(
            self._site,
            self._server.key,
            base_url=self._server.url,
            rate_limit="unlimited",
            max_minutes=None,
            start_date=None if order.start_ms is None else instant(order.start_ms),
            limiter_store=":memory:",
            clock=self._clock,
            watch=reports.append,
            **{name: value for name, value in order._asdict().items() if name not in {"only", "start_ms", "dies_at"}},
        )
        wanted = source.with_resources(*order.only, "load_failures")
        for _ in range(2):  # dlt first loads what was left over, and does not touch the source in that run
            try:
                self.pipeline.run(wanted, loader_file_format="parquet")
            except PipelineStepFailed as failed:
                if failed.step != "extract":
                    raise
                return None
            if reports:
                break
        return reports[-1]

    def rows(self) -> Rows:
        return rows_in(self.pipeline)

    def remembered(self, resource: str) -> Remembered:
        return remember(self._state(self.pipeline.state, resource), self._site)

    def forget(self, since_ms: int) -> None:
        with suppress(ConfigurationInvalid):  # nothing was loaded yet
            resync(self.pipeline, instant(since_ms), site=self._site)

    def lose_folder(self) -> None:
        """As on a machine that never saw the pipeline: the state comes back from the destination."""
        shutil.rmtree(self._folder / "pipelines", ignore_errors=True)
        self.pipeline.sync_destination()

    @staticmethod
    def _state(state: Any, resource: str) -> dict[str, Any]:
        sources = state.setdefault("sources", {}).setdefault("leadboxer", {})
        found: dict[str, Any] = sources.setdefault("resources", {}).setdefault(resource, {})
        return found
