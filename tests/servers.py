"""Servers from Debian's packages, started for the tests on loopback with a data folder of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def program(name: str) -> str:
    """Finds a program, also where Debian keeps PostgreSQL's."""
    found = shutil.which(name) or next(iter(sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))), None)
    if found is None:
        pytest.fail(f"{name} is not installed: `make servers` installs it on Debian.")
    return found


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _folder() -> Iterator[tuple[Path, str | None]]:
    """A folder for a server's data and the user who owns it: PostgreSQL refuses to run as root."""
    folder = Path(tempfile.mkdtemp(prefix="leadboxer-server-"))
    user = None
    if os.geteuid() == 0:
        user = "postgres"
        shutil.chown(folder, user)
    try:
        yield folder, user
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: Sequence[str | Path], user: str | None) -> None:
    subprocess.run(command, check=True, capture_output=True, user=user, cwd="/")


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server; yields the address of its database."""
    with _folder() as (folder, user):
        data, port = folder / "data", free_port()
        _run([program("initdb"), "-D", data, "-U", "loader", "--auth=trust", "--no-sync", "-E", "UTF8"], user)
        options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        control: list[str | Path] = [program("pg_ctl"), "-D", data, "-w"]
        _run([*control, "-o", options, "-l", folder / "log", "start"], user)
        try:
            yield f"postgresql://loader@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"], user)


@contextmanager
def redis() -> Iterator[str]:
    """A Redis server; yields its address."""
    with _folder() as (folder, _):
        port = free_port()
        command = [
            program("redis-server"),
            "--port",
            f"{port}",
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            f"{folder}",
        ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(200):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                server.poll()
                with suppress(subprocess.TimeoutExpired):
                    server.wait(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()
