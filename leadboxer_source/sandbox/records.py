"""Users, sessions and events, and their records as LeadBoxer sends them: numbers as text, several hits of one event id.

What a record derives from others it derives here: a session from its events, a user from their sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from leadboxer_source.sandbox.people import Company, Visitor, headquarters
from leadboxer_source.sandbox.visits import Hit, Visit, visit

Record = dict[str, Any]

_TTL_MS = 366 * 86_400_000


class Event(NamedTuple):
    """A hit: the visit's hit of this number, from 0. Two may be alike in everything."""

    event_id: str
    at_ms: int
    number: int


class Session:
    """A visit, with its events in the order in which they happened.

    The visitor is whoever came; the user is whose session it is by now. They differ once two users became one.
    """

    __slots__ = ("events", "ordinal", "session_id", "start_ms", "user", "visitor")

    def __init__(self, session_id: str, user: User, visitor: Visitor, ordinal: int, start_ms: int) -> None:
        self.session_id, self.user, self.visitor = session_id, user, visitor
        self.ordinal, self.start_ms = ordinal, start_ms
        self.events: list[Event] = []

    @property
    def last_ms(self) -> int:
        """Epoch milliseconds of the newest event."""
        return max(event.at_ms for event in self.events)

    @property
    def seconds(self) -> int:
        """How long it lasted: whole seconds from its first to its newest event."""
        return (self.last_ms - min(event.at_ms for event in self.events)) // 1000

    def happened(self) -> Visit:
        """Returns what happened, a hit for each event."""
        drawn = visit(self.visitor, self.start_ms, 1 + max(event.number for event in self.events))
        return Visit(drawn.channel, [drawn.hits[event.number] for event in self.events])


class User:
    """A lead. The history of one who never changed is made when it is asked for."""

    __slots__ = ("changes", "first_ms", "history", "last_ms", "number", "suffix", "user_id")

    def __init__(self, number: int, user_id: str, suffix: str, first_ms: int, last_ms: int) -> None:
        self.number, self.user_id, self.suffix = number, user_id, suffix
        self.first_ms, self.last_ms = first_ms, last_ms
        self.history: list[Session] | None = None
        self.changes: Record = {}


def event_records(session: Session, site: str) -> list[Record]:
    """Returns a session's events, in the order in which they happened."""
    visitor = session.visitor
    return [
        {
            "event_id": event.event_id,
            "session_id": session.session_id,
            "use_id": session.user.user_id,
            "site": site,
            "type": {"name": "event"},
            "eventEsTimestamp": str(event.at_ms),
            "eventUnixTimestamp": str(event.at_ms),
            "title": hit.title,
            **(_page_view(session, hit) if hit.path is not None else {}),
            **({"email": visitor.person.email} if hit.title == "Form submitted" and visitor.person else {}),
            **({"customEventInfo": hit.info} if hit.info else {}),
            **hit.properties,
        }
        for event, hit in zip(session.events, session.happened().hits, strict=True)
    ]


def _page_view(session: Session, hit: Hit) -> Record:
    visitor = session.visitor
    return {
        "original_url": hit.url,
        "root_url": hit.page,
        "referrer": hit.referrer,
        "browser": visitor.device.browser,
        "country_code": visitor.place.code,
        "country_name": visitor.place.country,
        "city": visitor.place.city,
        "most_likely_company": _guess(visitor),
        # both are seen
        "total_number_visits": str(session.ordinal) if visitor.number % 2 else session.ordinal,
    }


def session_record(session: Session, site: str) -> Record:
    """Returns a session."""
    last_ms, happened = session.last_ms, session.happened()
    return {
        "session_id": session.session_id,
        "use_id": session.user.user_id,
        "site": site,
        "type": {"name": "session"},
        "session_unix_timestamp": str(session.start_ms),
        "eventEsTimestamp": str(last_ms),
        "eventUnixTimestamp": str(last_ms),
        "lastEvent": last_ms,
        "visit_duration": str(session.seconds),
        "pages_viewed": len(happened.pages),
        "exit_url": happened.pages[-1].page,
        "referrer": happened.hits[0].referrer,
        **_seen(session.visitor, happened),
        **_arrival(happened),
        **_properties([happened]),
    }


def user_record(user: User, visitor: Visitor, sessions: Iterable[Session], site: str, now_ms: int) -> Record:
    """Returns a user as the API sends it at the given time."""
    by_last = sorted(sessions, key=lambda session: session.last_ms)
    last, previous = by_last[-1], by_last[-2 if len(by_last) > 1 else -1]
    visits = [session.happened() for session in by_last]
    newest, first = visits[-1], visits[by_last.index(min(by_last, key=lambda session: session.start_ms))]
    hours = max(0, now_ms - user.last_ms) // 3_600_000
    record: Record = {
        "esScore": str(1 + (now_ms // 1000 + user.number) % 99),
        "lastEvent": user.last_ms,
        "total_number_visits": len(by_last),
        "total_pages_viewed": sum(len(happened.pages) for happened in visits),
        "total_session_duration": sum(session.seconds for session in by_last),
        "customEventInfo": {},
        "documentExpiryDate": user.last_ms + _TTL_MS + 560,
        "eventEsTimestamp": str(user.last_ms),
        "eventUnixTimestamp": str(user.last_ms),
        "event_id": max(last.events, key=lambda event: event.at_ms).event_id,
        "first_session_unix_timestamp": str(user.first_ms),
        "last_session_id": last.session_id,
        "last_session_unix_timestamp": str(last.start_ms),
        "last_visit_duration": str(last.seconds),
        "previous_session_id": previous.session_id,
        "previous_session_unix_timestamp": str(previous.start_ms),
        "session_id": last.session_id,
        "leadcard_url": f"https://app.leadboxer.com?q={user.user_id}&site={site}",
        "machine_id": f"{user.first_ms}:{user.first_ms}",
        "organizationLogoUrl": "https://cdn-mail.leadboxer.com/app/company-icon.png",
        "original_referrer": first.hits[0].referrer,
        "original_referrer_domain": _domain(first.hits[0].referrer),
        "prettyLastEvent": f"{hours} hours ago",
        "site": site,
        "ttl": _TTL_MS,
        "type": {"name": "user"},
        "use_id": user.user_id,
        "last_original_url": newest.pages[-1].url,
        "last_referrer": newest.hits[0].referrer,
        **{f"last_{name}": value for name, value in _seen(last.visitor, newest).items()},
        **_arrival(newest),
        **(_organization(visitor.company) if visitor.company else {}),
        **_person(visitor),
        **_properties(visits),
    }
    return {**record, **user.changes}


def _seen(visitor: Visitor, happened: Visit) -> Record:
    """What is seen of a visitor in a visit; a user has it with `last_` before it."""
    place, device = visitor.place, visitor.device
    return {
        "channel": happened.channel,
        "most_likely_company": _guess(visitor),
        "country_name": place.country,
        "country_code": place.code,
        "region_name": place.region,
        "region_code": place.region_code,
        "city": place.city,
        "postal_code": place.postal_code,
        "latitude": place.latitude,
        "longitude": place.longitude,
        "timezone": place.timezone,
        "ip_number": visitor.ip,
        "isp": visitor.provider,
        "org": visitor.provider,
        "browser": device.browser,
        "browser_version": device.version,
        "platform": device.platform,
        "user_agent": device.agent,
        "resolution_width": device.width,
        "resolution_height": device.height,
        "colors": device.colors,
    }


def _arrival(happened: Visit) -> Record:
    """How somebody came to the site."""
    entry = happened.hits[0]
    campaign = {name: value for name, value in parse_qsl(entry.query) if name.startswith("utm_")}
    return {
        "entry_root_url": entry.page,
        "entry_query": entry.query,
        "referrer_domain": _domain(entry.referrer),
        **campaign,
    }


def _organization(company: Company) -> Record:
    place = headquarters(company)
    return {
        "organizationName": company.name,
        "organizationDomain": company.domain,
        "organizationCity": place.city,
        "organizationPostalCode": place.postal_code,
        "organizationState": place.region,
        "organizationStateCode": place.region_code,
        "organizationCountry": place.country,
        "organizationCountryCode": place.code,
        # numbers here, and text where a visitor is
        "organizationLatitude": float(place.latitude),
        "organizationLongitude": float(place.longitude),
        "organizationNaicsCode": company.naics_code,
        "organizationIndustryName": company.industry,
        "organizationSector": company.sector,
        "organizationEmployeeCountEstimate": company.employees,
        "organizationSalesVolume": "",
        "organizationSalesVolumeCategoryName": company.sales,
    }


def _person(visitor: Visitor) -> Record:
    person = visitor.person
    if person is None:
        return {}
    named = {
        "email": person.email,
        "firstName": person.first_name,
        "lastName": person.last_name,
        "title": person.job,
    }
    return {**named, "leadTag": person.tags} if person.tags else named


def _properties(visits: Sequence[Visit]) -> Record:
    """Custom properties of events reach their session and user; the last value wins."""
    found: Record = {}
    for happened in visits:
        for hit in happened.hits:
            found |= hit.properties
    return found


def _guess(visitor: Visitor) -> str:
    return visitor.company.name if visitor.company else ""


def _domain(referrer: str) -> str:
    return urlsplit(referrer).netloc
