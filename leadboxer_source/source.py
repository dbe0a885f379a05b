"""The hierarchy: what depends on what. Everything else is in the modules that these functions call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import dlt
from dlt.extract import DltResource

from leadboxer_source import settings
from leadboxer_source.children import Polled, Rows
from leadboxer_source.clock import Clock, SystemClock
from leadboxer_source.contract import fillable_columns
from leadboxer_source.destination import go_by_destination
from leadboxer_source.report import Watch
from leadboxer_source.rows import Fillable, property_rows
from leadboxer_source.slices import Slices
from leadboxer_source.state import COVERED, FORGOTTEN
from leadboxer_source.tables import TABLES
from leadboxer_source.warehouses import empty_tables, is_empty_table, suit


@dlt.source(name="leadboxer", section="leadboxer", max_table_nesting=0)
def leadboxer_source(
    site: str = dlt.config.value,
    api_key: dlt.TSecretStrValue = dlt.secrets.value,
    *,
    base_url: str = settings.BASE_URL,
    start_date: str | date | datetime | None = None,
    end_date: str | date | datetime | None = None,
    rate_limit: str = settings.RATE_LIMIT,
    max_minutes: float | None = settings.MAX_MINUTES,
    max_requests: int | None = None,
    chunk_size: int = settings.CHUNK_SIZE,
    settle_seconds: float = settings.SETTLE_SECONDS,
    relist_days: int = 0,
    display: str | list[str] | None = None,
    filters: dict[str, Any] | None = None,
    promote: list[str] | None = None,
    exclude_fields: list[str] | None = None,
    hash_fields: list[str] | None = None,
    hash_key: dlt.TSecretStrValue | None = None,
    limiter_store: str | None = None,
    clock: Clock | None = None,
    watch: Watch | None = None,
) -> Sequence[DltResource]:
    """Loads a LeadBoxer dataset: users, their sessions, the sessions' events, and the events' properties.

    One run is one slice: it lists users newest first, reads what is not loaded yet, and ends when its budget is
    spent. Run it again until all is loaded (`sync` does). Building it sends nothing.

    * `users`: one row for each person or browser that was last seen since `start_date`.
    * `sessions`: the visits of those users, their whole history.
    * `events`: what happened in those visits.
    * `properties`: the custom name/value pairs that those events carry.
    * `load_failures`: what could not be fetched yet, and why.
    * `load_runs`: what each run took, and which stretches of time are covered after it.

    Deletions, and changes that do not move a user's last event (tags, late enrichment), cannot be seen through this
    API; `relist_days` re-reads users for the latter.

    Args:
        site: Dataset id, 32 hexadecimal digits.
        api_key: From the LeadBoxer App: Integrations, Data, API key. It is sent in a header and written nowhere.
        base_url: The API's address; https, or http on this machine.
        start_date: Users last seen since then are loaded (UTC); those of the last 367 days if not given, which is how
            long LeadBoxer keeps whoever is not written to. It can be moved back later; only the difference is read.
        end_date: Makes the run a one-off: users last seen in `[start_date, end_date)` are read whole, in one run
            however long it takes, and nothing is marked as loaded.
        rate_limit: Requests that each endpoint allows, such as `10/minute`.
        max_minutes: After how long no more users are handed out; `None` for no limit.
        max_requests: After how many requests no more users are handed out.
        chunk_size: Users handed out at a time, at the most: fewer where a budget comes to its end.
        settle_seconds: How long an event may take to become visible; what is newer is loaded but not claimed.
        relist_days: Reads the rows of users of so many days again.
        display: Kinds of users: any of `company`, `person`, `unidentified`, joined by `;`. All if not given.
        filters: Further parameters of the listing, such as `criteriaTextFilter`. Each combination of `display` and
            `filters` has a coverage of its own.
        promote: Custom properties that get a text column as well.
        exclude_fields: Fields that are left out of every table, by the name of the API, of the column or of the
            property; `personal` stands for IP, e-mail, names, phone and user agent.
        hash_fields: Fields whose values are replaced by their keyed hash, named in the same way.
        hash_key: Secret that they are hashed with (HMAC-SHA256).
        limiter_store: Where processes share the key's budget: a file, the address of a Redis (`redis://`) or a
            PostgreSQL (`postgresql://`) for several machines, or `:memory:` for nowhere.
        clock: Time, for tests.
        watch: Is called with a `Report` while the run goes on and when it ends.

    Returns:
        The resources, all selected.

    Raises:
        ConfigurationInvalid: A setting cannot be used.
    """
    clock = clock or SystemClock()
    config = settings.parse(
        int(clock.time() * 1000),
        site=site,
        api_key=api_key,
        base_url=base_url,
        start_date=start_date,
        end_date=end_date,
        rate_limit=rate_limit,
        max_minutes=max_minutes,
        max_requests=max_requests,
        chunk_size=chunk_size,
        settle_seconds=settle_seconds,
        relist_days=relist_days,
        display=display,
        filters=filters,
        promote=promote,
        exclude_fields=exclude_fields,
        hash_fields=hash_fields,
        hash_key=hash_key,
        limiter_store=limiter_store,
    )

    def prepare() -> dict[str, Fillable]:
        suit(dlt.current.source())
        return fillable_columns(dlt.current.source(), config.promote)

    slices = Slices(config, clock, watch, prepare=prepare, people=lambda: dlt.current.source_state(FORGOTTEN))

    @dlt.resource(**TABLES["users"])
    def users() -> Polled:
        selected = set(dlt.current.source().selected_resources)
        # kept before the first row: when a limit closes the run early, dlt has no current resource any more
        metrics = dlt.current.resource_metrics()
        if config.end_ms is None:
            go_by_destination(dlt.current.source(), dlt.current.resource_state)
        try:
            yield from slices.users(dlt.current.resource_state, selected)
            yield from empty_tables(dlt.current.source(), *COVERED)
        finally:
            metrics.update(slices.metrics())

    @dlt.transformer(data_from=users, **TABLES["sessions"])
    def sessions(users: Rows) -> Rows | Polled:
        return users if is_empty_table(users) else slices.children.sessions(users)

    @dlt.transformer(data_from=sessions, **TABLES["events"])
    def events(sessions: Rows) -> Rows | Polled:
        return sessions if is_empty_table(sessions) else slices.children.events(sessions)

    @dlt.transformer(data_from=events, **TABLES["properties"])
    def properties(events: Rows) -> Rows:
        rows = [row for event in events for row in property_rows(event)]
        return events if is_empty_table(events) else slices.children.counted("properties", rows)

    @dlt.resource(**TABLES["load_failures"])
    def load_failures() -> Polled:
        yield from slices.failures()
        yield from empty_tables(dlt.current.source(), "load_failures")

    @dlt.resource(**TABLES["load_runs"])
    def load_runs() -> Polled:
        yield from slices.runs()

    return users, sessions, events, properties, load_failures, load_runs
