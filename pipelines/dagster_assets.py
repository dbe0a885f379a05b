"""Dagster: an asset for each table. A run loads one slice, and a sensor asks for the next while more can be read.

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

CAN_GO_ON = "leadboxer/can_go_on"
PIPELINE: dict[str, Any] = {"pipeline_name": "leadboxer", "destination": "duckdb", "dataset_name": "leadboxer_data"}


@dlt_assets(
    # no account is needed to know the tables; the run brings its own
    dlt_source=leadboxer_source("0" * 32, "none"),
    dlt_pipeline=dlt.pipeline(**PIPELINE),
    name="leadboxer",
    group_name="leadboxer",
    pool="leadboxer",  # its limit is the number of slices at a time for the key: 1
)
def tables(context: dg.AssetExecutionContext, dlt_resource: DagsterDltResource) -> Iterator[Any]:
    """Loads one slice: about 15 minutes, newest data first. No rows stay behind in the working files."""
    reports: list[Report] = []
    with TemporaryDirectory() as folder:
        source = leadboxer_source(watch=reports.append)
        yield from dlt_resource.run(
            context, dlt_source=source, dlt_pipeline=dlt.pipeline(**PIPELINE, pipelines_dir=folder)
        )
    context.instance.add_run_tags(context.run_id, {CAN_GO_ON: str(reports[-1].can_go_on)})


load = dg.define_asset_job("load_leadboxer", selection=[tables])


@dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS, monitored_jobs=[load], request_job=load)
def until_covered(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest]:
    """Asks for the next slice after one that can go on; not where all is covered, or a day's quota is spent."""
    if context.dagster_run.tags.get(CAN_GO_ON) == "True":
        yield dg.RunRequest(run_key=context.dagster_run.run_id)


defs = dg.Definitions(
    assets=[tables],
    jobs=[load],
    schedules=[dg.ScheduleDefinition(job=load, cron_schedule="0 * * * *")],
    sensors=[until_covered],
    resources={"dlt_resource": DagsterDltResource()},
)
