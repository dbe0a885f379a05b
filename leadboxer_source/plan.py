"""What a load will take: requests, hours and by when, for everything and for cheaper variants of it.

The sums are pure. Only `make_plan` asks LeadBoxer, for at most ten pages of the listing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from math import ceil
from typing import Any

from leadboxer_source import errors, settings
from leadboxer_source.client import Client, Days
from leadboxer_source.clock import Clock, SystemClock
from leadboxer_source.coverage import Coverage, Stretch, clip, common, holes
from leadboxer_source.listing import days_of, next_days, window_of
from leadboxer_source.rows import instant
from leadboxer_source.settings import DAY_MS, RateLimit, Settings
from leadboxer_source.state import COVERED, remember, resources_of
from leadboxer_source.survey import MOST_REQUESTS, Piece, Survey
from leadboxer_source.transport import Transport

_PLANNABLE_MS = 300_000
"""How far this machine's clock may be from LeadBoxer's for a plan to go by it."""

_SLICE_SECONDS = settings.MAX_MINUTES * 60

EVERYTHING, COMPANIES, USERS_ONLY = "everything", "companies only", "users only"


@dataclass(frozen=True)
class Estimate:
    """What one way to load takes.

    Attributes:
        what: Which way.
        how: The argument of `leadboxer sync`, or the setting, that makes it.
        users: Users to be read.
        requests: Requests, by endpoint.
        seconds: How long it takes: as long as the endpoint that has most to do. `None` if nothing limits the pace.
    """

    what: str
    how: str
    users: int
    requests: dict[str, int]
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """What a load takes, as far as it can be told beforehand.

    Attributes:
        scope: Dataset and listing filters.
        made_ms: When it was made, by LeadBoxer's clock, in epoch milliseconds.
        since_ms: From when on users are wanted.
        rate_limit: Requests and seconds; `None` if unlimited.
        spent: Requests that the plan itself took.
        estimates: Of everything, and of what is cheaper.
        listed_users: Users that were really listed.
        listed_ms: Length of the stretches in which everybody was listed.
        span_ms: Length of all that is to be loaded.
        doubt: By what share the estimate may be wrong.
        visits_told: Whether the listing tells how many visits a user has; otherwise one is assumed for each.
        hours_told: Whether it was seen how busy the hours of a day are; otherwise all are taken to be alike.
        pieces: The users over time, from which the rest of a load is estimated: start, end, users, visits.
    """

    scope: str
    made_ms: int
    since_ms: int
    rate_limit: tuple[int, float] | None
    spent: int
    estimates: list[Estimate]
    listed_users: int
    listed_ms: int
    span_ms: int
    doubt: float
    visits_told: bool
    hours_told: bool
    pieces: list[tuple[int, int, float, float]] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Plan:
        """Reads a plan that was kept as JSON."""
        limit = kept["rate_limit"]
        return cls(
            **{
                **kept,
                "rate_limit": (limit[0], limit[1]) if limit else None,
                "estimates": [Estimate(**estimate) for estimate in kept["estimates"]],
                "pieces": [(lo, hi, users, visits) for lo, hi, users, visits in kept["pieces"]],
            }
        )

    def is_of(self, scope: str, since_ms: int, at_ms: int) -> bool:
        """Whether a load is the planned one: of the same scope, from the same start on.

        Args:
            scope: Of the load.
            since_ms: From when on it wants users.
            at_ms: When it begins.
        """
        # without a start date it is all that LeadBoxer keeps, which moves on with the days
        retained = all(
            abs(since // DAY_MS - at // DAY_MS + settings.RETENTION_DAYS) <= 1
            for since, at in ((self.since_ms, self.made_ms), (since_ms, at_ms))
        )
        return scope == self.scope and (since_ms == self.since_ms or retained)

    def remaining(self, covered: Sequence[Stretch]) -> dict[str, float]:
        """Estimates the requests that are left once so much is covered, by endpoint."""
        missing = holes(covered, self.since_ms, self.made_ms)
        left = {"sessions": 0.0, "events": 0.0}
        for lo, hi, users, visits in self.pieces:
            part = sum(stretch.hi - stretch.lo for stretch in clip(missing, lo, hi)) / (hi - lo)
            left["sessions"] += users * part
            left["events"] += visits * part
        return left

    def seconds_left(self, covered: Sequence[Stretch]) -> float | None:
        """Estimates how long the rest takes."""
        return seconds_for(self.remaining(covered), self.rate_limit)


def seconds_for(requests: Mapping[str, float], rate: tuple[int, float] | None) -> float | None:
    """Returns how long so many requests take side by side; `None` where nothing limits them.

    The limit holds in any window of its length, so requests go in bursts: a load that fits the limit takes no time to
    speak of, and one request more takes a whole period.
    """
    if rate is None:
        return None
    allowed, period = rate
    return max(0, ceil(max(requests.values(), default=0.0) / allowed) - 1) * period


def listing_requests(pieces: Sequence[Piece], spans: Sequence[Stretch], page_size: int) -> int:
    """Estimates the pages it takes to list everybody once, in the windows that a run chooses.

    A window of several pages is read twice, as one pass cannot prove that it missed nobody. After several windows the
    newest users are listed once more.
    """
    windows = [requests for _, requests in _windows(pieces, spans, page_size)]
    return max(sum(windows) + (len(windows) > 1), 1)


def _windows(
    pieces: Sequence[Piece], spans: Sequence[Stretch], page_size: int, *, all_days: int | None = None
) -> Iterator[tuple[Stretch, int]]:
    """The windows of a listing, newest first and all of so many days if given, and the requests that each takes."""
    days = all_days or 1
    for span in sorted(spans, reverse=True):
        top = span.hi
        while top > span.lo:
            window = window_of(Stretch(span.lo, top), days)
            users = _users_read(pieces, window)
            yield window, _drained(users, page_size)
            top, days = window.lo, all_days or next_days(days, int(users))


def estimate(
    what: str,
    how: str,
    pieces: Sequence[Piece],
    spans: Sequence[Stretch],
    rate: tuple[int, float] | None,
    page_size: int,
    *,
    users_only: bool = False,
) -> Estimate:
    """Estimates one way to load.

    Args:
        what: Its name.
        how: The arguments that make it.
        pieces: Users over time.
        spans: What is to be loaded of it.
        rate: Requests and seconds.
        page_size: Users that come on a page.
        users_only: Whether sessions and events are left out.
    """
    users = sum(_users_in(pieces, span) for span in spans)
    visits = sum(piece.visits * piece.part(span) for piece in pieces for span in spans)
    children = {} if users_only else {"sessions": round(users), "events": round(visits)}
    listing = listing_requests(pieces, spans, page_size)
    seconds = seconds_for(children, rate)
    if seconds and seconds > _SLICE_SECONDS:
        # each slice more lists the newest users twice, and the days where it goes on; nothing else is read meanwhile
        windows = _windows(pieces, spans, page_size, all_days=1)
        again = 2 + sum(_users_in(pieces, window) * requests for window, requests in windows) / users
        idle = seconds_for({"leads": again}, rate) or 0.0
        busy = max(_SLICE_SECONDS - idle, seconds * settings.CHUNK_SIZE / users)
        more_slices = int(seconds / busy)
        listing += round(more_slices * again)
        seconds += more_slices * idle
    requests = {"leads": listing, **children}
    listed = seconds_for({"leads": listing}, rate)
    return Estimate(what, how, round(users), requests, None if seconds is None else max(seconds, listed or 0.0))


def variants(
    pieces: Sequence[Piece],
    spans: Sequence[Stretch],
    rate: tuple[int, float] | None,
    page_size: int,
    *,
    all_kinds: bool = True,
) -> list[Estimate]:
    """Estimates the whole load and what is cheaper.

    Args:
        pieces: Users over time.
        spans: What is to be loaded.
        rate: Requests and seconds.
        page_size: Users that come on a page.
        all_kinds: Whether the load is of all kinds of users, so that leaving some out makes it cheaper.
    """
    found = [estimate(EVERYTHING, "", pieces, spans, rate, page_size)]
    since, until = min(span.lo for span in spans), max(span.hi for span in spans)
    for days in (90, 30):
        later = (until // DAY_MS - days) * DAY_MS
        if later > since:
            how = f"--start-date {instant(later):%Y-%m-%d}"
            found.append(estimate(f"last {days} days", how, pieces, clip(spans, later, until), rate, page_size))
    if all_kinds:
        companies = [piece._replace(users=piece.companies, visits=piece.company_visits) for piece in pieces]
        found.append(estimate(COMPANIES, "SOURCES__LEADBOXER__DISPLAY=company", companies, spans, rate, page_size))
    found.append(estimate(USERS_ONLY, "--only users", pieces, spans, rate, page_size, users_only=True))
    return found


def _users_read(pieces: Sequence[Piece], window: Stretch) -> float:
    """Users on the pages of a window: from the end of its overlap down to where it begins."""
    epoch = date(1970, 1, 1)
    read = Stretch(window.lo, ((days_of(window).last - epoch).days + 1) * DAY_MS)
    return _users_in(pieces, read)


def _users_in(pieces: Sequence[Piece], stretch: Stretch) -> float:
    return sum(piece.users * piece.part(stretch) for piece in pieces)


def _drained(users: float, page_size: int) -> int:
    pages = int(users // max(page_size, 1)) + 1
    return pages if pages == 1 else 2 * pages


def covered_of(state: Mapping[str, Any], scope: str) -> Coverage:
    """Returns what a pipeline's state says is covered by all resources."""
    resources = resources_of(state)
    return common([remember(resources.get(name, {}), scope).covered for name in COVERED])


def make_plan(
    config: Settings,
    covered: Sequence[Stretch] = (),
    *,
    clock: Clock | None = None,
    most_requests: int = MOST_REQUESTS,
) -> Plan:
    """Surveys a dataset and plans its load; sends at most ten requests, all to the listing.

    Args:
        config: What to load, and how fast.
        covered: What is loaded already.
        clock: The time, for tests.
        most_requests: Pages it may ask for.

    Raises:
        LeadBoxerError: The API or the configuration stands in the way.
    """
    clock = clock or SystemClock()
    transport = Transport(config, clock)
    try:
        return _survey(config, covered, Client(transport, config), int(clock.time() * 1000), most_requests)
    finally:
        transport.close()


def _survey(
    config: Settings, covered: Sequence[Stretch], client: Client, until: int, most: int, spent: int = 0
) -> Plan:
    since = config.start_ms
    if since is None:
        since = (until // DAY_MS - settings.RETENTION_DAYS) * DAY_MS
    # what is covered, and maybe the start, has passed by LeadBoxer's clock, which only an answer tells
    top = max([until, since + 1, *(stretch.hi + 1 for stretch in covered)])
    spans = holes(covered, since, top)
    limit = settings.PAGE_LIMIT
    survey = Survey(spans, covered, limit, most - spent)
    while (ask := survey.next()) is not None:
        # the days to come are empty; they are asked for in case the filter leaves its last day out
        ahead = settings.OVERLAP_AFTER_DAYS if ask.asked.hi == top else 0
        days = Days(instant(ask.asked.lo).date(), instant(ask.asked.hi - 1).date() + timedelta(ahead))
        try:
            page = client.page(days, ask.token, limit)
        except errors.RequestRefused as refusal:
            if not refusal.may_be_for_its_limit or limit == settings.FALLBACK_PAGE_LIMIT or ask.token:
                raise
            limit = settings.FALLBACK_PAGE_LIMIT
            survey.refused(limit)
            continue
        if spent == survey.spent == 0 and page.server_ms and abs(page.server_ms - until) > _PLANNABLE_MS:
            # begun anew by LeadBoxer's clock, as a load will go by it
            return _survey(config, covered, client, page.server_ms, most, spent=1)
        survey.add(ask, page)
    if since >= until:
        raise errors.ConfigurationInvalid("start_date lies in the future: there is nothing to plan.")
    pieces = survey.pieces()
    users = sum(piece.users for piece in pieces)
    rate = _rate(config.rate_limit)
    all_kinds = config.display == settings.DISPLAY and not covered
    return Plan(
        scope=config.scope,
        made_ms=until,
        since_ms=since,
        rate_limit=rate,
        spent=spent + survey.spent,
        estimates=variants(pieces, spans, rate, survey.page_size, all_kinds=all_kinds),
        listed_users=round(sum(piece.users for piece in pieces if piece.listed)),
        listed_ms=sum(piece.stretch.hi - piece.stretch.lo for piece in pieces if piece.listed),
        span_ms=sum(span.hi - span.lo for span in spans),
        doubt=survey.doubt() / users if users else 0.0,
        visits_told=survey.visits_told,
        hours_told=survey.hours_told,
        pieces=[(*piece.stretch, round(piece.users, 3), round(piece.visits, 3)) for piece in pieces],
    )


def _rate(limit: RateLimit | None) -> tuple[int, float] | None:
    return (limit.requests, limit.period_seconds) if limit else None
