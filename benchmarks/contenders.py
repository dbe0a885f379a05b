"""Ways to get the same rows into DuckDB. Each runs in a process of its own and prints what it took as JSON."""

from __future__ import annotations

import http.client
import json
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import orjson
import requests
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator
from dlt.sources.rest_api import rest_api_source

from leadboxer_source import Report, leadboxer_source
from leadboxer_source.tables import TABLES

Account = dict[str, Any]
LISTING = {
    "timeField": "eventEsTimestamp",
    "criteriaTimeFilter": "eventEsTimestamp|between|01/01/2020-31/12/2035",
    "timeZone": "Etc/UTC",
    "sortBy": "lastEvent|desc",
    "criteriaDisplayFilter": "company;person;unidentified",
    "limit": 500,
}


def pipeline(name: str) -> dlt.Pipeline:
    """A pipeline into a DuckDB file of its own."""
    folder = tempfile.mkdtemp()
    return dlt.pipeline(
        name,
        destination=dlt.destinations.duckdb(f"{folder}/rows.duckdb"),
        dataset_name="loaded",
        pipelines_dir=f"{folder}/pipelines",
    )


def source(account: Account, **settings: Any) -> Any:
    """Our source on the sandbox."""
    given = {
        "site": account["site"],
        "api_key": account["api_key"],
        "base_url": account["base_url"],
        "rate_limit": "unlimited",
        "max_minutes": None,
        "limiter_store": ":memory:",
    }
    return leadboxer_source(**{**given, **settings})


def ours(account: Account) -> dict[str, float]:
    """This package, at `rate_limit`, of the resources in `only`."""
    reports: list[Report] = []
    made = source(account, rate_limit=account.get("rate_limit", "unlimited"), watch=reports.append)
    started = time.perf_counter()
    wanted = made.with_resources(*account["only"].split(",")) if "only" in account else made
    pipeline("ours").run(wanted, loader_file_format="parquet")
    took = time.perf_counter() - started
    report = reports[-1]
    assert report.complete
    refused = sum(report.refusals.values())
    return {
        "seconds": took,
        "requests": sum(report.requests.values()),
        "most": max(report.requests.values()),
        "refused": refused,
    }


def bare_loop(account: Account) -> dict[str, float]:
    """The floor of the network: a keep-alive session that asks for the same things and parses the answers."""
    session = requests.Session()
    session.headers["x-api-key"] = account["api_key"]
    base, site = account["base_url"], account["site"]

    def get(path: str, **params: Any) -> Any:
        return orjson.loads(session.get(f"{base}/{path}", params={"site": site, **params}).content)

    started, count, token = time.perf_counter(), 0, None
    user_ids: list[str] = []
    while True:
        page = get("leads", **LISTING, **({"nextToken": token} if token else {}))
        count += 1
        user_ids += [user["use_id"] for user in page["data"]]
        token = page.get("nextToken")
        if token is None:
            break
    for user_id in user_ids:
        sessions = get("leads/sessions", leadId=user_id, limit=1000)["data"]
        count += 1 + len(sessions)
        for found in sessions:
            get("leads/events", sessionId=found["session_id"], limit=1000)
    return {"seconds": time.perf_counter() - started, "requests": count}


def rows_from_memory(account: Account) -> dict[str, float]:
    """The floor of the destination: dlt loads the same rows from memory."""
    path = Path(account["rows"])
    if not path.exists():
        tables: dict[str, list[Any]] = {name: [] for name in TABLES}
        made = source(account)
        for name in tables:
            made.resources[name].add_map(_keeping(tables[name]))
        list(made)
        path.write_bytes(pickle.dumps(tables))
        return {"seconds": 0.0}
    tables = pickle.loads(path.read_bytes())  # noqa: S301 - written above

    @dlt.source(name="memory", max_table_nesting=0)
    def memory() -> Iterator[Any]:
        for name, rows in tables.items():
            chunks = [rows[start : start + 500] for start in range(0, len(rows), 500)]
            yield dlt.resource(chunks, name=name, **TABLES[name])

    made, started = pipeline("memory"), time.perf_counter()
    made.run(memory(), loader_file_format="parquet")
    took = time.perf_counter() - started
    assert made.last_trace is not None
    assert made.last_trace.last_normalize_info is not None
    loaded = made.last_trace.last_normalize_info.row_counts
    assert all(loaded.get(name, 0) == len(rows) for name, rows in tables.items()), loaded
    return {"seconds": took}


def _keeping(rows: list[Any]) -> Callable[[Any], Any]:
    """A step that keeps every row it sees."""

    def keep(row: Any) -> Any:
        rows.append(row)
        return row

    return keep


def _rest_api(account: Account, **resource_settings: Any) -> Any:
    defaults: Any = {"write_disposition": "merge", **resource_settings}
    config: Any = {
        "client": {
            "base_url": account["base_url"] + "/",
            "auth": {"type": "api_key", "name": "x-api-key", "api_key": account["api_key"], "location": "header"},
        },
        "resource_defaults": defaults,
        "resources": [
            {
                "name": "users",
                "primary_key": "use_id",
                "endpoint": {
                    "path": "leads",
                    "params": {"site": account["site"], **LISTING},
                    "data_selector": "data",
                    "paginator": JSONResponseCursorPaginator(cursor_path="nextToken", cursor_param="nextToken"),
                },
            },
            {
                "name": "sessions",
                "primary_key": "session_id",
                "endpoint": {
                    "path": "leads/sessions",
                    "params": {"site": account["site"], "limit": 1000, "leadId": "{resources.users.use_id}"},
                    "data_selector": "data",
                    "paginator": "single_page",
                },
            },
            {
                "name": "events",
                "endpoint": {
                    "path": "leads/events",
                    "params": {"site": account["site"], "limit": 1000, "sessionId": "{resources.sessions.session_id}"},
                    "data_selector": "data",
                    "paginator": "single_page",
                },
                "write_disposition": "append",
            },
        ],
    }
    return rest_api_source(config, name="peer")


def rest_api_defaults(account: Account) -> dict[str, float]:
    """The `rest_api` source of dlt as it comes."""
    started = time.perf_counter()
    pipeline("defaults").run(_rest_api(account))
    return {"seconds": time.perf_counter() - started}


def rest_api_tuned(account: Account) -> dict[str, float]:
    """The same tuned by hand: custom fields in one JSON column, no nesting, children in parallel, Parquet."""
    known = {name for table in TABLES.values() for name in table["columns"]}
    kept = known | {"use_id", "lastEvent", "eventEsTimestamp", "eventUnixTimestamp", "session_unix_timestamp"}

    def fold(record: dict[str, Any]) -> dict[str, Any]:
        row = {name: value for name, value in record.items() if name in kept and not isinstance(value, (dict, list))}
        return {**row, "properties": {name: value for name, value in record.items() if name not in row}}

    made = _rest_api(account, parallelized=True, columns={"properties": {"data_type": "json"}})
    for name in ("users", "sessions", "events"):
        made.resources[name].add_map(fold)
    made.max_table_nesting = 0
    started = time.perf_counter()
    pipeline("tuned").run(made, loader_file_format="parquet")
    return {"seconds": time.perf_counter() - started}


def small_requests(account: Account) -> dict[str, float]:
    """How many small requests the sandbox answers in a second."""
    session = requests.Session()
    session.headers["x-api-key"] = account["api_key"]
    page = session.get(f"{account['base_url']}/leads", params={"site": account["site"], **LISTING}).json()
    user_id, count = page["data"][0]["use_id"], int(account["count"])
    connection = http.client.HTTPConnection(account["base_url"].split("/")[2])
    started = time.perf_counter()
    for _ in range(count):
        path = f"/v1/leads/sessions?site={account['site']}&leadId={user_id}&limit=1000"
        connection.request("GET", path, headers={"x-api-key": account["api_key"]})
        connection.getresponse().read()
    return {"per_second": count / (time.perf_counter() - started)}


CONTENDERS: dict[str, Callable[[Account], dict[str, float]]] = {
    function.__name__: function
    for function in (ours, bare_loop, rows_from_memory, rest_api_defaults, rest_api_tuned, small_requests)
}

if __name__ == "__main__":
    result = CONTENDERS[sys.argv[1]](json.loads(sys.argv[2]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**result, "peak_mb": peak}))
