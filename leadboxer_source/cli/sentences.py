"""What went wrong, in one sentence that says what to do. docs/troubleshooting.md lists them.

Errors of this package bring their sentence along. Those of dlt and of destinations are known by their class or text.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import dlt.destinations
import tomlkit
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
    ConfigurationException,
    ConfigValueCannotBeCoercedException,
    LookupTrace,
    LookupTraces,
    ValueNotSecretException,
)
from dlt.common.configuration.providers.toml import TomlProviderReadException
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.exceptions import MissingDependencyException
from dlt.destinations.exceptions import DestinationConnectionError

from leadboxer_source.errors import AccessDenied, ConfigurationInvalid, CredentialsRejected, LeadBoxerError
from leadboxer_source.settings import PLACEHOLDERS

_PREFIX = "SOURCES__LEADBOXER__"
_SECTION = "[sources.leadboxer]"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_CONFIGURATION = ConfigurationInvalid.exit_code


class Told(NamedTuple):
    """A sentence and the exit code that goes with it."""

    text: str
    exit_code: int = 1


def tell(error: BaseException) -> Told:
    """Returns what went wrong and what to do about it; of dlt's own errors the cause."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, LeadBoxerError):
            return Told(f"{_placed(str(cause))}{_stray(cause, os.environ)}", cause.exit_code)
    for cause in reversed(causes):
        for recognise in _RECOGNISED:
            if told := recognise(cause):
                return told
    deepest = causes[-1]
    first_line = next(iter(str(deepest).strip().splitlines()), "")
    return Told(f"{type(deepest).__name__}: {first_line[:300]} (--debug shows where)")


def missing(*settings: str) -> str:
    """Returns what to do about settings of the source that nobody gave."""
    for setting in settings:
        if where := _misplaced(setting) or _misnamed(setting, os.environ):
            return f"No {setting}: {where}."
    names, variables = " and no ".join(settings), " and ".join(f"{_PREFIX}{setting.upper()}" for setting in settings)
    where = f"under {_SECTION} in .dlt/secrets.toml, or in the environment as {variables}"
    return f"No {names}: set {_it(settings)} {where}."


def ignored(settings: Collection[str]) -> list[str]:
    """Returns a sentence for each setting of the source that is given under a name that it has not.

    Args:
        settings: Names that it has.
    """
    told = []
    for file, document in _files():
        for name, value in document.get("sources", {}).get("leadboxer", {}).items():
            near = difflib.get_close_matches(name.lower(), settings, 1)
            # a table may as well be one of dlt's own
            if name not in settings and (near or not isinstance(value, Mapping)):
                told.append(_ignored(f"{name} in {file}", *near))
    for variable in os.environ:
        name = variable.removeprefix(_PREFIX).lower()
        if variable.startswith(_PREFIX) and name and "__" not in name and name not in settings:
            near = difflib.get_close_matches(name, settings, 1)
            told.append(_ignored(variable, *(f"{_PREFIX}{setting.upper()}" for setting in near)))
    return told


def _ignored(name: str, meant: str = "") -> str:
    return f"{name} is ignored, as there is no such setting{f'; did you mean {meant}?' if meant else '.'}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, the root last."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or getattr(cause, "inner_exc", None) or cause.__context__


def _it(things: Collection[str]) -> str:
    return "it" if len(things) == 1 else "them"


def _misplaced(setting: str) -> str:
    """Finds a setting that stands in another section."""
    for file, document in _files():
        for path in _paths(document, setting):
            section = f"[{'.'.join(path)}]" if path else "no section"
            if section != _SECTION and "leadboxer" in section.lower():
                return f"in {file} it stands under {section}; move it under {_SECTION}"
    return ""


def _placed(text: str) -> str:
    """Adds to a sentence about a placeholder in which file it stands, if in one."""
    for setting, (placeholder, _) in PLACEHOLDERS.items():
        if text.startswith(f"{setting} is still"):
            for file, document in _files():
                if document.get("sources", {}).get("leadboxer", {}).get(setting) == placeholder:
                    return f"{text.rstrip('.')}, in {file}."
    return text


def _files() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The files of dlt's configuration, read."""
    for provider in Container()[PluggableRunContext].providers.providers:
        if provider.name.endswith(".toml"):
            document: Any = provider
            yield f".dlt/{provider.name}", tomlkit.parse(document.to_toml()).unwrap()


def _paths(document: Mapping[str, Any], setting: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _paths(value, setting, (*above, name))
        elif name == setting:
            yield above


def _misnamed(setting: str, environment: Mapping[str, str]) -> str:
    """Finds an environment variable that was meant, and that dlt does not read."""
    for name in environment:
        if "LEADBOXER" in name.upper() and name.upper().endswith(setting.upper()):
            return f"the environment has {name}, which dlt does not read; rename it to {_PREFIX}{setting.upper()}"
    return ""


def _stray(error: LeadBoxerError, environment: Mapping[str, str]) -> str:
    """Names the variable that a refused key or dataset id came from, if it is not plainly meant for LeadBoxer."""
    settings: tuple[str, ...] = ("api_key", "site") if isinstance(error, (CredentialsRejected, AccessDenied)) else ()
    if isinstance(error, ConfigurationInvalid):
        settings = tuple(name for name in ("api_key", "site") if str(error).startswith(name))
    for setting in settings:
        for name in (f"SOURCES__{setting.upper()}", setting.upper()):
            if name in environment and f"{_PREFIX}{setting.upper()}" not in environment:
                return (
                    f" The {setting} was taken from the environment variable {name}, which goes before .dlt/: "
                    f"unset it, or set {_PREFIX}{setting.upper()}."
                )
    return ""


def _missing(error: BaseException) -> Told | None:
    if not isinstance(error, ConfigFieldMissingException):
        return None
    leaf = next(_leaves(error.traces), None)
    if leaf is None or "destination" not in leaf.sections:
        return Told(missing(*error.fields), _CONFIGURATION)
    names = list(dict.fromkeys(_fields(error.traces)))
    variable = "__".join((*leaf.sections, names[0])).upper()
    return Told(
        f"The destination has no {', no '.join(names)}: set {_it(names)} under [{'.'.join(leaf.sections)}] in "
        f".dlt/secrets.toml, or in the environment as {variable}{' and so on' if len(names) > 1 else ''}.",
        _CONFIGURATION,
    )


def _misfiled(error: BaseException) -> Told | None:
    if not isinstance(error, ValueNotSecretException):
        return None
    return Told(
        f"{error.key} is a secret but stands in {error.provider_name}: move it to .dlt/secrets.toml.",
        _CONFIGURATION,
    )


def _leaves(traces: Mapping[str, Any]) -> Iterator[LookupTrace]:
    for found in traces.values():
        for trace in found:
            if isinstance(trace, LookupTraces):
                yield from _leaves(trace.traces)
            elif trace.sections:
                yield trace


def _fields(traces: Mapping[str, Any]) -> Iterator[str]:
    """Names of the missing fields; of a missing group those in it, of the first of several possible groups."""
    for name, found in traces.items():
        group = next((trace for trace in found if isinstance(trace, LookupTraces)), None)
        yield from _fields(group.traces) if group else [name]


def _toml(error: BaseException) -> Told | None:
    if not isinstance(error, TomlProviderReadException):
        return None
    reason = str(error).strip().splitlines()[-1]
    # what the parser says where a text goes on to the end of its line
    reason = re.sub(r"^Control characters .* use \\u000a instead", "a text is not closed by its quote", reason)
    files = " or ".join(path for path in error.full_paths if Path(path).exists())
    return Told(f"{files} is not TOML: {reason[:200]}; correct it.", _CONFIGURATION)


def _unknown_destination(error: BaseException) -> Told | None:
    if not isinstance(error, UnknownDestinationModule):
        return None
    known = sorted(name for name in dlt.destinations.__all__ if name != "destination")
    near = difflib.get_close_matches(error.ref, known, 1)
    guess = f"did you mean {near[0]}? There are" if near else "there are"
    return Told(f"There is no destination {error.ref}: {guess} {', '.join(known)}.", _CONFIGURATION)


def _dependency(error: BaseException) -> Told | None:
    if not isinstance(error, MissingDependencyException):
        return None
    wanted = " ".join(f"'{name}'" for name in error.dependencies)
    return Told(f"{error.caller} needs packages that are not installed: pip install {wanted}.", _CONFIGURATION)


def _file(error: BaseException) -> Told | None:
    """A file that cannot be written, known by its error number or, from DuckDB, by its text."""
    text = " ".join(str(error).split())
    number = error.errno if isinstance(error, OSError) else None
    quoted = re.search(r"[\"']([^\"']+)[\"']", text)
    name = str(getattr(error, "filename", None) or (quoted[1] if quoted else "the file"))
    for pattern, say in _DUCKDB.items():
        if re.search(pattern, text):
            return say(name, text)
    if number in _FULL or re.search("No space left on device|File too large|Disk quota exceeded", text):
        return Told("The disk is full: make room and run it again; the slices that were finished are kept.")
    if number in _FORBIDDEN:
        return _not_writable(name)
    return None


def _unreachable(error: BaseException) -> Told | None:
    # the drivers' own errors share the names that Python's database interface (PEP 249) gives them
    if not isinstance(error, DestinationConnectionError) and type(error).__name__ != "OperationalError":
        return None
    reason = str(getattr(error, "inner_exc", error)).strip().splitlines()[0][:200]
    return Told(f"The destination does not let us in ({reason}): check its credentials, and whether it runs.")


def _forbidden(error: BaseException) -> Told | None:
    # of PostgreSQL and its like, of BigQuery, of Snowflake
    is_forbidden = type(error).__name__ in {"InsufficientPrivilege", "Forbidden"}
    if not is_forbidden and "Insufficient privileges" not in str(error):
        return None
    reason = str(error).strip().splitlines()[0][:200]
    return Told(f"The destination does not allow that ({reason}): have its owner grant it, or use another login.")


_FORMS = {
    "list": 'a list like ["Customer ID"]',
    "dict": 'a table, in the environment JSON like {"search": "acme"}',
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}
"""How a value of each type is written."""


def _given_as(setting: str) -> str:
    """Says where a setting of the source was found."""
    variable = f"{_PREFIX}{setting.upper()}"
    if variable in os.environ:
        return variable
    files = (file for file, document in _files() if setting in document.get("sources", {}).get("leadboxer", {}))
    return next((f"{setting} in {file}" for file in files), setting)


def _refused(error: BaseException) -> Told | None:
    """A setting that dlt cannot read; it shows no value that may be secret."""
    if isinstance(error, ConfigValueCannotBeCoercedException):
        form = _FORMS.get(getattr(error.hint, "__name__", ""), f"a value of type {error.hint}")
        return Told(f"{_given_as(error.field_name)} cannot be read: write {form}.", _CONFIGURATION)
    if not isinstance(error, ConfigurationException):
        return None
    return Told(f"{str(error).strip().splitlines()[0][:300]}; correct it.", _CONFIGURATION)


_RECOGNISED = (
    _missing,
    _misfiled,
    _toml,
    _unknown_destination,
    _dependency,
    _file,
    _forbidden,
    _unreachable,
    _refused,
)


def _not_writable(name: str) -> Told:
    return Told(
        f"{name} cannot be written: allow it, or choose another place (--db for the database, DLT_DATA_DIR for dlt's "
        "working folder).",
        _CONFIGURATION,
    )


def _locked(name: str, text: str) -> Told:
    holder = re.search(r"\(PID (\d+)\)", text)
    who = f"another program (process {holder[1]})" if holder else "another program"
    return Told(f"{name} is open in {who}: close it there, wait if it is a sync, or choose another file with --db.")


_DUCKDB: dict[str, Callable[[str, str], Told]] = {
    "Out of Memory Error|could not allocate block": lambda *_: Told(
        "DuckDB has not memory enough for what was read, which is kept: raise memory_limit under "
        "[destination.duckdb.credentials.global_config] and run it again."
    ),
    "Could not set lock on file": _locked,
    "not a valid DuckDB database": lambda name, _: Told(
        f"{name} is no DuckDB file: choose another with --db.", _CONFIGURATION
    ),
    "database file with version number": lambda name, _: Told(
        f"{name} was written by another version of DuckDB: pip install --upgrade duckdb.", _CONFIGURATION
    ),
    "Is a directory": lambda name, _: Told(f"{name} is a folder: name a file with --db.", _CONFIGURATION),
    "Cannot open file.*No such file": lambda name, _: Told(
        f"The folder of {name} does not exist: make it, or choose another with --db.", _CONFIGURATION
    ),
    "Cannot open file.*(Permission denied|Read-only file system|not permitted)|in read-only mode": (
        lambda name, _: _not_writable(name)
    ),
}
"""What DuckDB says, and what it means."""
