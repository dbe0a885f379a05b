"""What is printed. Visitors choose much of what is loaded: no text of theirs is to command the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tab and line feed."""


def shown(text: str) -> str:
    """Writes control characters as JSON does, so that they are seen and not obeyed, and JSON stays what it is."""
    return _CONTROLS.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


def say(text: str = "", *, mark: str = "", err: bool = False) -> None:
    """Prints a line.

    Args:
        text: The line, or several.
        mark: What it begins with, which may have a colour.
        err: To standard error.
    """
    click.echo(mark + shown(text), err=err)


class Terminal(Console):
    """A console that commands the terminal itself, and lets no text do so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders with all text as it is to be shown."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))
