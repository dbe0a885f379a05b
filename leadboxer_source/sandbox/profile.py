"""How the sandbox reads what the API's public description leaves open. The defaults are the likeliest reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Profile:
    """One field for each doubtful point.

    Attributes:
        envelope: Shape of a page of leads: `data`; the old `resultsList`; `data` with the token under `meta`; or all of
            it inside `data`.
        show_total: Whether the v1 envelope gives a number of leads.
        total_counts: Whether that number is of the whole listing or of the page.
        total_ceiling: The number beyond which leads are not counted.
        end_of_list: What stands for the token after the last page: still a token, no key, null or an empty text.
        token_style: A new token on each page, or the same one all along with the position kept by the server.
        token_reuse: Whether a token that was used may be used again.
        token_expired: The answer to a token that is too old, used up or unknown.
        token_life_s: Seconds that a token lives.
        list_state: The list as it was on the first page, or as it is at each page, so that rows move between pages.
        limit_rule: What happens to a limit above `max_limit`.
        max_limit: The largest page.
        too_large: Status of the answer to a limit that is refused as too large.
        strict_time_field: Whether `timeField` must be given.
        malformed_filter: Whether a filter that cannot be read is refused or left out.
        range_end: Whether `between` includes its last day.
        ignores_time_zone: Whether days are cut in Amsterdam whatever zone is asked for.
        default_display: Who is listed when no display filter is given.
        children_envelope: Shape of sessions and events: `data`; the old one with `responseCode`; or a bare list.
        children_order: Order of sessions and events.
        children_cap: A limit on sessions and events that is applied in silence.
        children_max_limit: The largest limit on sessions and events that is not refused.
        session_times: Whether sessions tell their last activity; only their start; or their start as an event's time.
        session_id_name: What sessions call their id.
        detail_envelope: Whether a lead's detail is the lead or a list that holds it.
        unknown_lead: The answer to an unknown lead or session.
        merged_lead: The answer to a lead that was merged into another.
        retry_after_header: Whether a 429 has a `Retry-After` header.
        daily_quota: Requests a day for each key and endpoint.
        compressed: Whether answers come gzipped.
    """

    envelope: Literal["v1", "legacy", "nested", "inside"] = "v1"
    show_total: bool = False
    total_counts: Literal["listing", "page"] = "listing"
    total_ceiling: int | None = None
    end_of_list: Literal["token", "absent", "null", "empty"] = "token"
    token_style: Literal["changing", "constant"] = "changing"
    token_reuse: Literal["single_use", "reusable"] = "single_use"
    token_expired: Literal[400, 404, 410, 500, "empty_page"] = 400
    token_life_s: float = 600.0
    list_state: Literal["snapshot", "live"] = "snapshot"
    limit_rule: Literal["cap", "reject", "uncapped"] = "cap"
    max_limit: int = 1000
    too_large: Literal[400, 413, 422] = 400
    strict_time_field: bool = False
    malformed_filter: Literal["reject", "ignore"] = "reject"
    range_end: Literal["inclusive", "exclusive"] = "inclusive"
    ignores_time_zone: bool = False
    default_display: Literal["all", "identified"] = "all"
    children_envelope: Literal["v1", "legacy", "bare"] = "v1"
    children_order: Literal["newest", "oldest"] = "newest"
    children_cap: int | None = None
    children_max_limit: int | None = None
    session_times: Literal["full", "start_only", "start_as_event"] = "full"
    session_id_name: Literal["session_id", "last_session_id"] = "session_id"
    detail_envelope: Literal["flat", "wrapped"] = "flat"
    unknown_lead: Literal["404", "empty"] = "404"
    merged_lead: Literal["404", "empty", "winner"] = "404"
    retry_after_header: bool = False
    daily_quota: int | None = None
    compressed: bool = False
