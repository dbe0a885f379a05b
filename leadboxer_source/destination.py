"""Whether the destination holds what this machine remembers of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import dlt
from dlt.common import logger
from dlt.common.configuration.container import Container
from dlt.common.destination.client import JobClientBase, WithStateSync
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.pipeline import PipelineContext, StateInjectableContext
from dlt.common.schema import Schema
from dlt.common.schema.utils import has_table_seen_data
from dlt.common.utils import uniq_id
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.extract import DltSource
from dlt.pipeline.state_sync import force_state_extract, load_pipeline_state_from_destination

from leadboxer_source.state import COVERED, KEY, resources_of, take_over


def running_pipeline() -> dlt.Pipeline | None:
    """Returns the pipeline that runs the source; `None` where somebody just iterates over it."""
    context = Container()[PipelineContext]
    pipeline = context.pipeline() if context.is_active() else None
    return pipeline if isinstance(pipeline, dlt.Pipeline) else None


def go_by_destination(source: DltSource, state: Callable[[str], dict[str, Any]]) -> None:
    """Forgets what this machine remembers and the destination does not hold, so that it is read again.

    A load commits rows and state together, so the destination's state is true of its rows. What dlt keeps on this
    machine is not, if an older copy of the destination came back, if the pipeline loads to two places in turn, or if a
    package was dropped; dlt keeps it all the same where it is the newer of the two. And no state tells that a table
    was dropped.

    Args:
        source: That runs.
        state: Gives the state of a resource, to read and to write. What is empty stays so: somebody wants it read
            again.

    Raises:
        Exception: Whatever the destination raises where it cannot be read.
    """
    pipeline = running_pipeline()
    began = resources_of(pipeline.state, source.name) if pipeline else {}
    # another source of this run may have gone on from there
    remembered = [name for name in COVERED if KEY in state(name) and state(name)[KEY] == began.get(name, {}).get(KEY)]
    # what is extracted and waits to be loaded is remembered, and the destination cannot know of it yet
    if pipeline is None or not remembered or not pipeline.config.restore_from_destination or pipeline.has_pending_data:
        return
    with pipeline.destination_client() as client:
        if not isinstance(client, WithStateSync):
            return
        stored = resources_of(_stored(pipeline, client), source.name)
        differ = [name for name in remembered if state(name)[KEY] != stored.get(name, {}).get(KEY)]
        lost = _lost_tables(pipeline, client, source, remembered)
    if differ:
        logger.warning(
            f"What dlt remembers of {', '.join(differ)} on this machine is not what is in {pipeline.dataset_name} now; "
            "what is missing there is read again."
        )
    if lost:
        logger.warning(f"{pipeline.dataset_name} has no {', '.join(lost)} any more; that is read again as a whole.")
    for name in {*differ, *lost}:
        take_over(state(name), {} if name in lost else stored.get(name, {}))
    if differ:
        # or dlt would not store a state that ends as the one here began
        force_state_extract(Container()[StateInjectableContext].state)
    for name in lost:
        # only a schema that the destination does not know yet makes dlt look for tables to create
        source.schema.update_table(cast(Any, {"name": _table(source, name), "columns": {}, "x-made-again": uniq_id()}))


def was_made(schema: Schema, name: str) -> bool:
    """Tells whether a load has made the table of a resource."""
    table = schema.tables.get(schema.naming.normalize_table_identifier(name))
    return table is not None and has_table_seen_data(table)


def loaded_state(pipeline: dlt.Pipeline) -> dict[str, Any]:
    """Returns a pipeline's state as the destination holds it; empty if nothing was loaded there with this pipeline.

    Raises:
        Exception: Whatever the destination raises where it cannot be read.
    """
    if not pipeline.config.restore_from_destination:
        return dict(pipeline.state)
    with pipeline.destination_client() as client:
        return _stored(pipeline, client) if isinstance(client, WithStateSync) else dict(pipeline.state)


def states_there(pipeline: dlt.Pipeline) -> dict[str, dict[str, Any]]:
    """Returns the state of each pipeline that loaded to the same dataset, by its name; none where there is no SQL.

    Raises:
        Exception: Whatever the destination raises where it cannot be read.
    """
    with pipeline.destination_client() as client:
        if not isinstance(client, SqlJobClientBase):
            return {}
        table = client.sql_client.make_qualified_table_name(client.schema.state_table_name)
        rows = client.sql_client.execute_sql(f"SELECT DISTINCT pipeline_name FROM {table}")  # noqa: S608 - dlt's own
        return {name: dict(load_pipeline_state_from_destination(name, client) or {}) for (name,) in rows or ()}


def _stored(pipeline: dlt.Pipeline, client: WithStateSync) -> dict[str, Any]:
    """The newest state that was loaded with this pipeline; empty if none was."""
    try:
        return dict(load_pipeline_state_from_destination(pipeline.pipeline_name, client) or {})
    except DestinationUndefinedEntity:
        return {}


def _lost_tables(
    pipeline: dlt.Pipeline, client: JobClientBase | WithStateSync, source: DltSource, names: list[str]
) -> list[str]:
    """Resources whose rows were loaded to a table that is not there."""
    if source.name not in pipeline.schemas or not isinstance(client, SqlJobClientBase):
        return []
    schema = pipeline.schemas[source.name]
    filled = {_table(source, name): name for name in names if was_made(schema, name)}
    return [filled[table] for table, columns in client.get_storage_tables(filled) if not columns]


def _table(source: DltSource, name: str) -> str:
    return source.schema.naming.normalize_table_identifier(name)
