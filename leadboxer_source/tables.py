"""The tables: columns, types, keys, references and descriptions. Add a field that the API names here.

Names on the API's side are matched without regard to case, because LeadBoxer's own sources spell some differently. An
event or a session carries `x` where a user carries `last_x`; sessions accept both.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

from dlt.common.normalizers.naming.snake_case import NamingConvention
from dlt.common.schema.typing import TColumnSchema, TTableReference, TTableSchemaColumns

Kind = Literal["text", "bigint", "double", "timestamp", "bool", "json"]
"""How a value is stored; `timestamp` is sent as epoch milliseconds (a number or its digits)."""


snake = NamingConvention().normalize_identifier
"""An API name as dlt would name its column: `organizationNaicsCode` as `organization_naics_code`."""


class Field(NamedTuple):
    """A field of the API that has a column of its own."""

    column: str
    kind: Kind
    description: str
    names: tuple[str, ...]


def _field(names: str, column: str, kind: Kind, description: str) -> Field:
    return Field(column, kind, description, tuple(names.split()))


def _texts(described: dict[str, str]) -> list[Field]:
    """Text fields whose column is the API's name in snake case."""
    return [_field(name, snake(name), "text", description) for name, description in described.items()]


_TIME = [
    _field("lastEvent eventEsTimestamp eventUnixTimestamp", "last_event_at", "timestamp", "Time of the last event."),
]
_VISITOR = [
    *_texts(
        {
            "country_name": "Country of the IP address.",
            "country_code": "Country of the IP address, ISO 3166 code.",
            "region_name": "Region of the IP address.",
            "region_code": "Code of that region.",
            "city": "City of the IP address.",
            "postal_code": "Postal code of the IP address.",
            "dma_code": "Designated market area (United States).",
            "area_code": "Telephone area code of the IP address.",
            "timezone": "Visitor's time zone, IANA name.",
            "ip_number": "IP address (personal data).",
            "inet_aton": "The same IP address as an unsigned number.",
            "ip_range": "Network range of the IP address.",
            "ip_usageType": "Use of the IP address, such as DCH for a data centre.",
            "org": "Owner of the network; not the visitor's company.",
            "isp": "Internet service provider.",
            "most_likely_company": "LeadBoxer's guess of the visitor's company.",
            "browser": "Browser.",
            "browser_version": "Version of the browser.",
            "platform": "Operating system.",
            "user_agent": "User agent (personal data).",
            "channel": "Channel of the visit: direct, organic, social, email, referral or paid.",
            "original_url": "URL as visited, with its query.",
        }
    ),
    _field("latitude", "latitude", "double", "Latitude of the IP address, degrees."),
    _field("longitude", "longitude", "double", "Longitude of the IP address, degrees."),
    _field("resolution_width", "resolution_width", "bigint", "Width of the screen, pixels."),
    _field("resolution_height", "resolution_height", "bigint", "Height of the screen, pixels."),
    _field("colors", "colors", "bigint", "Colour depth of the screen, bits."),
]


def _last(fields: list[Field]) -> list[Field]:
    """The same fields as a user carries them: those of the last visit."""
    return [
        Field(
            f"last_{field.column}", field.kind, f"{field.description} Of the last visit.", (f"last_{field.names[0]}",)
        )
        for field in fields
    ]


def _either(fields: list[Field]) -> list[Field]:
    """The same fields, spelled with or without `last_`."""
    return [field._replace(names=(*field.names, f"last_{field.names[0]}")) for field in fields]


_TOUCH = _texts(
    {
        "referrer_domain": "Domain of the referrer.",
        "original_referrer": "First referrer ever; never overwritten.",
        "original_referrer_domain": "Domain of the first referrer.",
        "entry_root_url": "Landing page, without its query.",
        "entry_query": "Query of the landing page.",
        "utm_source": "Campaign source.",
        "utm_medium": "Campaign medium.",
        "utm_campaign": "Campaign name.",
        "utm_content": "Campaign content.",
        "utm_term": "Campaign term.",
    }
)
_PERSON = [
    *_texts(
        {
            "email": "E-mail address (personal data).",
            "firstName": "First name (personal data).",
            "lastName": "Last name (personal data).",
            "fullName": "Full name (personal data).",
            "title": "Job title.",
            "role": "Role.",
            "name": "Name (personal data).",
            "companyName": "Company, as the customer sent it.",
            "companyDomain": "Domain of the company, as the customer sent it.",
            "PhoneNumber": "Telephone number (personal data).",
            "description": "Description, as the customer sent it.",
            "accountTag": "Tags of the account, separated by commas.",
        }
    ),
    _field("leadTag leadTags", "lead_tag", "text", "Tags of the user, separated by commas."),
]
_ORGANIZATION = [
    *_texts(
        {
            f"organization{name}": f"Company: {meaning}."
            for name, meaning in {
                "Name": "name",
                "Domain": "domain",
                "Description": "description",
                "DescriptionShort": "short description",
                "Type": "type",
                "Founded": "year of foundation",
                "Phone": "telephone number",
                "EmailAddresses": "e-mail addresses",
                "CeoTitle": "title of its head",
                "Executives": "executives",
                "Technology": "technology in use",
                "Tags": "tags",
                "Specialties": "specialties",
                "WebsiteIpAddress": "IP address of its website",
                "StreetName": "street",
                "StreetNumber": "house number",
                "SubPremise": "part of the building",
                "PostalCode": "postal code",
                "City": "city",
                "State": "state",
                "StateCode": "code of the state",
                "Country": "country",
                "CountryCode": "country, ISO 3166 code",
                "EmployeeCountEstimate": "estimated number of employees",
                "EmployeeCountRangeCode": "code of the range of employees",
                "EmployeeCountRangeName": "range of employees",
                "IndustryName": "industry",
                "IndustryCode": "code of the industry",
                "IndustryLocalCode": "national code of the industry",
                "IndustryGroup": "group of industries",
                "NaicsCode": "NAICS code",
                "Sector": "sector",
                "SalesVolume": "sales volume",
                "SalesVolumeCategoryCode": "code of the range of sales",
                "SalesVolumeCategoryName": "range of sales",
                "SalesVolumeCurrency": "currency of the sales",
                "SalesVolumeReliabilityCode": "reliability of the sales, code",
                "SalesVolumeReliabilityName": "reliability of the sales",
                "NameAliases": "other names",
                "NameQuery": "name as searched",
                "NationalId": "national number",
                "ParentName": "parent company",
                "ReportDate": "date of the report",
                "Source": "source of the record",
                "Status": "status",
                "LogoUrl": "logo; a placeholder where no company is known",
                "LinkedInID": "LinkedIn number",
                "LinkedInUrl": "LinkedIn page",
                "FacebookUrl": "Facebook page",
                "TwitterUrl": "Twitter page",
                "InstagramUrl": "Instagram page",
                "YoutubeUrl": "YouTube page",
                "GooglePlacesId": "Google Places id",
            }.items()
        }
    ),
    _field("organizationLatitude", "organization_latitude", "double", "Company: latitude, degrees."),
    _field("organizationLongitude", "organization_longitude", "double", "Company: longitude, degrees."),
]

_CUSTOM_EVENT_INFO = _field("customEventInfo", "custom_event_info", "json", "Custom data of the event, as sent.")
_TYPE = _field("type", "record_type", "text", "What the API calls the record: user, session or event.")

USER_FIELDS: tuple[Field, ...] = (
    _field("use_id", "user_id", "text", "Person or browser; `leadId` of the API."),
    *_TIME,
    _field("first_session_unix_timestamp", "first_seen_at", "timestamp", "Start of the first session."),
    _field("last_session_unix_timestamp", "last_session_started_at", "timestamp", "Start of the newest session."),
    _field("previous_session_unix_timestamp", "previous_session_started_at", "timestamp", "Start of the one before."),
    _field("last_session_id", "last_session_id", "text", "The newest session."),
    _field("session_id", "session_id", "text", "The session that the record was last written in."),
    _field("previous_session_id", "previous_session_id", "text", "The session before the newest."),
    _field("event_id", "event_id", "text", "Event that last wrote the record."),
    _field("machine_id", "machine_id", "text", "Device."),
    _field("total_number_visits", "total_number_visits", "bigint", "Sessions so far."),
    _field("total_pages_viewed", "total_pages_viewed", "bigint", "Page views so far."),
    _field(
        "total_session_duration", "total_session_duration", "double", "Time of all sessions; its unit is not known."
    ),
    _field("last_visit_duration", "last_visit_duration", "double", "Time of the last session; its unit is not known."),
    _field("esScore", "es_score", "double", "Score that LeadBoxer computes on reading; it changes without activity."),
    _field("leadScore total_score", "lead_score", "double", "Lead score, 0 to 100; it changes without activity."),
    _field("ttl", "ttl_ms", "bigint", "Life of the record after its last write, milliseconds."),
    _field("documentExpiryDate", "expires_at", "timestamp", "When LeadBoxer forgets the record."),
    _field("leadcard_url", "leadcard_url", "text", "The user in the LeadBoxer App."),
    _field("last_referrer", "last_referrer", "text", "Referrer of the last visit."),
    _TYPE,
    _CUSTOM_EVENT_INFO,
    *_last(_VISITOR),
    *_TOUCH,
    *_PERSON,
    *_ORGANIZATION,
)

SESSION_FIELDS: tuple[Field, ...] = (
    _field("session_id last_session_id", "session_id", "text", "A visit; `sessionId` of the API."),
    _field("use_id", "user_id", "text", "Its owner; another one once two identities are stitched."),
    _field("session_unix_timestamp last_session_unix_timestamp", "started_at", "timestamp", "Start of the visit."),
    *_TIME,
    _field(
        "visit_duration session_duration last_visit_duration",
        "visit_duration",
        "double",
        "Duration of the visit; its unit is not known.",
    ),
    _field("pages_viewed", "pages_viewed", "bigint", "Page views of the visit."),
    _field("exit_url", "exit_url", "text", "Last page of the visit."),
    _field("event_id", "event_id", "text", "Event that last wrote the record."),
    _TYPE,
    _CUSTOM_EVENT_INFO,
    *_either(_VISITOR),
    *_either(_texts({"referrer": "Referrer of the visit.", "region": "Region of the IP address."})),
    *_TOUCH,
    *_PERSON,
)

EVENT_FIELDS: tuple[Field, ...] = (
    _field("event_id", "event_id", "text", "Id that the API gives; several events may share it."),
    _field("session_id", "session_id", "text", "The visit."),
    _field("use_id", "user_id", "text", "The visit's owner when the event was read; `sessions` has the present one."),
    _field("eventUnixTimestamp eventEsTimestamp lastEvent", "occurred_at", "timestamp", "When it happened."),
    _field("hitTimestamp", "hit_at", "timestamp", "When the log server took the hit."),
    _field("title", "title", "text", "Title of the page, or name of the event."),
    _field("root_url", "root_url", "text", "Page, without its query."),
    _field("referrer", "referrer", "text", "Page before."),
    _field("region", "region", "text", "Region of the IP address."),
    _field("li_industry", "li_industry", "text", "Industry, as LinkedIn names it."),
    _field("total_number_visits", "total_number_visits", "bigint", "The user's sessions so far."),
    _TYPE,
    _CUSTOM_EVENT_INFO,
    *_VISITOR,
    *_TOUCH,
    *[field for field in _PERSON if field.column != "title"],
)

DROPPED = frozenset({"prettylastevent"})
"""Fields that are not loaded, in lower case: `prettyLastEvent` is computed anew on each reading ("1 hour ago")."""

INFERRED_PREFIXES = ("last_", "first_", "total_", "previous_", "original_", "organization", "utm_", "entry_", "exit_")
"""A scalar field that begins so follows the API's own naming: dlt infers its column. Any other is a property."""

_SITE: dict[str, TColumnSchema] = {
    "site": {"data_type": "text", "nullable": False, "description": "Dataset id."},
}
_READ_AT: dict[str, TColumnSchema] = {
    # two readings of one row can meet in a load; the later one has to win
    "read_at": {
        "data_type": "timestamp",
        "dedup_sort": "desc",
        "description": "When the row was read, by the clock of the machine that read it.",
    },
}
_BAG: dict[str, TColumnSchema] = {
    "properties": {"data_type": "json", "description": "Custom properties, and values that fit no column, as sent."},
}


def _columns(fields: tuple[Field, ...], keys: tuple[str, ...]) -> dict[str, TColumnSchema]:
    columns: dict[str, TColumnSchema] = {}
    for field in fields:
        column = cast(TColumnSchema, {"data_type": field.kind, "description": field.description})
        columns[field.column] = {**column, "nullable": False} if field.column in keys else column
    return columns


def _text(description: str, *, nullable: bool = False) -> TColumnSchema:
    return {"data_type": "text", "nullable": nullable, "description": description}


USERS: TTableSchemaColumns = {**_SITE, **_columns(USER_FIELDS, ("user_id",)), **_BAG, **_READ_AT}
SESSIONS: TTableSchemaColumns = {**_SITE, **_columns(SESSION_FIELDS, ("session_id",)), **_BAG, **_READ_AT}
EVENTS: TTableSchemaColumns = {
    **_SITE,
    "event_key": _text("Stable hash of session, event id, time, title, URL and the ordinal among equals."),
    **_columns(EVENT_FIELDS, ("session_id",)),
    **_BAG,
    **_READ_AT,
}
PROPERTIES: TTableSchemaColumns = {
    **_SITE,
    "event_key": _text("The event that carries the property."),
    "name": _text("Name of the property, as sent; of a value in custom_event_info its path, customEventInfo.NAME."),
    "session_id": _text("The event's visit.", nullable=True),
    "value": _text("The value as text; JSON where it is no text.", nullable=True),
    "value_type": _text("JSON type of the value: string, integer, number, boolean, null, array or object."),
    **_READ_AT,
}
LOAD_FAILURES: TTableSchemaColumns = {
    **_SITE,
    "resource": _text("What could not be fetched: sessions or events."),
    "id": _text("Whose: a user id for sessions, a session id for events."),
    "reason": _text("Why, in one sentence."),
    "failed_since": {"data_type": "timestamp", "description": "When it failed first."},
    "attempts": {"data_type": "bigint", "description": "Runs that tried."},
    # the row goes away once the data has arrived
    "resolved": {"data_type": "bool", "hard_delete": True, "description": "True in the row that deletes this one."},
    **_READ_AT,
}

LOAD_RUNS: TTableSchemaColumns = {
    **_SITE,
    "run_id": _text("The run: a random id."),
    "resource": _text("users, sessions, events or properties; those that the run loaded."),
    "stretch": {
        "data_type": "bigint",
        "nullable": False,
        "description": "Number of the covered stretch, newest first, from 1; 0 in the only row if nothing is covered.",
    },
    "scope": _text("Dataset and listing filters; what is covered under one scope says nothing about another."),
    "covered_from": {
        "data_type": "timestamp",
        "description": "From when on all activity is loaded, after this run. A run loads and covers together: "
        "a row counts once its `_dlt_load_id` is in `_dlt_loads`.",
    },
    "covered_to": {"data_type": "timestamp", "description": "Until when, this moment not included."},
    "requests": {
        "data_type": "bigint",
        "description": "Requests of the run to the resource's endpoint. This and the next four stand in the first row "
        "of a run and resource only, so that sums are right.",
    },
    "refusals": {"data_type": "bigint", "description": "How many of these were refused (429) and sent again."},
    "waited_seconds": {
        "data_type": "double",
        "description": "Seconds in which requests to the endpoint waited for quota; several that wait at once count "
        "once, so it is never more than the run took.",
    },
    "rows_read": {"data_type": "bigint", "description": "Rows read, before any filter of yours."},
    "failures": {"data_type": "bigint", "description": "What was set aside and could not be read so far."},
    "stopped": _text(
        "Why the run ended: covered (there was nothing more to read); minutes, requests or quota (used up); unsettled "
        "(users moved faster than they could be listed); asked (it was told to stop); closed (cut short)."
    ),
    "complete": {"data_type": "bool", "description": "Whether all that there was is covered, for what the run loaded."},
    "started_at": {"data_type": "timestamp", "description": "When the run began."},
    "ended_at": {"data_type": "timestamp", "description": "When it had read everything; the load comes after."},
}

Table = dict[str, Any]


def _table(columns: TTableSchemaColumns, key: list[str], *references: TTableReference) -> Table:
    """Arguments of a resource's decorator."""
    return {
        "primary_key": key,
        "write_disposition": "merge",
        "columns": columns,
        "references": list(references),
    }


def _refers(label: str, columns: list[str], table: str) -> TTableReference:
    return {
        "label": label,
        "cardinality": "many_to_one",
        "columns": columns,
        "referenced_table": table,
        "referenced_columns": columns,
    }


TABLES: dict[str, Table] = {
    "users": _table(USERS, ["site", "user_id"]),
    "sessions": _table(SESSIONS, ["site", "session_id"], _refers("visited_by", ["site", "user_id"], "users")),
    "events": _table(EVENTS, ["site", "event_key"], _refers("happened_in", ["site", "session_id"], "sessions")),
    "properties": _table(
        PROPERTIES, ["site", "event_key", "name"], _refers("carried_by", ["site", "event_key"], "events")
    ),
    "load_failures": _table(LOAD_FAILURES, ["site", "resource", "id"]),
    "load_runs": _table(LOAD_RUNS, ["site", "run_id", "resource", "stretch"]),
}
"""Every table with the arguments of its resource's decorator."""
