"""`leadboxer sandbox`: serves a made-up LeadBoxer until it is stopped."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from random import Random
from typing import Any

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
    )
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    server = Sandbox(
        world,
        key=arguments.key,
        profile=_profile(arguments.profile),
        rate_limit=None if arguments.rate_limit == "unlimited" else arguments.rate_limit,
        faults=Faults.mixed(arguments.faults, arguments.seed),
        port=arguments.port,
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(server)
        except OSError as error:
            print(f"leadboxer sandbox: Port {arguments.port} cannot be had: {error}; name another.", file=sys.stderr)
            return 1
        told = {"base_url": server.url, "site": world.site, "api_key": server.key}
        lines = [f"{name:<9}{value}" for name, value in told.items()]
        print(json.dumps(told) if arguments.json else "\n".join(lines), flush=True)
        _live(server, world, arguments.live, stopped)
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="leadboxer sandbox",
        description="Serves a made-up LeadBoxer on this machine.",
        epilog="Example: leadboxer sandbox --port 8080 --users 500 --rate-limit 10/second",
    )
    parser.add_argument("--port", type=int, default=0, help="where to listen (default: any free port)")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--days", type=float, default=90, help="over how many days they were last seen")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same data")
    parser.add_argument("--rate-limit", default="10/minute", help="such as 10/second, or unlimited")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that meet a passing fault")
    parser.add_argument("--live", type=float, default=0.0, help="users who become active in a minute")
    parser.add_argument("--site", default=SITE)
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--sessions-per-user", type=float, default=2.0)
    parser.add_argument("--events-per-session", type=float, default=3.0)
    parser.add_argument("--all-in-one-day", action="store_true", help="everybody was seen within the last day")
    parser.add_argument(
        "--profile", nargs="*", default=[], metavar="NAME=VALUE", help="readings of the API's open points"
    )
    parser.add_argument("--json", action="store_true", help="print address, dataset and key as JSON")
    return parser


def _profile(switches: Sequence[str]) -> Profile:
    """Reads `name=value` pairs; a value is JSON where it can be, else text."""
    known = {field.name for field in dataclasses.fields(Profile)}
    values: dict[str, Any] = {}
    for name, _, value in (switch.partition("=") for switch in switches):
        if name not in known:
            sys.exit(f"leadboxer sandbox: there is no switch {name!r}; there are {', '.join(sorted(known))}.")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return Profile(**values)


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
