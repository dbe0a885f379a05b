"""Custom properties that are hard to load: what names and values can be, and real ones hardly are."""

from __future__ import annotations

from typing import Any

_DRIFTS: tuple[Any, ...] = ("text", 7, 2.5, True, None, [1, "two"], {"three": 3})


def properties(number: int, hit: int) -> dict[str, Any]:
    """Returns names with spaces, colliding, reserved, empty; values whose type drifts."""
    found: dict[str, Any] = {}
    if number % 2 == 0:
        found |= {"Customer ID": f"C-{number}", "lb_articleSection": "pricing"}
    if number % 4 == 0:
        found |= {"customer_id": number, "Plan": "team", "plan": hit}
    if number % 5 == 0:
        found |= {"_dlt_id": f"mine {number}", "_dlt_load_id": 1, "select": "from", "order": hit}
    if number % 6 == 0:
        found |= {"": "no name", "dotted.name": "a.b", "größe": "ü"}
    if number % 3 == 0:
        found["drift"] = _DRIFTS[(number // 3 + hit) % len(_DRIFTS)]
    if number % 50 == 7 and hit == 0:
        found |= {f"Answer {question}": str(question) for question in range(300)}
    return found
