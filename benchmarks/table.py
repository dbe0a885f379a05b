"""Figures, and the one table that shows them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """Something measured, beside what it should be.

    Attributes:
        figure: What was measured.
        measured: The result, with its unit.
        against: The bound or the peer, with its unit.
        ratio: How the two compare.
        target: What the ratio, or the result where there is none, should be.
        raw: The numbers behind it, for the JSON file.
    """

    figure: str
    measured: str
    against: str = ""
    ratio: float | None = None
    target: str = ""
    raw: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """A figure and the command that makes it."""

    command: str
    figure: Figure


def show(results: Sequence[Measured]) -> None:
    """Prints the table."""
    table = Table("figure", "measured", "bound or peer", "ratio", "target", "made by")
    for result in results:
        figure = result.figure
        ratio = "" if figure.ratio is None else f"{figure.ratio:.3f}"
        table.add_row(figure.figure, figure.measured, figure.against, ratio, figure.target, result.command)
    # wide enough for every cell, also where the output is no terminal
    Console(width=200).print(table)


def write(results: Sequence[Measured], path: Path) -> None:
    """Writes the figures with the numbers behind them as JSON."""
    told = [{**dataclasses.asdict(result.figure), "command": result.command} for result in results]
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def seconds(result: Mapping[str, float]) -> str:
    """A contender's wall time and, because a machine is rarely idle, the processor time in it."""
    return f"{result['seconds']:.1f} s ({result['cpu_seconds']:.1f} s CPU)"
