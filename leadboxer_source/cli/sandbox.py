"""`leadboxer sandbox`: serves a made-up LeadBoxer on this machine."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from leadboxer_source.errors import extra_missing


class _Sandbox(click.Command):
    """Completes the options of a parser that click does not know."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - click's signature
        try:
            from leadboxer_source.sandbox.__main__ import parser
        except ImportError:
            return []
        options = (name for action in parser()._actions for name in action.option_strings)
        return [CompletionItem(name) for name in options if name.startswith(incomplete)]


@click.command(
    cls=_Sandbox,
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
        raise extra_missing("The sandbox", "sandbox") from None
    return serve(arguments)
