"""Airflow with dlt's own task group: one dataset, one slice for every run of the DAG, configured as dlt is.

Shorter than `airflow_dag.py`, and less: dlt is imported whenever the file is parsed, which takes seconds; it cannot be
mapped over datasets, and the next slice waits for the schedule. Set `SOURCES__LEADBOXER__SITE`,
`SOURCES__LEADBOXER__API_KEY` and the destination's credentials in the workers' environment, or as TOML in the Airflow
variable `dlt_secrets_toml`.
"""

from datetime import datetime, timedelta, timezone

import dlt
from airflow.sdk import dag
from dlt.helpers.airflow_helper import PipelineTasksGroup

from leadboxer_source import leadboxer_source


@dag(
    schedule="*/20 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
)
def leadboxer_task_group() -> None:
    """Loads one slice."""
    # a fresh data folder for every task, wiped when it ends: what is loaded is kept in the destination
    group = PipelineTasksGroup("leadboxer", wipe_local_data=True)
    pipeline = dlt.pipeline("leadboxer", destination="duckdb", dataset_name="leadboxer_data")
    # the function, not what it returns: the account is read when the task runs; in one piece, as one slice is
    group.add_run(pipeline, leadboxer_source, decompose="none")


leadboxer_task_group()
