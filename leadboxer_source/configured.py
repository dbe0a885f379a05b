"""What dlt's configuration says of the source, for those who do not load: check, plan, and upkeep."""

from __future__ import annotations

from typing import Any

from dlt.common.configuration.resolve import resolve_configuration

from leadboxer_source import settings
from leadboxer_source.settings import Settings
from leadboxer_source.source import leadboxer_source


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
    """Returns the settings that matter where nothing is loaded, checked and parsed.

    Args:
        **given: Arguments of `leadboxer_source` that win over the configuration.

    Raises:
        ConfigFieldMissingException: Dataset id or key are not given.
        ConfigurationInvalid: A setting cannot be used.
    """
    values = found(accept_partial=False, **given)
    return Settings(
        site=settings.parse_site(values["site"], values["api_key"]),
        api_key=settings.parse_key(values["api_key"]),
        base_url=settings.parse_base_url(values["base_url"]),
        rate_limit=settings.parse_rate_limit(values["rate_limit"]),
        limiter_store=settings.parse_limiter_store(values["limiter_store"]),
        start_ms=settings.parse_instant(values["start_date"], "start_date"),
        settle_seconds=values["settle_seconds"],
        display=settings.parse_display(values["display"]),
        filters=settings.parse_filters(values["filters"]),
    )
