"""A lead's profile for people: as text for a terminal, and as one page of HTML that needs nothing else. Pure.

The page has no script and loads nothing; its content security policy would not let it. All that it shows is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from leadboxer_source.profile import Hit, Profile, Visit, moment

_BARS = " ▁▂▃▄▅▆▇█"
_BAR_COUNT = 52
_CHANNELS = ("direct", "organic", "social", "email", "referral", "paid")
"""The API's channels; each has a colour of its own, everything else shares one."""

_STYLE = Path(__file__).with_name("profile.css").read_text(encoding="utf-8")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BASE = 960, 190, 14, 14, 22, 150
_TICKS = 6


def as_text(profile: Profile) -> RenderableType:
    """Returns the profile for a terminal, to be printed by rich: facts, a bar of visits over time, every hit."""
    facts = Table.grid(padding=(0, 2))
    for label, value in {**profile.facts, **profile.properties}.items():
        facts.add_row(Text(label, style="dim"), Text(value, overflow="fold"))
    parts: list[RenderableType] = [Text(profile.name, style="bold"), Padding(facts, (0, 0, 1, 2))]
    if profile.merged_from:
        parts.insert(1, Text(f"{profile.merged_from} was merged into this user.", style="yellow"))
    if not profile.visits:
        return Group(*parts, Text("No visits are loaded for this user."))
    parts += [Text(f"{summary(profile)}; times are UTC, properties are shown when they change."), _bar(profile.visits)]
    for number, (visit, before) in enumerate(zip(profile.visits, (None, *profile.visits), strict=False), 1):
        parts.append(Padding(_visit_text(number, visit, before), (1, 0, 0, 0)))
    return Group(*parts)


def as_html(profile: Profile, made_at: datetime) -> str:
    """Returns the profile as one page of HTML with a picture of the visits over time."""
    name = escape(profile.name)
    merged = (
        f"<p class=note>{escape(profile.merged_from)} was merged into this user.</p>" if profile.merged_from else ""
    )
    link = f'<a href="{escape(profile.link)}" rel=noreferrer>Open in LeadBoxer</a>' if profile.link else ""
    pairs = enumerate(zip(profile.visits, (None, *profile.visits), strict=False), 1)
    visits = "".join(_visit_html(number, visit, before) for number, (visit, before) in reversed(list(pairs)))
    picture = _picture(profile.visits) if profile.visits else "<p class=note>No visits are loaded for this user.</p>"
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<meta name=robots content=noindex><title>{name}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{name}</h1>{merged}<p>{escape(summary(profile))}</p></header>"
        f"<main>{picture}<div class=columns><aside><h2>Facts</h2>{_list_html(profile.facts)}"
        f"{f'<h2>Properties</h2>{_list_html(profile.properties)}' if profile.properties else ''}{link}</aside>"
        f"<section><h2>Visits, newest first</h2>{visits}</section></div></main>"
        f"<footer>Read {moment(made_at)} from the warehouse by leadboxer-source. Times are UTC. "
        "Properties of a hit are shown when they change. Personal data: share it with care.</footer></body></html>\n"
    )


def summary(profile: Profile) -> str:
    """Returns how many visits and hits there are, and over which time."""
    hits = sum(len(visit.hits) for visit in profile.visits)
    times = [visit.started_at for visit in profile.visits if visit.started_at]
    between = f" from {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}" if times else ""
    return f"{_count(len(profile.visits), 'visit')} with {_count(hits, 'hit')}{between}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = round(seconds)
    parts = ((whole // 86_400, "d"), (whole // 3_600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    known = [f"{amount} {unit}" for amount, unit in parts if amount]
    return " ".join(known[:2]) or "0 s"


def _page(hit: Hit) -> str:
    """Where it happened: the page without the address of its website, which all hits share."""
    parts = urlsplit(hit.page)
    return (parts.path or "/") if parts.netloc else hit.page


def _time(hit: Hit) -> str:
    return f"{hit.at:%H:%M:%S}" if hit.at else "--:--:--"


def _about(visit: Visit) -> list[str]:
    """What is known of a visit beside its time."""
    came = f"via {visit.channel}" + (f", {visit.came_from}" if visit.came_from else "")
    return [part for part in (came, visit.place, visit.device) if part]


def _bar(visits: Sequence[Visit]) -> Text:
    """Hits over time as one line of blocks between two dates."""
    weights = [(visit.started_at, max(len(visit.hits), 1)) for visit in visits if visit.started_at]
    if not weights:
        return Text()
    first, last = weights[0][0], weights[-1][0]
    width = max((last - first).total_seconds(), 1.0)
    sums: Counter[int] = Counter()
    for at, weight in weights:
        sums[min(int((at - first).total_seconds() / width * _BAR_COUNT), _BAR_COUNT - 1)] += weight
    top = max(sums.values())
    blocks = "".join(
        _BARS[-(-sums[place] * (len(_BARS) - 1) // top)] if sums[place] else "·" for place in range(_BAR_COUNT)
    )
    return Text.assemble((f"{first:%Y-%m-%d} ", "dim"), (blocks, "cyan"), (f" {last:%Y-%m-%d}", "dim"))


def _lengths(visit: Visit, before: Visit | None) -> str:
    """How long a visit was, and how long after the one before."""
    told = [f"for {_duration(visit.seconds)}"] if visit.seconds else []
    if before and before.ended_at and visit.started_at and visit.started_at > before.ended_at:
        told.append(f"{_duration((visit.started_at - before.ended_at).total_seconds())} after the one before")
    return ", ".join(told)


def _visit_text(number: int, visit: Visit, before: Visit | None) -> RenderableType:
    head = Text.assemble(
        (f"Visit {number}  {moment(visit.started_at)}", "bold"), (f"  {_lengths(visit, before)}", "dim")
    )
    about = Padding(Text("  ·  ".join(_about(visit)), style="dim"), (0, 0, 0, 2))
    hits = Table.grid(padding=(0, 2))
    for hit in visit.hits:
        carried = "  ".join(f"{name}={value}" for name, value in hit.changed.items())
        hits.add_row(
            Text(_time(hit), style="cyan"),
            Text(hit.title or "(no title)"),
            Text(_page(hit), style="dim", overflow="fold"),
            Text(carried, style="green", overflow="fold"),
        )
    return Group(head, about, Padding(hits, (0, 0, 0, 2)))


def _visit_html(number: int, visit: Visit, before: Visit | None) -> str:
    rows = "".join(
        f"<tr><td>{_time(hit)}<td>{escape(hit.title or '(no title)')}"
        f"<td class=page>{escape(_page(hit))}<td>{_chips(hit.changed)}"
        for hit in visit.hits
    )
    table = f"<table>{rows}</table>" if rows else "<p class=note>No hits are loaded for this visit.</p>"
    when = moment(visit.started_at) or "at an unknown time"
    lengths = ", ".join(filter(None, (f"visit {number}", _lengths(visit, before))))
    return (
        f"<article id=visit-{number} class={_class(visit.channel)}><h3>{when} <small>{escape(lengths)}</small></h3>"
        f"<p class=about>{escape('  ·  '.join(_about(visit)))}</p>{table}</article>"
    )


def _chips(properties: dict[str, str | None]) -> str:
    return "".join(
        f"<span class=chip>{escape(name)} <b>{escape(str(value))}</b></span>" for name, value in properties.items()
    )


def _list_html(facts: dict[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(label)}<dd>{escape(value)}' for label, value in facts.items())}</dl>"


def _class(channel: str) -> str:
    return channel if channel in _CHANNELS else "other"


def _picture(visits: Sequence[Visit]) -> str:
    """Visits over time: one stem for each, as high as it has hits, in the colour of its channel."""
    known = [(number, visit, visit.started_at) for number, visit in enumerate(visits, 1) if visit.started_at]
    if not known:
        return ""
    first, last = known[0][2], known[-1][2]
    if last - first < timedelta(days=2):
        first, last = first - timedelta(days=1), last + timedelta(days=1)
    most = max(len(visit.hits) for _, visit, _ in known) or 1

    def x(at: datetime) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((at - first) / (last - first))

    stems = "".join(
        f'<a href="#visit-{number}" class="{_class(visit.channel)}">'
        f"<title>{moment(at)}, {_count(len(visit.hits), 'hit')}, via {escape(visit.channel)}</title>"
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{_BASE}" y2="{(y := _y(len(visit.hits), most)):.1f}"/>'
        f'<circle cx="{x(at):.1f}" cy="{y:.1f}" r="5.5"/></a>'
        for number, visit, at in known
    )
    ticks = "".join(
        f'<text x="{x(at):.1f}" y="{_BASE + 20}" text-anchor="{anchor}">{at:%Y-%m-%d}</text>'
        f'<line class="tick" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{_BASE}" y2="{_BASE + 5}"/>'
        for at, anchor in _ticks(first, last)
    )
    used = dict.fromkeys(_class(visit.channel) for _, visit, _ in known)
    legend = "".join(f"<span class={name}><i></i>{name}</span>" for name in (*_CHANNELS, "other") if name in used)
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Visits over time">'
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_BASE}" y2="{_BASE}"/>{ticks}{stems}</svg>'
        f"<figcaption>{legend}<em>A stem is a visit, as high as it has hits (up to {most}).</em></figcaption></figure>"
    )


def _y(hits: int, most: int) -> float:
    return _BASE - 14 - (_BASE - 14 - _TOP) * (hits / most)


def _ticks(first: datetime, last: datetime) -> Iterator[tuple[datetime, str]]:
    for place in range(_TICKS):
        anchor = "start" if place == 0 else "end" if place == _TICKS - 1 else "middle"
        yield first + (last - first) * place / (_TICKS - 1), anchor
