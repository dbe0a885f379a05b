"""The command `leadboxer`: one module for each of its commands.

Exit codes: 0 all covered, 3 stopped with progress, 4 configuration, 5 credentials, 6 not LeadBoxer, 130 stopped at
once, 1 anything else.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from leadboxer_source.cli.sentences import tell
from leadboxer_source.cli.terminal import say, shown

STOPPED_WITH_PROGRESS = 3
WRONG_USAGE = 4
STOPPED_AT_ONCE = 130
"""What a shell gives to a program that Ctrl-C has ended."""

COMMANDS = ("check", "plan", "sync", "status", "profile", "resync", "forget", "schema", "sandbox")
"""Each is the `command` of the module of its name; they stand in the help in this order."""


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"leadboxer_source.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = difflib.get_close_matches(args[0], COMMANDS, 1)
        if near and args[0] not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{args[0]}' (did you mean {near[0]}?)")
        return super().resolve_command(ctx, args)


def _readable(record: logging.LogRecord) -> bool:
    """Takes tracebacks from what dlt logs, and leaves out what the progress or the last sentence tells as well."""
    record.exc_info = record.exc_text = None
    record.msg, record.args = shown(record.getMessage().partition(" with message Traceback (")[0]), ()
    is_own = Path(__file__).parents[1] in Path(record.pathname).parents
    return not is_own or record.levelno != logging.WARNING or logging.getLogger("dlt").level < logging.WARNING


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="leadboxer-source")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def leadboxer(**_: Any) -> None:
    """Loads a LeadBoxer dataset with dlt."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code. What goes wrong is told in one sentence on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments  # wherever it stands: it is added to a command that has just failed
    if not debug:
        logging.getLogger("dlt").addFilter(_readable)
    with suppress(ValueError):  # not the main thread: whoever embeds the command line has signals of their own
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = [word for word in arguments if word != "--debug"] or ["--help"]
    try:
        code = leadboxer.main(words, prog_name="leadboxer", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort) as error:
        say(f"leadboxer: {str(error.__cause__ or error) or 'Stopped.'}", err=True)
        return STOPPED_AT_ONCE
    except click.ClickException as error:
        of = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "leadboxer"
        say(f"leadboxer: {error.format_message().rstrip('.')}; see `{of} --help`.", err=True)
        return WRONG_USAGE
    except Exception as error:
        if debug:
            say(traceback.format_exc(), err=True)
        told = tell(error)
        say(f"leadboxer: {told.text}", err=True)
        return told.exit_code
    return code if isinstance(code, int) else 0
