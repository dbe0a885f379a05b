"""Upkeep of what was loaded: read a stretch of time again, and forget a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dlt
from dlt.common.normalizers.naming import NamingConvention
from dlt.destinations.job_client_impl import SqlJobClientWithStagingDataset

from leadboxer_source import settings
from leadboxer_source.configured import configured
from leadboxer_source.coverage import Stretch, uncover
from leadboxer_source.destination import loaded_state
from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.lock import alone
from leadboxer_source.settings import Settings
from leadboxer_source.state import (
    COVERED,
    FORGOTTEN,
    SOURCE,
    Remembered,
    drop_set_aside,
    note_forgotten,
    record,
    remember,
    resources_of,
    take_over,
)
from leadboxer_source.tables import TABLES

_FOR_EVER_MS = 2**53
_VALUES_AT_ONCE = 500


def resync(
    pipeline: dlt.Pipeline, since: str | date | datetime, *, only: Sequence[str] | None = None, **config: Any
) -> list[str]:
    """Uncovers all that was last active since then, so that the next runs read it again; sends no request.

    Args:
        pipeline: The pipeline that loaded it.
        since: From when on, in UTC.
        only: Resources to read again; all if not given.
        **config: `site`, `display` and `filters` as in `leadboxer_source`; what is missing comes from dlt's
            configuration.

    Returns:
        The resources of which something was covered and is no more.

    Raises:
        ConfigurationInvalid: Nothing was ever loaded with this pipeline, or an argument cannot be used.
        PipelineBusy: Another process is at work with it.
    """
    since_ms = settings.parse_instant(since, "since")
    names = list(only or COVERED)
    if since_ms is None:
        raise ConfigurationInvalid("since is empty: write it like '2026-05-31'.")
    if set(names) - set(COVERED):
        raise ConfigurationInvalid(f"Only {', '.join(COVERED)} can be read again.")
    scope, uncovered = _configured(config).scope, []
    with alone(pipeline), _edited_state(pipeline) as state:
        for name in names:
            resource = resources_of(state)[name]
            memory = remember(resource, scope)
            left = uncover(memory.covered, Stretch(since_ms, _FOR_EVER_MS))
            if left != memory.covered:
                marks = [Stretch(max(since_ms, memory.covered[0].lo), memory.covered[-1].hi), memory.again]
                los, his = zip(*filter(None, marks), strict=True)
                record(resource, scope, Remembered(left, memory.set_aside, Stretch(min(los), max(his))))
                uncovered.append(name)
    return uncovered


def forget(pipeline: dlt.Pipeline, user_id: str, **config: Any) -> dict[str, int]:
    """Deletes a person from all tables of the destination, and keeps them out of later loads.

    First it is noted in the pipeline's state whom to leave out, then the rows are deleted; after a crash, run it again.
    What the last load left in the staging dataset and in the pipeline's working directory goes too. Sends no request.

    Args:
        pipeline: The pipeline that loaded them.
        user_id: The person, as in `users.user_id`.
        **config: `site` as in `leadboxer_source`; from dlt's configuration if not given.

    Returns:
        How many rows of each table were deleted.

    Raises:
        ConfigurationInvalid: That is no user id, nothing was ever loaded with this pipeline, too many people are
            forgotten already, or the destination cannot delete rows by SQL.
        PipelineBusy: Another process is at work with it.
    """
    user_id = user_id.strip()
    if not user_id:
        raise ConfigurationInvalid("The user id is empty: copy it from the column user_id of the table users.")
    if "@" in user_id:
        raise ConfigurationInvalid(
            "A person is forgotten by user id, not by e-mail address: `leadboxer profile` with the address shows it."
        )
    site = _configured(config).site
    with alone(pipeline):
        with _edited_state(pipeline) as state:
            note_forgotten(state["sources"].setdefault(FORGOTTEN, {}), site, user_id)
            sessions = _sessions_of(pipeline, site, user_id)
            for resource in resources_of(state).values():
                drop_set_aside(resource, site, {user_id, *sessions})
        _remove_loaded_files(pipeline)
        return _delete(pipeline, site, user_id)


def _configured(config: dict[str, Any]) -> Settings:
    return configured(**{"api_key": "not-needed", **config})


@contextmanager
def _edited_state(pipeline: dlt.Pipeline) -> Iterator[Any]:
    """The pipeline's state with each covered resource, to be changed; it is in the destination too when this ends."""
    pipeline.sync_destination()  # another machine may have loaded last
    pipeline.run()  # loads what still waits for it
    if SOURCE not in pipeline.schema_names:
        raise ConfigurationInvalid(
            f"Nothing was ever loaded from LeadBoxer with the pipeline {pipeline.pipeline_name} into "
            f"{pipeline.dataset_name}: check where it loads to, and its name."
        )
    stored = resources_of(loaded_state(pipeline))
    with pipeline.managed_state(extract_state=True) as state:
        resources = state.setdefault("sources", {}).setdefault(SOURCE, {}).setdefault("resources", {})
        for name in COVERED:  # what is remembered here may be of another copy
            take_over(resources.setdefault(name, {}), stored.get(name, {}))
        yield state
    pipeline.run()


def _remove_loaded_files(pipeline: dlt.Pipeline) -> None:
    """Removes the rows that dlt keeps in the working directory after it has loaded them."""
    for load_id in pipeline.list_completed_load_packages():
        for jobs in pipeline.get_load_package_info(load_id).jobs.values():
            for job in jobs:
                Path(job.file_path).unlink(missing_ok=True)


class _Rows:
    """Rows of a dataset, found and deleted by the values of a column.

    Args:
        client: A connected client of the destination.
        naming: How the destination's schema spells names.
        site: Whose rows.
    """

    def __init__(self, client: SqlJobClientWithStagingDataset, naming: NamingConvention, site: str) -> None:
        self._client, self._sql = client, client.sql_client
        self._named = naming.normalize_identifier
        self._site = site
        self._tables = self._present()

    def find(self, wanted: str, table: str, column: str, values: Iterable[str]) -> set[str]:
        """Returns the values of a column in the rows that have one of the values in another."""
        found: set[str] = set()
        for condition, arguments in self._conditions(table, column, values):
            selected = self._sql.escape_column_name(self._named(wanted))
            rows = self._sql.execute_sql(f"SELECT {selected} {condition}", *arguments)
            found.update(str(row[0]) for row in rows or ())
        return found

    def delete(self, table: str, column: str, values: Iterable[str]) -> int:
        """Deletes the rows that have one of the values in the column; returns how many there were."""
        deleted = 0
        for condition, arguments in self._conditions(table, column, values):
            rows = self._sql.execute_sql(f"SELECT COUNT(*) {condition}", *arguments)
            deleted += int(rows[0][0]) if rows else 0
            self._sql.execute_sql(f"DELETE {condition}", *arguments)
        return deleted

    def _conditions(self, table: str, column: str, values: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        """`FROM ... WHERE ...` with its arguments, as often as it takes; not at all for a table that is not there."""
        if table not in self._tables:
            return
        site, named = (self._sql.escape_column_name(self._named(name)) for name in ("site", column))
        ordered = sorted(values)
        for start in range(0, len(ordered), _VALUES_AT_ONCE):
            some = ordered[start : start + _VALUES_AT_ONCE]
            marks = ", ".join(["%s"] * len(some))
            yield f"FROM {self._tables[table]} WHERE {site} = %s AND {named} IN ({marks})", [self._site, *some]

    def _present(self) -> dict[str, str]:
        """The tables that the dataset has, by their resource, with their qualified names."""
        if not self._sql.has_dataset():
            return {}
        names = {self._named(name): name for name in TABLES}
        stored = self._client.get_storage_tables(names)
        return {names[table]: self._sql.make_qualified_table_name(table) for table, columns in stored if columns}


def _sessions_of(pipeline: dlt.Pipeline, site: str, user_id: str) -> set[str]:
    with pipeline.destination_client(SOURCE) as client:
        if not isinstance(client, SqlJobClientWithStagingDataset):
            return set()
        return _Rows(client, pipeline.schemas[SOURCE].naming, site).find("session_id", "sessions", "user_id", [user_id])


def _delete(pipeline: dlt.Pipeline, site: str, user_id: str) -> dict[str, int]:
    """Deletes what leads to other rows last, so that a second try finds what a first one left."""
    naming, deleted = pipeline.schemas[SOURCE].naming, dict.fromkeys(TABLES, 0)
    with pipeline.destination_client(SOURCE) as client:
        if not isinstance(client, SqlJobClientWithStagingDataset):
            raise ConfigurationInvalid(
                f"The person is kept out of later loads from now on, but {pipeline.destination.destination_name} "
                "cannot delete rows by SQL: delete there yourself what has their user_id, and their sessions' events."
            )
        main = _Rows(client, naming, site)
        sessions = main.find("session_id", "sessions", "user_id", [user_id])
        events = main.find("event_key", "events", "user_id", [user_id])
        events |= main.find("event_key", "events", "session_id", sessions)
        doomed = [
            ("properties", "event_key", events),
            ("properties", "session_id", sessions),
            ("events", "event_key", events),
            ("load_failures", "id", {user_id, *sessions}),
            ("sessions", "session_id", sessions),
            ("users", "user_id", {user_id}),
        ]
        with client.with_staging_dataset():
            staging = _Rows(client, naming, site)
            for table, column, values in doomed:
                staging.delete(table, column, values)
        for table, column, values in doomed:
            deleted[table] += main.delete(table, column, values)
    return deleted
