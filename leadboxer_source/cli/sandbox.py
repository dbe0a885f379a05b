"""`leadboxer sandbox`: serves a made-up LeadBoxer on this machine."""

from __future__ import annotations

import click

from leadboxer_source.errors import ConfigurationInvalid


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
    short_help="Serve a made-up LeadBoxer on this machine.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(*, arguments: tuple[str, ...]) -> int:
    """Serve a made-up LeadBoxer on this machine."""
    try:
        from leadboxer_source.sandbox.__main__ import main as serve
    except ImportError:
        raise ConfigurationInvalid("The sandbox needs an extra: pip install 'leadboxer-source[sandbox]'.") from None
    return serve(arguments)
