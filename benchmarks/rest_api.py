"""dlt's own `rest_api` source, configured for LeadBoxer twice: as it comes, and tuned by hand."""

from __future__ import annotations

from typing import Any

from dlt.extract import DltSource
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator
from dlt.sources.rest_api import rest_api_source

from leadboxer_source.tables import EVENT_FIELDS, SESSION_FIELDS, USER_FIELDS

LISTING: dict[str, Any] = {
    "timeField": "eventEsTimestamp",
    "criteriaTimeFilter": "eventEsTimestamp|between|01/01/2020-31/12/2035",
    "timeZone": "Etc/UTC",
    "sortBy": "lastEvent|desc",
    "criteriaDisplayFilter": "company;person;unidentified",
    "limit": 500,
}
"""Everybody, in as few pages as the API gives."""

_KNOWN = {
    "users": {name for field in USER_FIELDS for name in field.names},
    "sessions": {name for field in SESSION_FIELDS for name in field.names},
    "events": {name for field in EVENT_FIELDS for name in field.names},
}


def defaults(base_url: str, api_key: str, site: str) -> DltSource:
    """As it comes."""
    return rest_api_source(_config(base_url, api_key, site, {}), name="peer")


def tuned(base_url: str, api_key: str, site: str) -> DltSource:
    """Children asked for in parallel, no nested tables, and whatever LeadBoxer does not name in one JSON column.

    Load it as Parquet.
    """
    hints = {"parallelized": True, "columns": {"properties": {"data_type": "json"}}}
    source = rest_api_source(_config(base_url, api_key, site, hints), name="peer")
    source.max_table_nesting = 0
    for name, known in _KNOWN.items():
        source.resources[name].add_map(_folding(known))
    return source


def _config(base_url: str, api_key: str, site: str, hints: dict[str, Any]) -> Any:
    return {
        "client": {
            "base_url": f"{base_url}/",
            "auth": {"type": "api_key", "name": "x-api-key", "api_key": api_key, "location": "header"},
        },
        "resource_defaults": {"endpoint": {"data_selector": "data", "params": {"site": site}}, **hints},
        "resources": [
            {
                "name": "users",
                "primary_key": "use_id",
                "write_disposition": "merge",
                "endpoint": {
                    "path": "leads",
                    "params": LISTING,
                    # the last page has a token, too: without it the listing would never end
                    "paginator": JSONResponseCursorPaginator(
                        cursor_path="nextToken", cursor_param="nextToken", stop_after_empty_page=True
                    ),
                },
            },
            {
                "name": "sessions",
                "primary_key": "session_id",
                "write_disposition": "merge",
                "endpoint": {
                    "path": "leads/sessions",
                    "params": {"leadId": "{resources.users.use_id}", "limit": 1000},
                    "paginator": "single_page",
                },
            },
            {
                # no key: `event_id` is not unique, so a merge would lose events
                "name": "events",
                "endpoint": {
                    "path": "leads/events",
                    "params": {"sessionId": "{resources.sessions.session_id}", "limit": 1000},
                    "paginator": "single_page",
                },
            },
        ],
    }


def _folding(known: set[str]) -> Any:
    """A step that moves unknown fields, and values that would become tables, into `properties`."""

    def fold(record: dict[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        for name, value in record.items():
            kept = name in known and not isinstance(value, (dict, list))
            (row if kept else properties)[name] = value
        row["properties"] = properties or None
        return row

    return fold
