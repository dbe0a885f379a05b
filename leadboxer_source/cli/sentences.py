"""What went wrong, in one line that says what to do."""

from __future__ import annotations

from leadboxer_source.errors import ConfigurationInvalid, LeadBoxerError


def sentence(error: BaseException) -> str:
    """Returns what went wrong in one line; of dlt's own errors the cause, with what to do about the usual ones."""
    if isinstance(error, LeadBoxerError):
        return str(error)
    name, missing = type(error).__name__, getattr(error, "fields", None)
    if name == "ConfigFieldMissingException" and missing:
        return (
            f"No {' and no '.join(missing)}: set it under [sources.leadboxer] in .dlt/secrets.toml, "
            f"or as SOURCES__LEADBOXER__{next(iter(missing)).upper()}."
        )
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    cause = getattr(cause, "inner_exc", cause)
    first_line = next(iter(str(cause).strip().splitlines()), "")
    return f"{type(cause).__name__}: {first_line[:300]} (--debug shows where)"


def exit_code(error: BaseException) -> int:
    """Returns the exit code that tells what kind of error it was."""
    if isinstance(error, LeadBoxerError):
        return error.exit_code
    return ConfigurationInvalid.exit_code if type(error).__name__ == "ConfigFieldMissingException" else 1
