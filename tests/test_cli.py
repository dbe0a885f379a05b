"""Each command tells how it is used, with an example that works, and the shell can complete it."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from unicodedata import category

import click
import pytest
from click.shell_completion import BashComplete

from leadboxer_source.cli import COMMANDS, leadboxer, main
from leadboxer_source.cli.terminal import say
from leadboxer_source.sandbox.__main__ import parser as sandbox_parser
from leadboxer_source.sandbox.server import Answer
from tests.conftest import Desk
from tests.test_package import ROOT

BIN = Path(sys.executable).parent


def help_of(name: str, capsys: Any) -> str:
    with suppress(SystemExit):  # the sandbox's parser leaves the program
        main([name, "--help"])
    return str(capsys.readouterr().out)


def command_called(name: str) -> click.Command:
    command = leadboxer.get_command(click.Context(leadboxer), name)
    assert isinstance(command, click.Command)
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_one_example_and_it_parses(name: str, capsys: Any) -> None:
    told = help_of(name, capsys)
    [example] = re.findall(r"^\s*Example: leadboxer (.*?)(?: > .*)?$", told, flags=re.MULTILINE)
    word, *arguments = shlex.split(example)
    assert word == name
    if name == "sandbox":
        sandbox_parser().parse_args(arguments)
    else:
        command_called(name).make_context(name, arguments)


def test_without_a_command_it_prints_the_help(capsys: Any) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr()
    assert main([]) == 0
    assert capsys.readouterr() == told


def test_the_sandbox_takes_every_value_of_its_switches() -> None:
    given = ["envelope=legacy", "token_expired=404", "unknown_lead=404", "compressed=true", "max_limit=7"]
    given += ["children_cap=null", "token_life_s=0.5"]
    read = dict(sandbox_parser().parse_args(["--profile", *given]).profile)
    assert read == {
        "envelope": "legacy",
        "token_expired": 404,
        "unknown_lead": "404",
        "compressed": True,
        "max_limit": 7,
        "children_cap": None,
        "token_life_s": 0.5,
    }


def test_every_option_of_the_sandbox_is_explained() -> None:
    for option in sandbox_parser()._actions:
        assert option.help, option.dest
        is_explained = (
            option.dest in {"help", "all_in_one_day", "hostile", "profile", "json"} or "[default: " in option.help
        )
        assert is_explained, option.dest


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    for parameter in command_called(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def completed(*words: str) -> set[str]:
    """What the shell would offer for the last word."""
    *before, incomplete = words
    completion = BashComplete(leadboxer, {}, "leadboxer", "_LEADBOXER_COMPLETE")
    return {item.value for item in completion.get_completions(list(before), incomplete)}


def test_commands_options_and_values_can_be_completed() -> None:
    assert completed("") == set(COMMANDS)
    assert completed("s") == {name for name in COMMANDS if name.startswith("s")}
    assert {"--max-minutes", "--max-requests"} <= completed("sync", "--ma")
    assert completed("schema", "--format", "m") == {"markdown", "mermaid"}
    assert completed("sync", "--destination", "snow") == {"snowflake"}
    assert completed("sandbox", "--ra") == {"--rate-limit"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_each_command_can_be_completed(name: str) -> None:
    assert completed(name, "--")


def test_bash_completes_with_the_script_that_the_command_gives() -> None:
    script = (
        f'PATH="{BIN}:$PATH"; eval "$(_LEADBOXER_COMPLETE=bash_source leadboxer)";'
        'COMP_WORDS=(leadboxer sche); COMP_CWORD=1; _leadboxer_completion leadboxer; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["/bin/bash", "-c", script], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("schema\n", "")


def test_what_dlt_tries_again_is_told_without_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--help"]) == 0
    told = "Job for users.sql retried in load 1"  # as dlt words it, the traceback in the message
    logging.getLogger("dlt").error("%s with message Traceback (most recent call last):\n  File", told)
    assert caplog.messages == [told]


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_control_characters_are_shown_and_not_obeyed(code: int, capsys: Any) -> None:
    is_kept = chr(code) in "\n\t"
    said = f"a{chr(code)}b é 漢 \U0001f600"
    say(said)
    say(json.dumps(said, ensure_ascii=False), err=True)
    told = capsys.readouterr()
    assert told.out == (f"{said}\n" if is_kept else f"a\\u{code:04x}b é 漢 \U0001f600\n")
    assert json.loads(told.err) == said


def test_all_that_is_printed_is_printed_in_one_place() -> None:
    ways = re.compile(r"\b(?:click\.s?echo|print_exc|Console)\(|(?<![.\w])print\(|sys\.std(?:out|err)")
    for file in (ROOT / "leadboxer_source" / "cli").glob("*.py"):
        assert bool(ways.search(file.read_text())) == (file.name == "terminal.py"), file.name


@pytest.mark.parametrize("command", ["sync", "check", "plan"])
@pytest.mark.parametrize("arguments", [[], ["--debug"]])
def test_what_the_api_says_does_not_command_the_terminal(
    desk: Desk, command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    desk.configure(monkeypatch, rate_limit="unlimited")
    refusal = Answer(400, json.dumps({"detail": "no\x1b[2J\x9b\x07 such"}, ensure_ascii=False).encode())
    monkeypatch.setattr(desk.server, "_answer", lambda *_: refusal)
    assert main([command, *arguments]) == 1
    told = capsys.readouterr()
    assert "such" in told.out + told.err
    assert not [char for char in told.out + told.err if category(char) == "Cc" and char != "\n"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_the_script_that_the_documentation_names_and_its_answers(shell: str) -> None:
    assert f"_LEADBOXER_COMPLETE={shell}_source leadboxer" in (ROOT / "docs" / "quickstart.md").read_text()

    def told(**variables: str) -> str:
        environment = {**os.environ, "COMP_WORDS": "leadboxer sche", **variables}
        return subprocess.run([BIN / "leadboxer"], check=True, capture_output=True, text=True, env=environment).stdout

    assert f"_LEADBOXER_COMPLETE={shell}_complete" in told(_LEADBOXER_COMPLETE=f"{shell}_source")
    incomplete = "sche" if shell == "fish" else "1"
    assert "schema" in told(_LEADBOXER_COMPLETE=f"{shell}_complete", COMP_CWORD=incomplete)
