"""What happens in a visit to a made-up shop that sells software for planning: how somebody comes, and what they do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, islice
from typing import Any, NamedTuple

from leadboxer_source.sandbox import hostile
from leadboxer_source.sandbox.chance import Dice
from leadboxer_source.sandbox.people import Visitor

SHOP = "https://shop.example"


class Channel(NamedTuple):
    """A way to come: from where, with which query, and to which pages."""

    name: str
    weight: int
    referrers: tuple[str, ...]
    queries: tuple[str, ...]
    entries: tuple[str, ...]


class Hit(NamedTuple):
    """A page that is seen, or, without a path, something else that happens."""

    title: str
    path: str | None
    query: str
    referrer: str
    properties: dict[str, Any]
    info: dict[str, Any]

    @property
    def page(self) -> str:
        """The page's address, without its query."""
        return f"{SHOP}{self.path}"

    @property
    def url(self) -> str:
        """The page's address."""
        return f"{self.page}?{self.query}" if self.query else self.page


class Visit(NamedTuple):
    """How somebody came, and what they did."""

    channel: str
    hits: list[Hit]

    @property
    def pages(self) -> list[Hit]:
        """The pages that were seen; a visit begins with one."""
        return [hit for hit in self.hits if hit.path is not None]


_PRODUCTS = {"/products/planner": 29.9, "/products/ledger": 49.9, "/products/courier": 79.9}
_ARTICLES = {
    "/docs": "getting started",
    "/docs/import": "data",
    "/blog/planning-a-week": "planning",
    "/blog/fewer-meetings": "teamwork",
}
_TITLES = {
    "/": "Home",
    "/pricing": "Pricing",
    "/contact": "Contact",
    "/about": "About us",
    "/docs": "Docs",
    "/docs/import": "Docs: import your data",
    "/blog/planning-a-week": "Blog: planning a week",
    "/blog/fewer-meetings": "Blog: fewer meetings",
    "/products/planner": "Planner",
    "/products/ledger": "Ledger",
    "/products/courier": "Courier",
}
_NEXT = {
    "/": ("/pricing", "/pricing", "/products/planner", "/products/ledger", "/products/courier", "/about", "/docs"),
    "/pricing": ("/products/planner", "/products/ledger", "/docs", "/docs", "/contact", "/"),
    "/contact": ("/", "/about", "/pricing"),
    "/about": ("/", "/contact", "/products/courier"),
    "/docs": ("/docs/import", "/docs/import", "/contact", "/pricing"),
    "/docs/import": ("/docs", "/contact", "/pricing"),
    "/blog/planning-a-week": ("/products/planner", "/blog/fewer-meetings", "/"),
    "/blog/fewer-meetings": ("/blog/planning-a-week", "/products/planner", "/pricing"),
    "/products/planner": ("/pricing", "/pricing", "/products/ledger", "/docs"),
    "/products/ledger": ("/pricing", "/pricing", "/products/courier", "/docs/import"),
    "/products/courier": ("/pricing", "/pricing", "/products/planner", "/contact"),
}
_BLOG = ("/blog/planning-a-week", "/blog/fewer-meetings")
_CHANNELS = (
    Channel("direct", 30, ("",), ("",), ("/", "/", "/docs", "/pricing")),
    Channel("organic", 30, ("https://search.example/", "https://find.example/"), ("",), ("/", "/docs", *_BLOG)),
    Channel("email", 12, ("",), ("utm_source=newsletter&utm_medium=email&utm_campaign=spring-release",
            "utm_source=newsletter&utm_medium=email&utm_campaign=monthly"), ("/pricing", *_BLOG)),
    Channel("paid", 11, ("https://search.example/",), ("utm_source=search-ads&utm_medium=cpc&utm_campaign=planner",),
            ("/products/planner", "/pricing")),
    Channel("referral", 10, ("https://reviews.example/planning-tools", "https://directory.example/software"), ("",),
            ("/", "/products/planner", "/about")),
    Channel("social", 7, ("https://social.example/",), ("", "utm_source=social&utm_medium=post"), _BLOG),
)  # fmt: skip
_PASSED = tuple(accumulate(channel.weight for channel in _CHANNELS))
_HEARD = ("A colleague", "A search engine", "Your newsletter", "A trade fair")


def visit(visitor: Visitor, start_ms: int, hits: int) -> Visit:
    """Returns a visit with so many hits; one that goes on begins in the same way."""
    dice = Dice(visitor.seed, visitor.number, start_ms)
    channel = dice.weighted(_CHANNELS, _PASSED)
    found = list(islice(_hits(dice, visitor, channel), hits))
    if visitor.hostile:
        found = [_hostile(hit, visitor.number, place) for place, hit in enumerate(found)]
    return Visit(channel.name, found)


def _hostile(hit: Hit, number: int, place: int) -> Hit:
    info = {"plan": "team", "seats": number} if place == 1 else hit.info
    return Hit(hit.title, hit.path, hit.query, hit.referrer, hostile.properties(number, place), info)


def _hits(dice: Dice, visitor: Visitor, channel: Channel) -> Iterator[Hit]:
    person = visitor.person
    always = {"Customer ID": f"C-{1000 + visitor.number}", "Plan": person.plan} if person and person.plan else {}
    path, referrer, query = dice.pick(channel.entries), dice.pick(channel.referrers), dice.pick(channel.queries)
    while True:
        more: dict[str, Any] = {}
        if path in _PRODUCTS:
            more = {"Product": _TITLES[path], "Price": _PRODUCTS[path]}
        elif path in _ARTICLES:
            more = {"lb_articleSection": _ARTICLES[path]}
        yield Hit(_TITLES[path], path, query, referrer, {**always, **more}, {})
        luck = dice.random()
        if path == "/pricing" and luck < 0.3:
            seats = 1 + int(dice.random() * 30)
            yield Hit("Plan chosen", None, "", "", always, {"plan": "team" if seats > 3 else "starter", "seats": seats})
        elif path == "/contact" and luck < 0.6 and person:
            heard = {"How did you hear about us?": dice.pick(_HEARD)}
            yield Hit("Form submitted", None, "", "", {**always, **heard}, {"form": "contact"})
        elif luck > 0.97 and person:
            yield Hit("Tag changed", None, "", "", {}, {})
        referrer, query = f"{SHOP}{path}", ""
        path = dice.pick(_NEXT[path])
