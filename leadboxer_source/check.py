"""Whether everything is set up: the account, the clock, the quota. Three requests, none of them sent twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import dlt
from dlt.destinations.fs_client import FSClientBase
from dlt.destinations.job_client_impl import SqlJobClientBase

from leadboxer_source import errors, settings
from leadboxer_source.client import EVENTS, LISTING, SESSIONS, Client, Days, Record, records_of
from leadboxer_source.clock import Clock, SystemClock
from leadboxer_source.rows import instant, last_activity_ms
from leadboxer_source.settings import RateLimit, Settings
from leadboxer_source.transport import Reply, Transport

State = Literal["fine", "doubtful", "wrong", "unknown"]

NAMES = ("address", "key", "dataset", "permission", "clock", "rate limit")
"""What is checked of an account, in this order."""

_CLOCK_SECONDS = 120.0
_PROBE = "leadboxer_check"
_IDS = {SESSIONS: ("leadId", "use_id"), EVENTS: ("sessionId", "session_id")}


class Finding(NamedTuple):
    """One thing that was checked.

    Attributes:
        name: What was checked.
        state: `fine`; `doubtful` (works, but look at it); `wrong`; or `unknown`, because something before it is wrong.
        told: What was found, or what to do.
        exit_code: Of the command line, if this is wrong.
    """

    name: str
    state: State
    told: str
    exit_code: int = 0


def check_account(
    config: Settings, clock: Clock | None = None, say: Callable[[errors.LeadBoxerError], str] = str
) -> Iterator[Finding]:
    """Asks for one user, one of their sessions and one of its events, and tells what the answers prove.

    Args:
        config: Which account, and how fast it may be asked.
        clock: The time, for tests.
        say: Makes the sentence of an error.

    Yields:
        Findings on address, key, dataset, permission, clock and rate limit, in this order.
    """
    clock = clock or SystemClock()
    transport = _Once(config, _Impatient(clock))
    try:
        yield from _account(transport, config, clock, say)
    finally:
        transport.close()


def check_destination(pipeline: dlt.Pipeline) -> Finding:
    """Makes a table in the destination and drops it again; nothing is left behind.

    Raises:
        Exception: Whatever the destination raises where it cannot be written.
    """
    name, dataset = pipeline.destination.destination_name, pipeline.dataset_name
    with pipeline.destination_client() as client:
        if isinstance(client, FSClientBase):
            _write_a_file(client)
        elif isinstance(client, SqlJobClientBase):
            sql = client.sql_client  # open already; opened twice it would not be closed
            made = not sql.has_dataset()
            if made:
                sql.create_dataset()
            table = sql.make_qualified_table_name(_PROBE)
            sql.execute_sql(f"CREATE TABLE {table} (probe INT)")
            sql.execute_sql(f"DROP TABLE {table}")
            if made:
                sql.drop_dataset()
        else:
            client.is_storage_initialized()
            return Finding("destination", "doubtful", f"{name} answers; whether it can be written, a load will tell.")
    return Finding("destination", "fine", f"{name} can be written, dataset {dataset}")


def _write_a_file(client: FSClientBase) -> None:
    files, folder = client.fs_client, client.dataset_path.rstrip("/\\")
    made = [folder]
    if "file" in files.protocol:  # no bucket, whose folders are there as long as there is something in them
        made += [str(path) for path in Path(folder).parents if not path.exists()]
    files.makedirs(folder, exist_ok=True)
    try:
        files.pipe_file(f"{folder}/{_PROBE}", b"")
        files.rm_file(f"{folder}/{_PROBE}")
    finally:
        # dlt makes no dataset where there is an empty folder of its name
        for path in made:
            if files.exists(path) and not files.ls(path, detail=False):
                files.rmdir(path)


def worst(findings: list[Finding]) -> int:
    """Returns the exit code of the first thing that is wrong."""
    return next((finding.exit_code for finding in findings if finding.state == "wrong"), 0)


def clock_finding(ours_ms: int, theirs_ms: int | None) -> Finding:
    """Compares two clocks. Loading goes by LeadBoxer's, so a wrong one here only confuses logs and schedules."""
    if theirs_ms is None:
        return Finding("clock", "doubtful", "LeadBoxer's answer has no Date header, so this machine's clock counts.")
    seconds = (ours_ms - theirs_ms) / 1000
    if abs(seconds) <= _CLOCK_SECONDS:
        return Finding("clock", "fine", f"within {max(abs(seconds), 1):.0f} s of LeadBoxer's")
    way = "ahead of" if seconds > 0 else "behind"
    return Finding(
        "clock", "doubtful", f"{_span(abs(seconds))} {way} LeadBoxer's: loading goes by theirs, but set this one right."
    )


class _Once(Transport):
    """Sends nothing twice: the question is whether it works now."""

    later = "run again later"

    def get(self, endpoint: str, path: str, params: Mapping[str, str | int], *, resend: bool = True) -> Reply:  # noqa: ARG002 - the signature it overrides
        return super().get(endpoint, path, params, resend=False)


class _Impatient:
    """Time for somebody who will not wait for quota."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def time(self) -> float:
        return self._clock.time()

    def sleep(self, seconds: float, stop: threading.Event) -> None:  # noqa: ARG002 - the protocol's signature
        raise errors.QuotaExhausted(f"the quota is spent for another {seconds:.0f} s", seconds)


def _account(
    transport: Transport, config: Settings, clock: Clock, say: Callable[[errors.LeadBoxerError], str]
) -> Iterator[Finding]:
    today = instant(int(clock.time() * 1000)).date()
    days = Days(today - timedelta(days=settings.RETENTION_DAYS), today + timedelta(days=settings.OVERLAP_AFTER_DAYS))
    try:
        page = Client(transport, config).page(days, None, 1)
    except errors.LeadBoxerError as error:
        found = _refused(error, say(error), transport, config)
        yield from (found.get(name, Finding(name, "unknown", "not checked")) for name in NAMES)
        return
    ours_ms = int(clock.time() * 1000)
    yield Finding("address", "fine", f"{config.base_url} answers as LeadBoxer does")
    yield Finding("key", "fine", "LeadBoxer knows it")
    yield _dataset(page.users, page.server_ms or ours_ms)
    yield _permission(transport, config, page.users)
    yield clock_finding(ours_ms, page.server_ms)
    yield _rate_limit(transport, config.rate_limit)


def _refused(error: errors.LeadBoxerError, told: str, transport: Transport, config: Settings) -> dict[str, Finding]:
    """What a refused listing proves, by name."""
    answers = Finding("address", "fine", f"{config.base_url} answers")
    known = Finding("key", "fine", "LeadBoxer knows it")
    code = error.exit_code
    if isinstance(error, errors.QuotaExhausted):
        by_server = transport.refusals[LISTING] > 0
        who = "LeadBoxer refused the request (429)" if by_server else "Another process here uses this key"
        wrong = Finding("rate limit", "wrong", f"{who}: try again in {_span(error.wait_seconds)}.", code)
        return {"rate limit": wrong, **({"address": answers} if by_server else {})}
    if isinstance(error, (errors.LimiterUnavailable, errors.ConfigurationInvalid)):
        return {"rate limit": Finding("rate limit", "wrong", told, code)}  # nothing was asked yet
    if isinstance(error, errors.CredentialsRejected):
        return {"address": answers, "key": Finding("key", "wrong", told, code)}
    if isinstance(error, errors.AccessDenied):
        return {"address": answers, "key": known, "dataset": Finding("dataset", "wrong", told, code)}
    if isinstance(error, errors.PaymentRequired):
        return {"address": answers, "key": known, "permission": Finding("permission", "wrong", told, code)}
    return {"address": Finding("address", "wrong", told, code)}


def _dataset(users: list[Record], now_ms: int) -> Finding:
    if not users:
        return Finding(
            "dataset",
            "doubtful",
            f"Nobody was seen in the last {settings.RETENTION_DAYS} days: is it the right dataset, and is LeadBoxer's "
            "script on the website?",
        )
    seen_ms = last_activity_ms(users[0])
    if seen_ms is None:
        return Finding("dataset", "fine", "it has users")
    return Finding("dataset", "fine", f"somebody was seen {_span(max(now_ms - seen_ms, 0) / 1000)} ago")


def _permission(transport: Transport, config: Settings, users: list[Record]) -> Finding:
    """Follows one user down to an event: each kind of record may be forbidden on its own."""
    allowed, records = ["users"], users
    for endpoint, (parameter, name) in _IDS.items():
        parent = next((str(record[name]) for record in records if record.get(name)), None)
        if parent is None:
            break
        try:
            reply = transport.get(endpoint, f"leads/{endpoint}", {parameter: parent, "limit": 1, "site": config.site})
            records = records_of(reply, ("data", endpoint, "resultsList", "results", "items"))
        except errors.RequestRefused as refusal:
            if not refusal.is_for_unknown:
                return Finding("permission", "wrong", str(refusal), refusal.exit_code)
            told = f"The {endpoint} of somebody whom LeadBoxer has just listed are not known to it (404): check again."
            return Finding("permission", "doubtful", told)
        except errors.QuotaExhausted:
            return Finding("permission", "doubtful", f"Not tried for {endpoint}: the quota is spent for the moment.")
        except errors.AccessDenied as denied:
            told = f"The key may read {' and '.join(allowed)} but no {endpoint} (403): ask LeadBoxer to allow it."
            return Finding("permission", "wrong", told, denied.exit_code)
        except errors.LeadBoxerError as error:
            return Finding("permission", "wrong", str(error), error.exit_code)
        allowed.append(endpoint)
    told = f"may read {', '.join(allowed[:-1])} and {allowed[-1]}" if len(allowed) > 1 else f"may read {allowed[0]}"
    return Finding("permission", "fine", told)


def _rate_limit(transport: Transport, limit: RateLimit | None) -> Finding:
    if limit is None:
        return Finding("rate limit", "doubtful", "None is kept here; LeadBoxer documents 10/minute for each endpoint.")
    free = min(transport.pace(endpoint).free for endpoint in (LISTING, SESSIONS, EVENTS))
    return Finding("rate limit", "fine", f"{limit} for each endpoint, {free} of them free now")


def _span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"
