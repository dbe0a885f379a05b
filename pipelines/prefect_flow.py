"""Prefect: a flow that loads slice by slice, each a task run with retries of its own.

    pip install "leadboxer-source[prefect,duckdb]"
    prefect deploy prefect_flow.py:leadboxer --name hourly --cron "0 * * * *" --concurrency-limit 1 --pool POOL

Give the jobs `SOURCES__LEADBOXER__SITE`, `SOURCES__LEADBOXER__API_KEY` and dlt's settings of the destination as
environment variables. What is loaded is kept in the destination; a flow run may land on any machine.
"""

import time
from tempfile import TemporaryDirectory
from typing import Any

import dlt
from dlt.common.exceptions import TerminalException
from prefect import flow, task

from leadboxer_source import SyncResult, sync


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a retry can help: a wrong key stays wrong."""
    return not isinstance(state.result(raise_on_failure=False), TerminalException)


@task(retries=3, retry_delay_seconds=[60, 300, 900], retry_condition_fn=may_pass)
def load_slice(max_minutes: float) -> SyncResult:
    """Loads one slice; returns how it went."""
    with TemporaryDirectory() as folder:
        pipeline = dlt.pipeline("leadboxer", destination="duckdb", dataset_name="leadboxer_data", pipelines_dir=folder)
        return sync(pipeline, max_minutes=max_minutes)


@flow(log_prints=True)
def leadboxer(max_minutes: float = 55, slice_minutes: float = 15) -> bool:
    """Loads until all is covered, or for `max_minutes`, or until a quota is spent; the next run goes on."""
    deadline = time.monotonic() + max_minutes * 60
    while True:
        result: SyncResult = load_slice(slice_minutes)
        if not result.can_go_on or time.monotonic() > deadline:
            print(f"The last slice ended with: {result.stopped}. The next run of the flow loads what is missing.")
            return result.complete


if __name__ == "__main__":
    leadboxer()
