"""`leadboxer sandbox`: serves a made-up LeadBoxer until it is stopped."""

from __future__ import annotations

import argparse
import errno
import json
import math
import re
import shlex
import signal
import sys
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from random import Random
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from leadboxer_source.sandbox.faults import Faults
from leadboxer_source.sandbox.profile import Profile
from leadboxer_source.sandbox.server import KEY, Sandbox
from leadboxer_source.sandbox.world import SITE, World


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGINT or SIGTERM; returns the exit code."""
    arguments = parser().parse_args(argv)
    world = World(
        seed=arguments.seed,
        users=arguments.users,
        days=arguments.days,
        now_ms=int(time.time() * 1000),
        site=arguments.site,
        sessions_per_user=arguments.sessions_per_user,
        events_per_session=arguments.events_per_session,
        all_in_one_day=arguments.all_in_one_day,
        hostile=arguments.hostile,
    )
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    server = Sandbox(
        world,
        key=arguments.key,
        profile=Profile(**dict(arguments.profile)),
        rate_limit=None if arguments.rate_limit == "unlimited" else arguments.rate_limit,
        faults=Faults.mixed(arguments.faults, arguments.seed),
        port=arguments.port,
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(server)
        except OSError as error:
            reasons = {errno.EADDRINUSE: "another program listens there", errno.EACCES: "it takes more rights"}
            reason = reasons.get(error.errno or 0, error.strerror)
            print(f"leadboxer sandbox: Port {arguments.port} cannot be had: {reason}; name another.", file=sys.stderr)
            return 1
        told = {"base_url": server.url, "site": world.site, "api_key": server.key}
        print(
            json.dumps(told) if arguments.json else _exports({**told, "rate_limit": arguments.rate_limit}), flush=True
        )
        _live(server, world, arguments.live, stopped)
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        self.exit(4, f"leadboxer: {message.rstrip('.')}; see `{self.prog} --help`.\n")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = _Parser(
        prog="leadboxer sandbox",
        usage="%(prog)s [OPTIONS]",
        description="Serve a made-up LeadBoxer on this machine, until it is stopped.",
        epilog="Example: leadboxer sandbox --port 8080 --users 500 --rate-limit 10/second",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=33, width=100),
    )
    count, amount = _number(int), _number(float)

    def option(name: str, kind: Callable[[str], Any], metavar: str, default: Any, text: str, shown: str = "") -> None:
        told = f"{text}  [default: {shown or f'{default:g}' if isinstance(default, (int, float)) else default}]"
        parser.add_argument(name, type=kind, metavar=metavar, default=default, help=told)

    option("--port", _number(int, 65_535), "INTEGER", 0, "Where to listen.", shown="any free port")
    option("--users", count, "INTEGER", 200, "How many there are.")
    option("--days", amount, "FLOAT", 90, "Over how many days they were last seen.")
    option("--seed", int, "INTEGER", 1, "The same seed makes the same people.")
    option("--rate-limit", _rate, "TEXT", "10/minute", "Requests that each endpoint allows, or unlimited.")
    option("--faults", _number(float, 1), "FLOAT", 0.0, "Share of requests that meet a passing fault.")
    option("--live", amount, "FLOAT", 0.0, "Users who become active in a minute.")
    option("--site", _site, "TEXT", SITE, "Dataset id.")
    option("--key", str, "TEXT", KEY, "API key that it takes.")
    option("--sessions-per-user", amount, "FLOAT", 2.0, "Visits of a user, on average.")
    option("--events-per-session", amount, "FLOAT", 3.0, "Hits of a visit, on average.")
    parser.add_argument("--all-in-one-day", action="store_true", help="Everybody was seen within the last day.")
    parser.add_argument(
        "--hostile",
        action="store_true",
        help="Make the data hard to load: colliding and reserved names, values that change their type, equal events.",
    )
    parser.add_argument(
        "--profile",
        nargs="*",
        type=_switch,
        default=[],
        metavar="NAME=VALUE",
        help="How it answers where the API's documentation is open, such as token_expired=404.",
    )
    parser.add_argument("--json", action="store_true", help="Print address, dataset and key as JSON.")
    return parser


def _number(kind: type[int] | type[float], most: float = math.inf) -> Callable[[str], float]:
    """Returns what reads a number of at least 0 and at most so much."""

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            raise ArgumentTypeError(f"{text} is no number") from None
        if not 0 <= number <= most or number == math.inf:
            raise ArgumentTypeError(f"{text} is not {'0 or more' if most == math.inf else f'from 0 to {most:g}'}")
        return number

    return read


def _rate(text: str) -> str:
    if text != "unlimited" and not re.fullmatch(r"[1-9]\d*/(second|minute|hour|day)", text):
        raise ArgumentTypeError(f"{text} is not a rate: write it like 10/minute or 10/second, or unlimited")
    return text


def _site(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{32}", text):
        raise ArgumentTypeError(f"{text} is not a dataset id: it has 32 digits and letters from a to f")
    return text


def _switch(text: str) -> tuple[str, Any]:
    """Reads a `name=value` pair."""
    name, _, value = text.partition("=")
    hints = get_type_hints(Profile)
    if name not in hints:
        raise ArgumentTypeError(f"there is no switch {name}; there are {', '.join(sorted(hints))}")
    hint = hints[name]
    if hint is bool or get_origin(hint) is Literal:
        choices = {str(choice).lower(): choice for choice in get_args(hint) or (False, True)}
        if value.lower() not in choices:
            raise ArgumentTypeError(f"{name} is one of {', '.join(choices)}")
        return name, choices[value.lower()]
    try:
        return name, None if value == "null" and hint is not float else (float if hint is float else int)(value)
    except ValueError:
        raise ArgumentTypeError(f"{name} takes a number") from None


def _exports(settings: dict[str, str]) -> str:
    """Lines for a shell in which the other commands shall use this sandbox."""
    named = {f"SOURCES__LEADBOXER__{name.upper()}": value for name, value in settings.items()}
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in named.items())


def _live(server: Sandbox, world: World, users_per_minute: float, stopped: threading.Event) -> None:
    """Lets users come and return until the server is stopped."""
    dice = Random(world.seed)
    while not stopped.wait(60 / users_per_minute if users_per_minute else None):
        with server.lock:
            if dice.random() < 0.5:
                world.add_user(int(time.time() * 1000))
            else:
                world.return_user(dice.choice(world.user_ids()), int(time.time() * 1000))


if __name__ == "__main__":
    sys.exit(main())
