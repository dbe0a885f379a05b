"""Dagster: an asset for each table. A run loads one slice, and a sensor asks for the next while it can go on.

    pip install "leadboxer-source[dagster,duckdb]" dagster-webserver
    dagster dev -f dagster_assets.py

`SOURCES__LEADBOXER__SITE` and `SOURCES__LEADBOXER__API_KEY` are read when a run begins, as are dlt's settings of the
destination. What is loaded is kept in the destination; a run may land on any machine.
"""

from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import dlt
from dagster_dlt import DagsterDltResource, dlt_assets

from leadboxer_source import Report, leadboxer_source

STOPPED, CAN_GO_ON = "leadboxer/stopped", "leadboxer/can_go_on"


def pipeline_in(folder: str) -> dlt.Pipeline:
    """The pipeline, with its working files in a folder."""
    return dlt.pipeline("leadboxer", destination="duckdb", dataset_name="leadboxer_data", pipelines_dir=folder)


with TemporaryDirectory() as empty:
    anywhere = pipeline_in(empty)


@dlt_assets(
    # no account and no folder is needed to know the tables; the run brings its own
    dlt_source=leadboxer_source("0" * 32, "none"),
    dlt_pipeline=anywhere,
    name="leadboxer",
    group_name="leadboxer",
    pool="leadboxer",  # its limit is the number of slices at a time for the key: 1
)
def tables(context: dg.AssetExecutionContext, dlt_resource: DagsterDltResource) -> Iterator[Any]:
    """Loads one slice: about 15 minutes, newest data first."""
    reports: list[Report] = []
    with TemporaryDirectory() as folder:
        source = leadboxer_source(watch=reports.append)
        yield from dlt_resource.run(context, dlt_source=source, dlt_pipeline=pipeline_in(folder))
    tags = {STOPPED: reports[-1].stopped, CAN_GO_ON: str(reports[-1].can_go_on)}
    context.instance.add_run_tags(context.run_id, tags)


load = dg.define_asset_job("load_leadboxer", selection=[tables])


@dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS, monitored_jobs=[load], request_job=load)
def until_covered(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Asks for the next slice after one that can be gone on from at once."""
    tags = context.dagster_run.tags
    if tags.get(CAN_GO_ON) == "True":
        yield dg.RunRequest(run_key=context.dagster_run.run_id)
    else:
        yield dg.SkipReason(f"The last slice ended with: {tags.get(STOPPED)}. The schedule asks for the next.")


defs = dg.Definitions(
    assets=[tables],
    jobs=[load],
    schedules=[dg.ScheduleDefinition(job=load, cron_schedule="0 * * * *")],
    sensors=[until_covered],
    resources={"dlt_resource": DagsterDltResource()},
)
