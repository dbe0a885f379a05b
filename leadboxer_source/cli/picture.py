"""Coverage as a bar over time, and lengths and times as a person says them: pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from leadboxer_source.coverage import Stretch, clip
from leadboxer_source.rows import instant

FULL, PART, STAGED, EMPTY = "█", "▓", "▒", "░"
ENDED = {
    "covered": "all read",
    "minutes": "time was up",
    "requests": "requests used up",
    "quota": "quota used up",
    "unsettled": "users kept moving",
    "asked": "told to stop",
    "closed": "cut short",
}
"""Why a run ended, as a person says it."""

LISTING = "listing"
"""What the requests for pages of users are called; LeadBoxer's address for them ends in `leads`."""

_PLAIN = str.maketrans({FULL: "#", PART: "+", STAGED: "=", EMPTY: "."})


def bar(
    covered: Sequence[Stretch], span: Stretch, width: int, staged: Sequence[Stretch] = (), *, plain: bool = False
) -> str:
    """Draws what is covered of a span of time, oldest left.

    Args:
        covered: What is loaded: full where all of a cell is, shaded where a part is.
        span: From the left end to the right.
        width: Cells.
        staged: What is being loaded.
        plain: Draw in ASCII.
    """
    cells = []
    for cell in range(width):
        lo = span.lo + (span.hi - span.lo) * cell // width
        hi = max(span.lo + (span.hi - span.lo) * (cell + 1) // width, lo + 1)
        loaded = length(clip(covered, lo, hi))
        if loaded >= hi - lo:
            cells.append(FULL)
        else:
            cells.append(PART if loaded else STAGED if clip(staged, lo, hi) else EMPTY)
    drawn = "".join(cells)
    return drawn.translate(_PLAIN) if plain else drawn


def legend(*, plain: bool = False) -> str:
    """Says what the shades of a bar of loaded time mean.

    Args:
        plain: The bar is drawn in ASCII.
    """
    told = f"{FULL} loaded   {PART} in part   {EMPTY} not loaded"
    return told.translate(_PLAIN) if plain else told


def length(stretches: Sequence[Stretch]) -> int:
    """Returns how long stretches are together, in milliseconds."""
    return sum(hi - lo for lo, hi in stretches)


def share(covered: Sequence[Stretch], span: Stretch) -> float:
    """Returns which share of a span is covered."""
    return length(clip(covered, span.lo, span.hi)) / max(1, span.hi - span.lo)


def percent(part: float) -> str:
    """Says a share; all is said only where it is all."""
    return "100 %" if part >= 1 else f"{min(part * 100, 99.9):.1f} %"


def lasting(seconds: float) -> str:
    """Says how long: `40 s`, `12 min`, `3 h 20 min`, `51 h`, `14 days`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 600:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes / 60:.0f} h" if minutes < 72 * 60 else f"{minutes / 1440:,.0f} days"


def many(number: float, noun: str) -> str:
    """Says how many: `1 request`, `2,000 requests`."""
    return f"{number:,.0f} {noun}" if number == 1 else f"{number:,.0f} {noun}s"


def clock(epoch_seconds: float) -> str:
    """Says a time of today, by this machine's clock and zone."""
    return f"{_here(epoch_seconds):%H:%M:%S %Z}"


def moment(epoch_seconds: float, now: float) -> str:
    """Says when something will be, by this machine's zone; as exactly as makes sense."""
    when, today = _here(epoch_seconds), _here(now)
    if when.date() == today.date():
        return f"{when:%H:%M %Z}"
    if (when.date() - today.date()).days < 7:
        return f"{when:%a %H:%M %Z}"
    return f"{when:%d %b}" if (when - today).days < 300 else f"{when:%b %Y}"


def _here(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, timezone.utc).astimezone()


def minute(epoch_ms: int) -> str:
    """Says an instant in UTC, to the minute."""
    return f"{instant(epoch_ms):%Y-%m-%d %H:%M}"


def between(stretch: Stretch) -> str:
    """Says a stretch of time in UTC."""
    return f"{minute(stretch.lo)} to {minute(stretch.hi)} ({lasting((stretch.hi - stretch.lo) / 1000)})"
