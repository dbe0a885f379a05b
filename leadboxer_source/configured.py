"""What dlt's configuration says of the source, for those who do not load: check, plan, and upkeep."""

from __future__ import annotations

import time
from typing import Any

from dlt.common.configuration.resolve import resolve_configuration

from leadboxer_source import settings
from leadboxer_source.settings import Settings
from leadboxer_source.source import leadboxer_source


def names() -> list[str]:
    """Returns the names of all settings."""
    return list(leadboxer_source.ref.SPEC().get_resolvable_fields())


def found(*, accept_partial: bool = True, **given: Any) -> dict[str, Any]:
    """Returns the arguments that `leadboxer_source` would be called with; `None` for what nobody gave.

    Args:
        accept_partial: Whether what must be given may be missing.
        **given: Arguments that win over the configuration.
    """
    spec = leadboxer_source.ref.SPEC()
    sections = ("sources", "leadboxer")
    return dict(resolve_configuration(spec, sections=sections, explicit_value=given, accept_partial=accept_partial))


def configured(**given: Any) -> Settings:
    """Returns the settings of the source, checked and parsed.

    Args:
        **given: Arguments of `leadboxer_source` that win over the configuration.

    Raises:
        ConfigFieldMissingException: Dataset id or key are not given.
        ConfigurationInvalid: A setting cannot be used.
    """
    return settings.parse(int(time.time() * 1000), **found(accept_partial=False, **given))
