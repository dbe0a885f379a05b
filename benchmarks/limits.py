"""`python -m benchmarks.limits`: writes the tables of docs/limits.md anew, from the planner's own arithmetic."""

from __future__ import annotations

from pathlib import Path

from leadboxer_source.cli.picture import lasting, many
from leadboxer_source.coverage import Stretch
from leadboxer_source.plan import Estimate, estimate
from leadboxer_source.settings import DAY_MS, PAGE_LIMIT
from leadboxer_source.survey import Piece

PAGE = Path(__file__).resolve().parent.parent / "docs" / "limits.md"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
LIMITS = (10, 100)

_DAYS = 366
_VISITS = 2
_DAY_SECONDS = 86_400.0


def first_load(users: int, limit: int, *, users_only: bool) -> Estimate:
    """A first load of a dataset that is spread evenly over the year that LeadBoxer keeps."""
    return estimate(
        "first load",
        "",
        _dataset(users),
        [Stretch(0, _DAYS * DAY_MS)],
        (limit, 60.0),
        PAGE_LIMIT,
        users_only=users_only,
    )


def steady_day(users: int, limit: int, *, users_only: bool) -> Estimate:
    """A day later, at noon: a visit for each user who was active, and none of the older ones again."""
    active = users * _VISITS / _DAYS
    since = Stretch(_DAYS * DAY_MS - DAY_MS // 2, _DAYS * DAY_MS + DAY_MS // 2)
    pieces = [Piece(since, active, active, 0.0, 0.0, listed=False)]
    return estimate("steady day", "", pieces, [since], (limit, 60.0), PAGE_LIMIT, users_only=users_only)


def tables() -> str:
    """Returns both tables as Markdown."""
    lines = []
    for limit in LIMITS:
        lines += [
            f"At {limit} requests a minute for each endpoint:",
            "",
            "| users | first load | requests | of users alone | a day after that | requests | of users alone |",
            "|---|---|---|---|---|---|---|",
        ]
        for users in SIZES:
            cells = [f"{users:,}"]
            for load in (first_load, steady_day):
                whole, alone = (load(users, limit, users_only=users_only) for users_only in (False, True))
                cells += [lasting(whole.seconds or 0), f"{sum(whole.requests.values()):,}"]
                cells += [f"{lasting(alone.seconds or 0)}, {many(alone.requests['leads'], 'request')}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def ceiling() -> str:
    """Returns where a day's work no longer fits a day, as Markdown."""
    lines = ["| limit | sessions a day, at the most | users, at two visits a year |", "|---|---|---|"]
    for limit in LIMITS:
        sessions = int(limit * _DAY_SECONDS / 60)
        lines.append(f"| {limit} a minute | {sessions:,} | {sessions * _DAYS // _VISITS:,} |")
    return "\n".join([*lines, ""])


def rewritten(page: str) -> str:
    """Returns the page with its tables as they are now."""
    for name, text in (("hours", tables()), ("ceiling", ceiling())):
        before, begin, rest = page.partition(f"<!-- {name}: made by `make limits` -->\n\n")
        _, end, after = rest.partition("<!-- end -->")
        assert begin, f"The page has no place for {name}."
        assert end, f"The place for {name} does not end."
        page = f"{before}{begin}{text}\n{end}{after}"
    return page


def _dataset(users: int) -> list[Piece]:
    each = users / _DAYS
    return [
        Piece(Stretch(day * DAY_MS, (day + 1) * DAY_MS), each, _VISITS * each, 0.0, 0.0, listed=False)
        for day in range(_DAYS)
    ]


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
