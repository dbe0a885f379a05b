"""Writes the table of settings in docs/configuration.md from the signature and docstring of `leadboxer_source`.

Run `.venv/bin/python docs/tools/configuration.py` after a change of either; a test tells when it was forgotten.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from leadboxer_source import leadboxer_source

PAGE = Path(__file__).parents[1] / "configuration.md"
NOT_CONFIGURED = ("clock", "watch")
"""Arguments that are objects of Python: no file and no environment variable can hold them."""

_BEGIN, _END = "<!-- settings: made by docs/tools/configuration.py -->\n", "<!-- end -->"
_TYPES = {
    "dlt.TSecretStrValue": "text, secret",
    "str": "text",
    "date": "date",
    "datetime": "time",
    "list[str]": "list of texts",
    "dict[str, Any]": "table",
    "int": "whole number",
    "float": "number",
}


def descriptions(docstring: str) -> dict[str, str]:
    """Returns what the `Args` section of a Google docstring says, by argument."""
    section = inspect.cleandoc(docstring).partition("\nArgs:\n")[2].partition("\n\n")[0]
    return {
        name: " ".join(told.split())
        for name, told in re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", section, re.MULTILINE)
    }


def table() -> str:
    """Returns a row for each setting: name, type, default and meaning."""
    told = descriptions(leadboxer_source.__doc__ or "")
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, parameter in inspect.signature(leadboxer_source).parameters.items():
        if name not in NOT_CONFIGURED:
            meaning = told[name].replace("|", "\\|")
            lines.append(f"| `{name}` | {_type(parameter)} | {_default(parameter)} | {meaning} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """Returns a page with the table between its two marks made anew."""
    before, rest = page.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


def _type(parameter: inspect.Parameter) -> str:
    alternatives = str(parameter.annotation).split(" | ")
    return " or ".join(_TYPES[name] for name in alternatives if name != "None")


def _default(parameter: inspect.Parameter) -> str:
    if parameter.name in {"site", "api_key"}:
        return "must be given"
    if parameter.default is None:
        return ""
    return f"`{parameter.default:g}`" if isinstance(parameter.default, float) else f"`{parameter.default}`"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
