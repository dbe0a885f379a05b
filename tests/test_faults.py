"""Each fault between a client and LeadBoxer: what happens, what is kept, what is read. Generates `docs/faults.md`."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from leadboxer_source import Report, settings
from leadboxer_source.connection import Connection, connect
from leadboxer_source.sandbox import Faults, Profile, Sandbox, World
from leadboxer_source.sandbox.faults import NAMES
from leadboxer_source.settings import Settings
from tests.oracle import HandClock, InMemory, Oracle, Order, Site

ALL = Order()
PAGE = Path(__file__).parent.parent / "docs" / "faults.md"

FAULTS = {
    "429_header": "429, the wait in its header",
    "429": "429, the wait in its body",
    "429_bare": "429 that names no wait",
    "429_zero": "429, wait 0 s",
    "429_negative": "429, wait -5 s",
    "429_absurd": "429, wait 30,000 years",
    "daily_quota": "429, the day's quota is spent",
    "500": "500",
    "502_html": "502 with a web page",
    "503_empty": "503 without a body",
    "reset": "Connection reset before the body",
    "cut_body": "Connection reset in the body",
    "timeout_after": "Time-out after the server moved the page token on",
    "torn_json": "Torn JSON",
    "html_200": "A web page under 200",
    "response_code": "`responseCode` other than 0",
    "empty_body": "Empty body",
    "wrong_type": "Wrong content type",
    "slow_drip": "A body that drips",
    "endless_drip": "A body that drips for too long",
    "redirect_other_host": "301 to another host",
    "400": "400",
    "401": "401",
    "402": "402",
    "403": "403",
    "404": "404",
}


class Bench:
    """A small world over real HTTP, a clock that jumps, and a destination in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, users: int = 6) -> None:
        # real seconds, so that a time-out is one
        monkeypatch.setattr(settings, "READ_SECONDS", 1.0)
        monkeypatch.setattr(settings, "BODY_SECONDS", 1.0)
        clock = HandClock()
        world = World(seed=3, users=users, days=2, now_ms=clock.now_ms)
        self.server = Sandbox(world, profile=Profile(max_limit=2), rate_limit=None, clock=clock.time)
        self.server.start()
        self.site = Site(clock, world, self.server)
        self.loader = OverHttp(self.server, world.site, clock)
        self.loader.base_url = self.server.url
        self.oracle = Oracle(self.site, self.loader)

    def run(self, order: Order = ALL) -> Report | None:
        self.loader.error = None
        report = self.site.run(self.loader, order)
        self.oracle.assert_sentence_holds()
        return report

    def assert_next_runs_end_equal_to_truth(self) -> None:
        self.server.faults = Faults()
        self.site.clock.advance(86_400)
        self.run()
        report = self.run()
        assert report is not None
        assert report.complete
        self.oracle.assert_equal_to_truth(None)


class OverHttp(InMemory):
    def connect(self, config: Settings, clock: Any) -> Connection:
        return connect(config, clock)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(monkeypatch)
    yield made
    made.server.stop()


class Line(NamedTuple):
    """A line of the table."""

    once: str
    always_for_one: str
    always_for_all: str
    kept: str
    told: str


def meets(bench: Bench, fault: str, times: dict[str, int]) -> Report | None:
    bench.server.faults = Faults(hang_s=1.5)
    for endpoint, after in times.items():
        bench.server.faults.fail_next(endpoint, fault, after=after)
    return bench.run()


def once(bench: Bench, fault: str) -> str:
    """The fault hits one page of the listing, one request for sessions and one for events."""
    unharmed = bench.run(Order(only=("users",)))
    assert unharmed is not None
    report = meets(bench, fault, {"leads": 1, "sessions": 1, "events": 1})
    if report is None:
        return "The run fails"
    if report.stopped == "quota":
        return "The run ends early and keeps what it read"
    if report.refusals.get("events"):
        return "Waited out, then sent again"
    failed = [request for request in bench.server.requests if request.fault == fault]
    repeated = sum(r.params == failed[-1].params for r in bench.server.requests) > 1
    if report.set_aside:
        return "That record is set aside; a page's window is listed anew"
    return "Sent again; a page's window is listed anew" if repeated else "Nothing: it arrives"


def always_for_one(bench: Bench, fault: str) -> str:
    """Every request for one session's events meets the fault."""
    # not a first visit, whose id is the user's
    user = max(bench.site.world.user_ids(), key=lambda user: len(bench.site.world.session_records(user) or ()))
    session = (bench.site.world.session_records(user) or [])[0]["session_id"]
    bench.server.faults = Faults(hang_s=1.5)
    bench.server.faults.poison(session, fault)
    report = bench.run()
    if report is None:
        return "The run fails"
    if report.stopped == "quota":
        return "The run ends early; it is set aside"
    if report.set_aside:
        assert set(bench.loader.remembered("events").set_aside) == {session}
        return "It is set aside, all others arrive"
    return "Nothing: it arrives"


def always_for_all(bench: Bench, fault: str) -> tuple[str, str, str]:
    """After a first slice, every request meets the fault: what happens, what is kept, what is read."""
    assert bench.run(Order(max_requests=12, chunk_size=1)) is not None
    before = bench.loader.rows()
    assert before.events, "the first slice loaded something"
    bench.server.faults = Faults({fault: 1.0}, hang_s=1.5)
    report = bench.run()
    assert len(bench.server.requests) < 40, "it does not hammer a server in trouble"
    after = bench.loader.rows()
    if report is not None and report.stopped == "covered":
        return "Nothing: all arrives", "Everything", ""
    assert after == before, "nothing of what earlier runs loaded is lost, nothing new is half there"
    if report is not None:
        return "The run ends early, exit code 3", "Everything", f"`stopped: {report.stopped}`"
    error = bench.loader.error
    assert error is not None
    assert bench.server.key not in str(error)
    return f"The run fails, exit code {error.exit_code}", "What earlier runs loaded", spoken(error, bench)


def spoken(error: Exception, bench: Bench) -> str:
    host = bench.loader.base_url.split("/")[2]
    return str(error).replace(host, "api.leadboxer.com")


LINES: dict[str, Line] = {}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_fault_does(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[str] = []
    for part in (once, always_for_one, always_for_all):
        bench = Bench(monkeypatch)
        try:
            told = part(bench, fault)
            cells += [told] if isinstance(told, str) else told
            bench.assert_next_runs_end_equal_to_truth()
        finally:
            bench.server.stop()
    LINES[fault] = Line(*cells)
    assert_stands_in_the_docs(FAULTS[fault], LINES[fault])


def test_an_unknown_host_is_told(bench: Bench) -> None:
    bench.loader.base_url = "https://leadboxer.invalid/v1"
    assert bench.run() is None
    line = Line("", "", "The run fails, exit code 1", "What earlier runs loaded", spoken(bench.loader.error, bench))  # type: ignore[arg-type]  # it died
    assert_stands_in_the_docs("The host name does not resolve", line)


def test_an_expired_certificate_is_told(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with expired_tls(tmp_path) as address:
        bench.loader.base_url = address
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "expired.pem"))
        assert bench.run() is None
    line = Line("", "", "The run fails, exit code 6", "What earlier runs loaded", spoken(bench.loader.error, bench))  # type: ignore[arg-type]  # it died
    assert_stands_in_the_docs("The TLS certificate has expired", line)


def test_every_fault_of_the_sandbox_is_in_the_table() -> None:
    # an empty list is an answer: whether it is true no client can tell (docs/promises.md)
    assert set(FAULTS) == NAMES - {"empty_list"}


def test_at_a_fifth_of_faulty_requests_500_users_end_equal_to_the_truth() -> None:
    clock = HandClock()
    world = World(seed=4, users=500, days=60, now_ms=clock.now_ms)
    server = Sandbox(world, profile=Profile(max_limit=50), rate_limit=None, clock=clock.time)
    server.faults = Faults.mixed(0.2, seed=2)
    site = Site(clock, world, server)
    oracle = Oracle(site, InMemory(server, world.site, clock))
    for _ in range(20):
        report = site.run(oracle.loader, Order(chunk_size=50, max_requests=600))
        oracle.assert_sentence_holds()
        if report is not None and report.complete:
            break
    oracle.assert_equal_to_truth(None)
    assert not oracle.loader.remembered("events").set_aside


def assert_stands_in_the_docs(name: str, line: Line) -> None:
    """With LEADBOXER_WRITE_DOCS set, puts the line there instead."""
    row = "| " + " | ".join((name, *line)) + " |"
    page = PAGE.read_text() if PAGE.exists() else HEAD
    if os.environ.get("LEADBOXER_WRITE_DOCS"):
        kept = [old for old in page.splitlines() if not old.startswith(f"| {name} |")]
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text("\n".join([*kept, row]) + "\n")
    else:
        assert row in page.splitlines(), "`make docs-faults` writes the page anew"


HEAD = """# What each fault does

Written by `make docs-faults` from what `tests/test_faults.py` sees over real HTTP; the tests fail when it is not true
any more. *Once*: the fault hits one page of the listing, one request for sessions and one for events. *For one*: every
request for one session meets it. *For all*: after a first slice, every request meets it. After each of them, runs
without the fault end equal to the truth.

| Fault | Once | For one | For all | Then kept | Then read |
|---|---|---|---|---|---|
"""


@contextmanager
def expired_tls(folder: Path) -> Iterator[str]:
    """A server on loopback whose certificate, trusted otherwise, ran out yesterday."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "expired.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "expired.pem")
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the refused handshake is what is tested
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()
