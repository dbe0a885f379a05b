"""Prefect: a flow that loads slice by slice, each a task run with retries of its own.

    pip install "leadboxer-source[prefect,duckdb]"
    prefect deploy prefect_flow.py:leadboxer --name hourly --cron "0 * * * *" --concurrency-limit 1 --pool POOL

Give the jobs `SOURCES__LEADBOXER__SITE`, `SOURCES__LEADBOXER__API_KEY` and dlt's settings of the destination as
environment variables. What is loaded is kept in the destination; a flow run may land on any machine.
"""

import time
from tempfile import TemporaryDirectory

import dlt
from prefect import flow, task

from leadboxer_source import sync


@task(retries=3, retry_delay_seconds=[60, 300, 900])
def load_slice(max_minutes: float) -> bool:
    """Loads one slice; returns whether all is covered."""
    with TemporaryDirectory() as folder:
        pipeline = dlt.pipeline("leadboxer", destination="duckdb", dataset_name="leadboxer_data", pipelines_dir=folder)
        return sync(pipeline, max_minutes=max_minutes).complete


@flow
def leadboxer(max_minutes: float = 55, slice_minutes: float = 15) -> bool:
    """Loads until all is covered, or for `max_minutes`; the next run goes on."""
    deadline = time.monotonic() + max_minutes * 60
    while not load_slice(slice_minutes):
        if time.monotonic() > deadline:
            return False
    return True


if __name__ == "__main__":
    leadboxer()
