"""`python -m benchmarks.contender NAME OPTIONS`: one way to get the data, in a process of its own.

Works in the current folder. Prints what it measured as JSON: wall and processor seconds of what is compared (not of
imports), and the peak memory of the process.
"""

from __future__ import annotations

import http.client
import json
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dlt
import orjson
import requests
from dlt.extract import DltSource

from benchmarks import rest_api
from leadboxer_source import Report, leadboxer_source
from leadboxer_source.cli import STOPPED_WITH_PROGRESS, main
from leadboxer_source.tables import TABLES
from leadboxer_source.warehouses import file_format

Options = dict[str, Any]
Result = dict[str, float]

_ROWS_AT_ONCE = 500


@contextmanager
def timed(result: Result) -> Iterator[None]:
    """Notes how long its body takes, on the wall and in the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    result["seconds"] = time.perf_counter() - wall
    result["cpu_seconds"] = time.process_time() - cpu


def _pipeline() -> dlt.Pipeline:
    """A pipeline into a DuckDB file in the current folder."""
    destination = dlt.destinations.duckdb("rows.duckdb")
    return dlt.pipeline("benchmark", destination=destination, dataset_name="loaded", pipelines_dir="pipelines")


def _rows(pipeline: dlt.Pipeline, tables: Iterable[str]) -> Result:
    """How many rows were loaded: all contenders of a benchmark have to load the same."""
    with pipeline.sql_client() as client:
        counts: Result = {}
        for name in tables:
            found = client.execute_sql(f"SELECT count(*) FROM {client.make_qualified_table_name(name)}")
            assert found is not None
            counts[f"{name}_rows"] = found[0][0]
    return counts


def _source(options: Options, reports: list[Report] | None = None) -> DltSource:
    reports = [] if reports is None else reports
    return leadboxer_source(
        site=options["site"],
        api_key=options["api_key"],
        base_url=options["base_url"],
        rate_limit=options.get("rate_limit", "unlimited"),
        max_minutes=None,
        limiter_store=":memory:",
        watch=reports.append,
    )


def ours(options: Options) -> Result:
    """This package: a first load at `rate_limit`, of the resources named in `only` or of all.

    The files between dlt and DuckDB have the format that the source asks for, or with `plain` the one that dlt takes.
    """
    reports: list[Report] = []
    result: Result = {"before_mb": _peak_mb()}
    pipeline = _pipeline()
    with timed(result):
        source = _source(options, reports)
        wanted = source.with_resources(*options["only"]) if "only" in options else source
        plain: Any = "insert_values" if options.get("plain") else None
        pipeline.run(wanted, loader_file_format=plain)
    report = reports[-1]
    # users seen in the very last minutes may be too many to be claimed at once, but are loaded all the same
    assert report.complete or report.stopped == "unsettled", f"The load stopped: {report.stopped}."
    tables = options.get("only", ["users", "sessions", "events"])
    return {
        **result,
        **_rows(pipeline, tables),
        **{f"{endpoint}_requests": count for endpoint, count in report.requests.items()},
        "requests": sum(report.requests.values()),
        "busiest": max(count - report.refusals.get(name, 0) for name, count in report.requests.items()),
        "refused": sum(report.refusals.values()),
        "complete": float(report.complete),
    }


def command(options: Options) -> Result:
    """`leadboxer sync`: a first load, of the resources named in `only` or of all."""
    os.environ["SOURCES__LEADBOXER__API_KEY"] = options["api_key"]
    os.environ["SOURCES__LEADBOXER__LIMITER_STORE"] = ":memory:"
    place = ["--db", "rows.duckdb", "--dataset", "loaded"]
    account = ["--site", options["site"], "--base-url", options["base_url"], "--rate-limit", "unlimited"]
    tables = options.get("only", ["users", "sessions", "events"])
    result: Result = {"before_mb": _peak_mb()}
    with timed(result):
        code = main(["sync", *place, *account, "--only", ",".join(tables)])
    assert code in {0, STOPPED_WITH_PROGRESS}, f"The load failed with exit code {code}."
    return {**result, "peak_mb": _peak_mb(), **_rows(_pipeline(), tables)}


def bare_loop(options: Options) -> Result:
    """The floor of the network: one keep-alive session asks for the same things, parses the answers and keeps nothing.

    It lists everybody in one go, which is the fewest pages there can be; page tokens can be used only once, so the
    pages that the source asked for could not be asked for again.
    """
    session = requests.Session()
    session.headers["x-api-key"] = options["api_key"]
    base, site = options["base_url"], options["site"]
    counts = {"users_rows": 0, "sessions_rows": 0, "events_rows": 0}

    def get(path: str, **params: Any) -> Any:
        return orjson.loads(session.get(f"{base}/{path}", params={"site": site, **params}).content)

    result: Result = {}
    with timed(result):
        user_ids: list[str] = []
        page = get("leads", **rest_api.LISTING)
        while page["data"]:
            user_ids += [user["use_id"] for user in page["data"]]
            page = get("leads", **rest_api.LISTING, nextToken=page["nextToken"])
        for user_id in user_ids:
            sessions = get("leads/sessions", leadId=user_id, limit=1000)["data"]
            counts["sessions_rows"] += len(sessions)
            for found in sessions:
                counts["events_rows"] += len(get("leads/events", sessionId=found["session_id"], limit=1000)["data"])
    return {**result, **counts, "users_rows": len(user_ids)}


def capture(options: Options) -> Result:
    """Keeps the rows that the source yields in the file `rows`, for `from_memory`."""
    tables: dict[str, list[Any]] = {name: [] for name in TABLES}
    source = _source(options)
    for name, rows in tables.items():
        source.resources[name].add_map(_keeper(rows))
    result: Result = {}
    with timed(result):
        list(source)
    Path(options["rows"]).write_bytes(pickle.dumps(tables))
    return result


def _keeper(rows: list[Any]) -> Callable[[Any], Any]:
    def keep(row: Any) -> Any:
        rows.append(row)
        return row

    return keep


def from_memory(options: Options) -> Result:
    """The floor of the destination: dlt loads the rows in the file `rows`, with the same hints, from memory."""
    tables: dict[str, list[Any]] = pickle.loads(Path(options["rows"]).read_bytes())  # noqa: S301 - from `capture`

    @dlt.source(name="leadboxer", max_table_nesting=0)
    def memory() -> Iterator[Any]:
        for name, rows in tables.items():
            yield dlt.resource(_chunks(rows), name=name, **TABLES[name])

    result: Result = {}
    pipeline = _pipeline()
    with timed(result):
        pipeline.run(memory(), loader_file_format=file_format("duckdb", None))
    return {**result, **_rows(pipeline, ["users", "sessions", "events"])}


def _chunks(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]


def rest_api_defaults(options: Options) -> Result:
    """The `rest_api` source of dlt as it comes."""
    result: Result = {}
    pipeline = _pipeline()
    with timed(result):
        pipeline.run(rest_api.defaults(options["base_url"], options["api_key"], options["site"]))
    return {**result, **_rows(pipeline, ["users", "sessions", "events"])}


def rest_api_tuned(options: Options) -> Result:
    """The `rest_api` source of dlt, tuned by hand."""
    result: Result = {}
    pipeline = _pipeline()
    with timed(result):
        source = rest_api.tuned(options["base_url"], options["api_key"], options["site"])
        pipeline.run(source, loader_file_format="parquet")
    return {**result, **_rows(pipeline, ["users", "sessions", "events"])}


def small_requests(options: Options) -> Result:
    """Asks for one user's sessions over and over; `http.client`, because the client must not be what is measured."""
    session = requests.Session()
    session.headers["x-api-key"] = options["api_key"]
    listing = session.get(f"{options['base_url']}/leads", params={"site": options["site"], **rest_api.LISTING}).json()
    path = f"/v1/leads/sessions?site={options['site']}&leadId={listing['data'][0]['use_id']}&limit=1000"
    connection = http.client.HTTPConnection(options["base_url"].split("/")[2])
    result: Result = {}
    with timed(result):
        for _ in range(options["count"]):
            connection.request("GET", path, headers={"x-api-key": options["api_key"]})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
    return {**result, "per_second": options["count"] / result["seconds"]}


CONTENDERS: dict[str, Callable[[Options], Result]] = {
    function.__name__: function
    for function in (ours, command, bare_loop, capture, from_memory, rest_api_defaults, rest_api_tuned, small_requests)
}


def _peak_mb() -> float:
    """The largest resident size so far, in megabytes; it is counted in kilobytes, on macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    options = json.loads(sys.argv[2])
    os.environ.update(options.get("environment", {}))
    result = CONTENDERS[sys.argv[1]](options)
    print(json.dumps({"peak_mb": _peak_mb(), **result}))
