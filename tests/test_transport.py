"""How a request is sent: at which pace, how often, with what, and what comes of each answer."""

from __future__ import annotations

import sqlite3
import threading
import time
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from requests.adapters import BaseAdapter

from leadboxer_source import errors, settings
from leadboxer_source.clock import SystemClock
from leadboxer_source.pace import Pace, Told, told_by
from leadboxer_source.settings import RateLimit, Settings
from leadboxer_source.stores import Place
from leadboxer_source.transport import Reply, Transport

KEY = "key-that-opens-nothing"
NOW = 1_795_000_000.0


class Clock:
    """Jumps wherever somebody wants to sleep to."""

    def __init__(self) -> None:
        self.now_s = NOW
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now_s

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        assert not stop.is_set()
        self.slept.append(seconds)
        self.now_s += seconds


class Wire(BaseAdapter):
    """Answers as scripted: a status, (status, body), (status, body, headers), or an error; 200 and `{}` after that."""

    def __init__(self, *script: Any) -> None:
        super().__init__()
        self.script = list(script)
        self.sent: list[requests.PreparedRequest] = []
        self.given: list[dict[str, Any]] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **given: Any) -> requests.Response:
        self.sent.append(request)
        self.given.append(given)
        said = self.script.pop(0) if self.script else 200
        if isinstance(said, Exception):
            raise said
        status, body, headers = (*(said if isinstance(said, tuple) else (said,)), {}, {})[:3]
        response = requests.Response()
        response.status_code, response.request, response.url = status, request, str(request.url)
        response._content = body if isinstance(body, bytes) else orjson.dumps(body)
        response.headers.update(headers)
        return response

    def close(self) -> None:
        pass


class Line:
    """A transport on a scripted wire."""

    def __init__(self, *script: Any, answered: set[str] | None = None, **config: Any) -> None:
        given = {"base_url": "https://api.example/v1", "rate_limit": None, "limiter_store": ":memory:", **config}
        self.clock = Clock()
        self.wire = Wire(*script)
        self.transport = Transport(Settings("0" * 32, KEY, **given), self.clock, answered)
        self.transport._session.mount("https://", self.wire)

    def get(self, path: str = "leads", *, resend: bool = True, **params: Any) -> Reply:
        return self.transport.get("leads", path, params, resend=resend)

    @property
    def urls(self) -> list[str]:
        return [str(request.url) for request in self.wire.sent]


class TestWhatA429Tells:
    @pytest.mark.parametrize(
        ("headers", "body", "wait"),
        [
            ({"Retry-After": "7"}, {"retry-after": 3, "rate-limit-reset": NOW + 9}, 7.0),
            ({}, {"retry-after": 3, "rate-limit-reset": NOW + 9}, 3.0),
            ({}, {"rate-limit-reset": NOW + 9}, 9.0),
            ({"Retry-After": "0"}, {"retry-after": -5, "rate-limit-reset": NOW + 9}, 9.0),
            ({"Retry-After": "soon"}, {"retry-after": None}, None),
            ({}, {"rate-limit-reset": NOW - 1}, None),
            ({}, {"rate-limit-reset": NOW}, None),
            ({}, {"rate-limit-reset": 0}, None),
            ({"Retry-After": "0.5"}, {}, 0.5),
            ({}, [], None),
            ({}, None, None),
            ({"Retry-After": "nan"}, {"retry-after": "4"}, 4.0),
            ({"Retry-After": "inf"}, {"retry-after": "4"}, 4.0),
            ({"Retry-After": "Wed, 18 Nov 2026 11:07:40 GMT"}, {"retry-after": 3}, 60.0),
            ({"Retry-After": "Wednesday, 18-Nov-26 11:07:40 GMT"}, {"retry-after": 3}, 60.0),
            ({"Retry-After": "Wed Nov 18 11:07:40 2026"}, {"retry-after": 3}, 60.0),
            ({"Retry-After": "Wed, 18 Nov 2026 11:06:40 GMT"}, {"retry-after": 3}, 3.0),
            ({"Retry-After": "Wed, 18 Nov 2026 11:05:40 GMT"}, {}, None),
        ],
    )
    def test_how_long_to_wait(self, headers: dict[str, str], body: Any, wait: float | None) -> None:
        assert told_by(headers, body, NOW).wait_seconds == wait

    @pytest.mark.parametrize(
        ("count", "period", "rate"),
        [
            (10, "minute", RateLimit(10, 60.0)),
            ("2", "Second", RateLimit(2, 1.0)),
            (1, "hour", RateLimit(1, 3_600.0)),
            (500, "day", RateLimit(500, 86_400.0)),
            (500, "month", RateLimit(500, 30 * 86_400.0)),
            (2.9, "minute", RateLimit(2, 60.0)),
            (0.5, "minute", None),
            (0, "minute", None),
            (-1, "minute", None),
            (10, "fortnight", None),
            (10, None, None),
            (None, "minute", None),
        ],
    )
    def test_which_limit_was_hit(self, count: Any, period: Any, rate: RateLimit | None) -> None:
        assert told_by({}, {"rate-limit": count, "rate-limit-period": period}, NOW) == Told(None, rate)


def _place(store: Path | None) -> Place | None:
    return Place(str(store), "account") if store else None


class TestPace:
    def pace(self, rate: RateLimit | None, store: Path | None = None) -> tuple[Pace, Clock, threading.Event]:
        clock, stop = Clock(), threading.Event()
        return Pace(rate, clock, stop, _place(store), "leads"), clock, stop

    @pytest.mark.parametrize("stored", [False, True])
    def test_never_more_than_the_limit_in_any_window_and_hardly_less(self, tmp_path: Path, stored: bool) -> None:
        pace, clock, _ = self.pace(
            RateLimit(3, 60.0), tmp_path / "deep" / "deeper" / "store.sqlite" if stored else None
        )
        stamps = []
        for _ in range(10):
            pace.acquire()
            stamps.append(clock.now_s)
        pace.close()
        assert stamps[:3] == [NOW] * 3
        assert all(later - earlier >= 60 for earlier, later in zip(stamps, stamps[3:], strict=False))
        assert stamps[-1] - NOW <= 3 * 61

    def test_an_acquired_slot_tells_how_long_it_took(self) -> None:
        pace, clock, _ = self.pace(RateLimit(1, 1.0))
        assert pace.acquire() == 0
        assert pace.waiting_until == 0.0
        waited = pace.acquire()
        assert 1.0 <= waited <= 1.1
        assert waited == pytest.approx(clock.now_s - NOW)
        assert waited == pytest.approx(pace.waited_seconds)
        assert pace.waiting_until == pytest.approx(clock.now_s, abs=0.01)

    def test_without_a_limit_nothing_waits_unless_the_server_says_so(self) -> None:
        pace, _, _ = self.pace(None)
        assert [pace.acquire() for _ in range(50)] == [0.0] * 50
        pace.learn(RateLimit(1, 60.0))
        assert pace.acquire() == 0.0
        pace.hold(7)
        assert pace.acquire() == pytest.approx(7)
        assert (pace.burst, pace.seconds_for(10)) == (settings.LANE_WORKERS, 0.0)

    def test_of_two_holds_the_longer_one_counts(self) -> None:
        pace, _, _ = self.pace(RateLimit(9, 1.0))
        pace.hold(7)
        pace.hold(3)
        assert pace.acquire() == pytest.approx(7)

    def test_a_lower_limit_is_taken_over_and_a_higher_one_lifts_it_up_to_the_configured_one(self) -> None:
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        pace.learn(RateLimit(2, 60.0))
        assert (pace.burst, pace.seconds_for(4)) == (2, 120.0)
        assert [pace.acquire() for _ in range(2)] == [0.0, 0.0]
        assert pace.acquire() >= 60
        pace.learn(RateLimit(1_000, 60.0))
        assert (pace.burst, pace.seconds_for(4)) == (10, 24.0)
        clock.now_s += 100
        assert sum(pace.acquire() == 0 for _ in range(10)) == 10
        assert pace.acquire() > 0

    @pytest.mark.parametrize(
        ("told", "at_once", "ten_take"),
        [
            (RateLimit(1_000, 86_400.0), 10, 864.0),  # slower by the day, as fast at first
            (RateLimit(5, 86_400.0), 5, 172_800.0),
            (RateLimit(4, 1.0), 4, 60.0),  # faster by the minute, slower at first
            (RateLimit(20, 120.0), 10, 60.0),  # what is configured keeps to it as well
            (RateLimit(19, 120.0), 10, 10 * 120 / 19),
            (RateLimit(10, 1.0), 10, 60.0),
            (RateLimit(11, 61.0), 10, 60.0),
        ],
    )
    def test_a_limit_of_another_period_holds_beside_the_configured_one(
        self, told: RateLimit, at_once: int, ten_take: float
    ) -> None:
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        pace.learn(told)
        assert (pace.burst, pace.free) == (at_once, at_once)
        assert pace.seconds_for(10) == pytest.approx(ten_take)
        stamps = []
        for _ in range(25):
            pace.acquire()
            stamps.append(clock.now_s)
            if clock.now_s > NOW + 59:
                break
        for limit in (told, RateLimit(10, 60.0)):
            windows = zip(stamps, stamps[limit.requests :], strict=False)
            assert all(later - earlier >= limit.period_seconds for earlier, later in windows)
        assert stamps[at_once - 1] == NOW, "as many as may go do go at once"

    def test_a_minutes_limit_and_a_days_are_learned_beside_each_other(self) -> None:
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        pace.learn(RateLimit(3, 86_400.0))
        pace.learn(RateLimit(2, 60.0))
        assert [pace.acquire() for _ in range(2)] == [0.0, 0.0]
        assert 60 <= pace.acquire() <= 61
        assert pace.acquire() > 86_000
        assert clock.now_s < NOW + 1.02 * 86_400

    @pytest.mark.parametrize(("held", "believed"), [(0, 60), (50, 110)])
    def test_after_a_period_without_a_refusal_a_lower_limit_is_believed_no_more(self, held: int, believed: int) -> None:
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        pace.hold(held)
        pace.learn(RateLimit(1, 60.0))
        clock.now_s = NOW + believed - 0.1
        pace.acquire()
        assert pace.burst == 1
        clock.now_s = NOW + believed
        pace.acquire()
        assert pace.burst == 10

    def test_a_refusal_within_the_period_has_it_believed_for_longer(self) -> None:
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        for _ in range(3):
            pace.learn(RateLimit(5, 60.0))
            clock.now_s += 59
            pace.acquire()
            assert pace.burst == 5
        clock.now_s += 61
        pace.acquire()
        assert pace.burst == 10

    @pytest.mark.parametrize(
        ("told", "believed_s"), [(RateLimit(2, 1.0), 60), (RateLimit(20, 3_600.0), 3_600), (RateLimit(2, 60.0), 60)]
    )
    def test_it_is_believed_for_the_longer_one_of_both_periods(self, told: RateLimit, believed_s: float) -> None:
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        pace.learn(told)
        narrowed = (pace.burst, pace.seconds_for(1))
        clock.now_s = NOW + believed_s - 0.1
        pace.acquire()
        assert (pace.burst, pace.seconds_for(1)) == narrowed
        clock.now_s = NOW + believed_s
        pace.acquire()
        assert (pace.burst, pace.seconds_for(1)) == (10, 6.0)

    def test_where_it_is_believed_no_more_requests_go_evenly_for_a_period(self) -> None:
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        pace.learn(RateLimit(2, 60.0))
        clock.now_s += 60
        assert [pace.acquire() for _ in range(10)] == [0.0, *[pytest.approx(6.0)] * 9]
        clock.now_s += 100
        assert [pace.acquire() for _ in range(10)] == [0.0] * 10

    @pytest.mark.parametrize("least", range(1, 10))
    def test_a_server_that_allows_less_for_good_refuses_once_in_a_period_at_the_most(self, least: int) -> None:
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        passed: list[float] = []
        refused: list[float] = []
        while clock.now_s < NOW + 1_800:
            pace.acquire()
            last = [at for at in passed if at > clock.now_s - 60]
            if len(last) < least:
                passed.append(clock.now_s)
            else:
                refused.append(clock.now_s)
                pace.hold(1.02 * (last[0] + 60 - clock.now_s))
                pace.learn(RateLimit(least, 60.0))
        assert all(later - earlier > 60 for earlier, later in pairwise(refused))
        assert len(passed) > 0.8 * 30 * least

    @pytest.mark.parametrize("least", [1, 5, 9])
    def test_a_server_that_allows_less_for_a_while_is_used_in_full_again_soon_after(self, least: int) -> None:
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        pace.hold(30)
        pace.learn(RateLimit(least, 60.0))
        sent: list[float] = []
        while clock.now_s < NOW + 600:
            pace.acquire()
            sent.append(clock.now_s)
        assert sum(at >= NOW + 152 for at in sent) >= 70, "ten a minute from the third minute on"

    def test_the_limit_that_is_learned_is_told_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        logged: list[str] = []
        monkeypatch.setattr("leadboxer_source.pace.logger.warning", logged.append)
        pace, clock, _ = self.pace(RateLimit(10, 60.0))
        for told in (2, 2, 3, 2, 10, 11):
            pace.learn(RateLimit(told, 60.0))
            clock.now_s += 61
            pace.acquire()
        assert logged == [
            "LeadBoxer allows 2 requests in 60 s; adapting.",
            "LeadBoxer allows 3 requests in 60 s; adapting.",
        ]

    def test_whoever_waits_is_released_when_the_run_ends(self) -> None:
        pace, _, stop = self.pace(RateLimit(1, 60.0))
        stop.set()
        with pytest.raises(errors.Cancelled, match=r"^The run ended before this request was sent\.$"):
            pace.acquire()

    def test_stamps_from_the_future_are_forgotten(self) -> None:
        pace, clock, _ = self.pace(RateLimit(1, 60.0))
        pace.acquire()
        clock.now_s -= 5_000
        pace.acquire()
        assert clock.now_s - (NOW - 5_000) < 6_000
        assert pace.acquire() < 70

    def test_a_closed_pace_has_given_its_store_back(self, tmp_path: Path) -> None:
        pace, _, _ = self.pace(RateLimit(2, 60.0), tmp_path / "store.sqlite")
        pace.acquire()
        pace.close()
        with pytest.raises((sqlite3.ProgrammingError, AttributeError)):
            pace.acquire()
        self.pace(None)[0].close()

    def test_two_with_one_store_share_its_budget(self, tmp_path: Path) -> None:
        store = tmp_path / "store.sqlite"
        one, clock, _ = self.pace(RateLimit(2, 60.0), store)
        other = Pace(RateLimit(2, 60.0), clock, threading.Event(), _place(store), "leads")
        elsewhere = Pace(RateLimit(2, 60.0), clock, threading.Event(), _place(store), "events")
        assert one.acquire() + other.acquire() == 0
        assert elsewhere.acquire() == 0
        assert other.acquire() > 59
        for pace in (one, other, elsewhere):
            pace.close()

    @pytest.mark.parametrize("later_s", [0.001, 0.02, 5.0])
    def test_a_stamp_that_another_has_put_a_moment_later_holds_back_all_the_same(
        self, tmp_path: Path, later_s: float
    ) -> None:
        store = tmp_path / "store.sqlite"
        one, clock, _ = self.pace(RateLimit(2, 60.0), store)
        other, _, _ = self.pace(RateLimit(2, 60.0), store)
        clock.now_s += later_s
        assert one.acquire() + one.acquire() == 0
        assert other.acquire() > 60
        for pace in (one, other):
            pace.close()


class TestRequests:
    def test_an_answer_brings_its_json_and_the_servers_clock(self) -> None:
        line = Line((200, {"data": [1]}, {"Date": "Wed, 18 Nov 2026 11:06:40 GMT"}))
        assert line.get(site="x", limit=3) == Reply({"data": [1]}, 1_795_000_000_000)
        (sent,) = line.wire.sent
        assert (sent.method, line.urls) == ("GET", ["https://api.example/v1/leads?site=x&limit=3"])

    def test_a_date_that_names_no_zone_is_in_utc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            assert Line((200, {}, {"Date": "Wed Nov 18 11:06:40 2026"})).get().server_ms == 1_795_000_000_000
        finally:
            monkeypatch.undo()
            time.tzset()

    @pytest.mark.parametrize("date", [None, "", "soon"])
    def test_a_clock_that_is_not_told_is_not_known(self, date: str | None) -> None:
        assert Line((200, {}, {"Date": date} if date is not None else {})).get().server_ms is None

    def test_the_key_travels_in_its_header_and_nowhere_else(self) -> None:
        line = Line()
        line.get(site="x")
        (sent,) = line.wire.sent
        assert sent.headers["x-api-key"] == KEY
        assert sent.headers["Accept"] == "application/json"
        assert KEY not in str(sent.url)

    def test_a_silent_server_is_not_waited_for_for_ever(self) -> None:
        line = Line()
        line.get()
        assert line.wire.given[0]["timeout"] == (settings.CONNECT_SECONDS, settings.READ_SECONDS)

    def test_cookies_are_not_kept(self) -> None:
        line = Line((200, {}, {"Set-Cookie": "a=b; Domain=api.example"}))
        line.get()
        line.get()
        assert "Cookie" not in line.wire.sent[1].headers

    def test_proxies_and_certificates_of_the_environment_hold(self, monkeypatch: Any) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:8080")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/bundle.pem")
        line = Line()
        line.get()
        assert line.wire.given[0]["proxies"]["https"] == "http://proxy.example:8080"
        assert line.wire.given[0]["verify"] == "/bundle.pem"

    def test_the_environment_is_read_once(self, monkeypatch: Any) -> None:
        line = Line()
        monkeypatch.setenv("HTTPS_PROXY", "http://late.example:8080")
        line.get()
        assert "https" not in line.wire.given[0]["proxies"]

    def test_every_attempt_is_counted_and_pays_for_its_slot(self) -> None:
        line = Line(500, (429, {"retry-after": 3}), 200, rate_limit=RateLimit(1, 60.0))
        line.get()
        assert line.transport.requests == {"leads": 3}
        assert line.transport.refusals == {"leads": 1}
        assert line.clock.now_s - NOW >= 120
        assert line.transport.waited_seconds["leads"] == pytest.approx(sum(line.clock.slept) - 1.125, abs=0.2)

    def test_paces_are_one_for_each_endpoint(self) -> None:
        line = Line(rate_limit=RateLimit(1, 60.0))
        line.get()
        line.transport.get("events", "leads/events", {})
        assert line.clock.slept == []
        assert line.transport.pace("leads") is line.transport.pace("leads")
        assert line.transport.pace("leads") is not line.transport.pace("events")

    def test_endpoints_have_budgets_of_their_own_in_a_shared_file(self, tmp_path: Path) -> None:
        line = Line(rate_limit=RateLimit(1, 60.0), limiter_store=str(tmp_path / "mine.sqlite"))
        line.get()
        line.transport.get("events", "leads/events", {})
        assert line.clock.slept == []
        line.transport.close()

    def test_a_request_is_sent_again_unless_told_otherwise(self) -> None:
        line = Line(500)
        assert line.transport.get("events", "leads/events", {}).body == {}

    def test_close_releases_those_who_wait(self) -> None:
        line = Line(rate_limit=RateLimit(1, 60.0))
        line.get()
        line.transport.close()
        with pytest.raises(errors.Cancelled):
            line.get()

    def test_runs_of_one_account_share_its_budget_and_the_file_does_not_hold_the_key(
        self, tmp_path: Path, monkeypatch: Any
    ) -> None:
        monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path))

        def waits(**config: Any) -> bool:
            line = Line(rate_limit=RateLimit(1, 60.0), limiter_store=None, **config)
            line.get()
            line.transport.close()
            return bool(line.clock.slept)

        assert [waits(), waits(), waits(base_url="https://other.example/v1")] == [False, True, False]
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert kept
        assert not any(KEY.encode() in path.read_bytes() for path in kept)

    def test_the_budgets_file_can_be_named(self, tmp_path: Path) -> None:
        line = Line(rate_limit=RateLimit(9, 1.0), limiter_store=str(tmp_path / "mine.sqlite"))
        line.get()
        line.transport.close()
        assert (tmp_path / "mine.sqlite").exists()


BROKEN: list[tuple[Any, str]] = [
    (500, "status 500"),
    (599, "status 599"),
    (408, "status 408"),
    ((200, b""), "torn or empty JSON"),
    ((200, b'{"data": ['), "torn or empty JSON"),
    ((200, {"responseCode": 17}), "responseCode 17"),
    (requests.ConnectionError("Connection refused"), "connection refused"),
    (requests.ConnectionError("reset by peer"), "the connection broke"),
    (requests.exceptions.ChunkedEncodingError("cut"), "the connection broke"),
    (requests.ReadTimeout("slow"), "time-out"),
    (requests.ConnectionError("Failed to resolve 'x'"), "the host name is unknown"),
    (requests.ConnectionError("Name or service not known"), "the host name is unknown"),
    (requests.ConnectionError("nodename nor servname provided"), "the host name is unknown"),
]


ADDRESS_UNKNOWN = requests.ConnectionError("Failed to resolve 'x'")
ADDRESS_REFUSES = requests.ConnectionError("Connection refused")
WEB_PAGE = (200, b"\n <html>")


class TestFailures:
    @pytest.mark.parametrize(("broken", "told"), BROKEN)
    def test_what_may_pass_is_tried_again_and_then_told(self, broken: Any, told: str) -> None:
        line = Line(*[broken] * 2)
        assert line.get() == Reply({}, None)
        line = Line(*[broken] * 99)
        with pytest.raises(errors.ApiUnavailable) as error:
            line.get()
        assert str(error.value).startswith(f"api.example did not answer leads as LeadBoxer does: {told}; ")
        remedies = {
            "the host name is unknown": "check base_url, and whether this machine is online.",
            "connection refused": "check base_url, proxy and firewall.",
        }
        assert str(error.value).endswith(f"; {remedies.get(told, 'what was loaded is kept, run again later.')}")

    @pytest.mark.parametrize(("text", "told"), [("not resolved", "unknown"), ("Connection refused", "refused")])
    def test_an_address_that_answered_once_is_no_typing_error(self, text: str, told: str) -> None:
        line = Line(200, *[requests.ConnectionError(text)] * 99)
        line.get()
        with pytest.raises(errors.ApiUnavailable, match=f"{told}; what was loaded is kept, run again later"):
            line.get()

    def attempts(self, *script: Any, answered: set[str] | None = None) -> int:
        line = Line(*script, answered=answered)
        if script[0] == 200:
            line.get()
        with pytest.raises((errors.ApiUnavailable, errors.NotLeadBoxer)):
            line.get()
        return len(line.wire.sent)

    @pytest.mark.parametrize("wrong", [ADDRESS_UNKNOWN, ADDRESS_REFUSES, WEB_PAGE])
    def test_a_wrong_address_is_told_soon(self, wrong: Any) -> None:
        assert self.attempts(*[wrong] * 99) == settings.FIRST_ATTEMPTS

    @pytest.mark.parametrize("trouble", [500, 503, (200, b"torn"), (200, {"responseCode": 17}), (502, b"<html>")])
    @pytest.mark.parametrize("then", [None, ADDRESS_UNKNOWN, ADDRESS_REFUSES, WEB_PAGE])
    def test_whatever_is_answered_shows_that_the_address_is_right(self, trouble: Any, then: Any) -> None:
        assert self.attempts(trouble, *[then or trouble] * 98) == settings.ATTEMPTS

    def test_a_refusal_for_quota_shows_it_too(self) -> None:
        assert self.attempts((429, {"retry-after": 1}), *[ADDRESS_REFUSES] * 98) == 1 + settings.ATTEMPTS

    @pytest.mark.parametrize("trouble", [requests.ReadTimeout("slow"), requests.ConnectionError("reset by peer")])
    def test_what_does_not_speak_against_the_address_is_sat_out(self, trouble: Any) -> None:
        assert self.attempts(*[trouble] * 99) == settings.ATTEMPTS

    @pytest.mark.parametrize("trouble", [500, ADDRESS_REFUSES, WEB_PAGE])
    def test_trouble_after_an_answer_is_sat_out(self, trouble: Any) -> None:
        assert self.attempts(200, *[trouble] * 98) == 1 + settings.ATTEMPTS

    def test_what_one_connection_knows_of_an_address_the_next_one_knows(self) -> None:
        answered: set[str] = set()
        Line(200, answered=answered).get()
        assert self.attempts(*[ADDRESS_REFUSES] * 99, answered=answered) == settings.ATTEMPTS
        other = Line(*[ADDRESS_REFUSES] * 99, answered=answered, base_url="https://other.example/v1")
        with pytest.raises(errors.ApiUnavailable, match="check base_url"):
            other.get()
        assert len(other.wire.sent) == settings.FIRST_ATTEMPTS

    def test_why_it_is_sent_again_is_told_until_it_is_answered(self) -> None:
        line, told = Line(503, 500, 200), []
        line.transport.pace("events").on_wait = lambda: told.append(dict(line.transport.failing))
        line.transport.get("events", "leads/events", {})
        assert told == [{"events": "status 503"}, {"events": "status 500"}]
        assert line.transport.failing == {}

    def test_the_waits_between_grow_with_some_jitter(self) -> None:
        line = Line(200, *[500] * 99)
        line.get()
        with pytest.raises(errors.ApiUnavailable):
            line.get()
        for number, slept in enumerate(line.clock.slept):
            assert 2**number <= slept <= 1.25 * 2**number
        assert len(line.clock.slept) == settings.ATTEMPTS - 1
        assert len({slept / 2**number for number, slept in enumerate(line.clock.slept)}) > 1

    @pytest.mark.parametrize(("asked", "least", "most"), [("30", 30, 30), ("999", 120, 120), ("-3", 1, 1.25)])
    def test_a_wait_that_a_broken_server_asks_for_is_kept_within_bounds(
        self, asked: str, least: float, most: float
    ) -> None:
        line = Line((503, {}, {"Retry-After": asked}))
        line.get()
        assert least <= line.clock.slept[0] <= most

    @pytest.mark.parametrize("hours_ahead", [-1, 0, 1])
    def test_a_date_up_to_which_a_broken_server_asks_to_wait_is_one_of_its_own_clock(self, hours_ahead: int) -> None:
        server_s = NOW + 3_600 * hours_ahead
        dates = {"Date": formatdate(server_s, usegmt=True), "Retry-After": formatdate(server_s + 30, usegmt=True)}
        line = Line((503, {}, dates))
        line.get()
        assert line.clock.slept == [30]

    def test_a_token_is_sent_once(self) -> None:
        line = Line(500)
        with pytest.raises(errors.ApiUnavailable):
            line.get(resend=False)
        assert len(line.wire.sent) == 1

    def test_a_web_page_is_somebody_else(self) -> None:
        line = Line(*[(200, b"\n <html>")] * 9)
        with pytest.raises(errors.NotLeadBoxer) as error:
            line.get()
        assert str(error.value) == (
            "api.example did not answer leads as LeadBoxer does: no JSON but a web page; "
            "check base_url and any proxy in between."
        )

    @pytest.mark.parametrize("code", [0, "0", None])
    def test_a_response_code_of_zero_is_success(self, code: Any) -> None:
        assert Line((200, {"responseCode": code})).get().body == {"responseCode": code}

    def test_a_failing_run_that_ends_is_not_kept_by_its_retries(self) -> None:
        line = Line(*[500] * 99)
        line.transport.stop.set()
        with pytest.raises(errors.Cancelled):
            line.get()

    @pytest.mark.parametrize(
        ("status", "kind", "told"),
        [
            (401, errors.CredentialsRejected, "LeadBoxer does not know this API key (401); copy it again from the App "
             "(Integrations, Data, API key)."),
            (402, errors.PaymentRequired, "The LeadBoxer account has spent its free tier (402); add a card or wait for "
             "the next month."),
            (403, errors.AccessDenied, "This API key may not read this dataset (403); check that `site` belongs to the "
             "key's account."),
        ],
    )  # fmt: skip
    def test_what_a_repetition_cannot_help_ends_at_once(self, status: int, kind: type[Exception], told: str) -> None:
        line = Line(status)
        with pytest.raises(kind) as error:
            line.get()
        assert str(error.value) == told
        assert len(line.wire.sent) == 1

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            ({"detail": "Bad filter", "message": "no"}, " (Bad filter)"),
            ({"message": "Bad filter"}, " (Bad filter)"),
            ({}, ""),
            (b"<html>", ""),
            ([], ""),
            ({"detail": "mail ada@widgets.example of 1783024862163.75 now"}, " (mail ... of ... now)"),
            ({"detail": "tel 1234567"}, " (tel ...)"),
            ({"detail": "id 123456 \n is fine"}, " (id 123456 is fine)"),
            ({"detail": "x" * 300}, f" ({'x' * 200})"),
            ({"detail": "no\x1b[2J\x9b such\u202e é"}, " (no [2J such é)"),
        ],
    )
    @pytest.mark.parametrize("status", [300, 400, 404, 422])
    def test_a_refusal_is_told_in_one_line_without_ids_and_addresses(self, status: int, body: Any, told: str) -> None:
        with pytest.raises(errors.RequestRefused) as error:
            Line((status, body)).get()
        # the listing itself is never gone: the address is wrong
        hint = "; base_url has to end in /v1" if status == 404 else ""
        assert str(error.value) == f"LeadBoxer refused leads with status {status}{told}{hint}."
        assert error.value.status == status

    def test_a_certificate_that_cannot_be_trusted_is_not_tried_again(self) -> None:
        line = Line(requests.exceptions.SSLError("expired"))
        with pytest.raises(errors.NotLeadBoxer) as error:
            line.get()
        assert str(error.value) == (
            "The TLS certificate of api.example cannot be trusted; check base_url and any proxy in between."
        )


class TestRedirects:
    def test_within_the_host_they_are_followed(self) -> None:
        line = Line((301, {}, {"Location": "/v2/leads?site=x"}), (200, {"data": []}))
        assert line.get(site="x").body == {"data": []}
        assert line.urls[1] == "https://api.example/v2/leads?site=x"

    def test_each_of_them_pays_for_its_slot_and_is_counted(self) -> None:
        hops = [(301, {}, {"Location": "/v2/a/leads"}), (302, {}, {"Location": "b"}), (429, {"retry-after": 3})]
        line = Line(*hops, (200, {"data": []}), rate_limit=RateLimit(1, 60.0))
        line.get(site="x")
        below = "https://api.example/v2/a"
        assert line.urls == ["https://api.example/v1/leads?site=x", f"{below}/leads", f"{below}/b", f"{below}/b"]
        assert line.transport.requests == {"leads": 4}
        assert line.transport.refusals == {"leads": 1}
        assert line.clock.now_s - NOW >= 180

    def test_a_redirection_without_an_address_is_none(self) -> None:
        with pytest.raises(errors.RequestRefused, match="status 302"):
            Line(302).get()

    @pytest.mark.parametrize("target", ["https://evil.example/v1/leads", "http://api.example/v1/leads"])
    def test_to_another_host_or_without_tls_they_are_not(self, target: str) -> None:
        line = Line((302, {}, {"Location": target}))
        with pytest.raises(errors.NotLeadBoxer) as error:
            line.get()
        assert str(error.value) == (
            "api.example redirects to another host, where the key must not go; correct base_url."
        )
        assert len(line.wire.sent) == 1

    def test_in_a_circle_they_are_followed_three_times(self) -> None:
        line = Line(*[(302, {}, {"Location": "/v1/leads"})] * 9)
        with pytest.raises(errors.RequestRefused, match="status 302"):
            line.get()
        assert len(line.wire.sent) == 4
        line = Line(*[(302, {}, {"Location": "/v1/leads"})] * 3, (200, {"data": []}))
        assert line.get().body == {"data": []}


class TestQuota:
    def waits(self, *script: Any) -> list[float]:
        line = Line(*script)
        line.get()
        return line.clock.slept

    @pytest.mark.parametrize("hours_ahead", [-1, 1])
    def test_when_it_ends_is_told_by_the_servers_clock(self, hours_ahead: int) -> None:
        server_s = NOW + 3_600 * hours_ahead
        refused = 429, {"rate-limit-reset": server_s + 9}, {"Date": formatdate(server_s, usegmt=True)}
        assert 9 <= sum(self.waits(refused)) < 10

    @pytest.mark.parametrize("hours_ahead", [-1, 0, 1])
    def test_a_date_in_its_header_is_one_of_the_servers_clock(self, hours_ahead: int) -> None:
        server_s = NOW + 3_600 * hours_ahead
        dates = {"Date": formatdate(server_s, usegmt=True), "Retry-After": formatdate(server_s + 9, usegmt=True)}
        assert 9 <= sum(self.waits((429, {}, dates))) < 10

    @pytest.mark.parametrize(
        ("body", "told"),
        [({"retry-after": 7}, 7), ({}, 60), ({"retry-after": 850}, 850), ({"rate-limit-reset": NOW + 9}, 9)],
    )
    @pytest.mark.parametrize("jitter", [1.02, 1.05])
    def test_a_refusal_is_waited_out_as_told_or_else_for_a_minute(
        self, body: Any, told: float, jitter: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("random.uniform", lambda low, high: low if jitter == low else high)
        assert self.waits((429, body)) == [pytest.approx(told * jitter)]

    def test_waiting_for_quota_is_no_failed_attempt(self) -> None:
        assert len(self.waits(*[(429, {"retry-after": 1})] * 10)) == 10

    def test_a_server_that_keeps_refusing_is_given_more_time_each_time(self) -> None:
        waits = self.waits(*[(429, {"retry-after": 1})] * 9)
        for number, waited in enumerate(waits):
            least = max(1.0, min(2.0**number - 1, 60.0))
            assert 1.02 * least <= waited <= 1.05 * least + 0.001

    @pytest.mark.parametrize(
        ("script", "hours"),
        [
            ([(429, {"retry-after": 7_200})], 2.0),
            ([(429, {"retry-after": 3_600_000})], 1_000.0),
            ([(429, {"retry-after": 901})], 901 / 3_600),
        ],
    )
    def test_a_quota_that_no_run_outlasts_ends_it(self, script: list[Any], hours: float) -> None:
        line = Line(*script)
        with pytest.raises(errors.QuotaExhausted) as error:
            line.get()
        assert len(line.wire.sent) == len(script)
        assert str(error.value) == (
            f"LeadBoxer's quota for leads is spent for {hours:.1f} hours; run again after that."
        )
        assert error.value.wait_seconds == hours * 3_600

    @pytest.mark.parametrize(("asked", "last"), [(1, 60.0), (100, 100.0)])
    def test_a_server_that_refuses_after_every_wait_it_asked_for_ends_the_run(self, asked: int, last: float) -> None:
        line = Line(*[(429, {"retry-after": asked})] * 99)
        with pytest.raises(errors.QuotaExhausted) as error:
            line.get()
        assert len(line.wire.sent) == 11
        assert str(error.value) == (
            "LeadBoxer refused leads for its quota 11 times in a row, each time after the wait that it had asked for; "
            "run again later."
        )
        assert error.value.wait_seconds == last

    def test_the_limit_that_a_refusal_names_is_kept_from_then_on(self) -> None:
        body = {"retry-after": 1, "rate-limit": 2, "rate-limit-period": "minute"}
        line = Line((429, body), rate_limit=RateLimit(10, 60.0))
        line.get()
        assert line.transport.pace("leads").burst == 2


def test_the_machines_clock_tells_the_time_and_wakes_up_when_told_to() -> None:
    clock, stop = SystemClock(), threading.Event()
    before = clock.time()
    clock.sleep(0.01, stop)
    assert 0.009 <= clock.time() - before < 5
    stop.set()
    clock.sleep(3_600, stop)


def test_without_a_clock_the_machines_is_taken() -> None:
    transport = Transport(Settings("0" * 32, KEY, limiter_store=":memory:"))
    assert isinstance(transport.clock, SystemClock)
    transport.close()


def test_half_an_emoji_does_not_spoil_an_answer() -> None:
    assert Line((200, b'{"data": ["half \\ud83d", "whole \\ud83d\\ude00"]}')).get().body == {
        "data": ["half ?", "whole \U0001f600"]
    }


@pytest.mark.parametrize("more", ["", ', "half": "\\ud83d"'], ids=["", "beside half an emoji"])
def test_a_whole_number_beyond_64_bits_keeps_its_digits(more: str) -> None:
    digits = {
        str(number): number if -(2**63) <= number < 2**64 else str(number)
        for number in (10**18, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**25)
    }
    sent = f'{{"all": [{", ".join(digits)}], "in": {{"one" :\n{10**25}}}, "not": [1e25, "{10**25}"]{more}}}'
    read = Line((200, sent.encode())).get().body
    assert read["all"] == list(digits.values())
    assert [type(number) for number in read["all"]] == [type(number) for number in digits.values()]
    assert (read["in"], read["not"]) == ({"one": str(10**25)}, [1e25, str(10**25)])


def test_a_number_that_no_double_has_room_for_does_not_spoil_an_answer() -> None:
    assert Line((200, b'{"data": [' + b"9" * 5000 + b"]}")).get().body == {"data": ["9" * 5000]}


def test_nesting_that_is_too_deep_to_read_again_does_not_spoil_an_answer() -> None:
    body = Line((200, b"[" * 1000 + b"1" * 25 + b"]" * 1000)).get().body
    for _ in range(1000):
        (body,) = body
    assert body in (float("1" * 25), "1" * 25)


def test_what_the_api_says_of_a_person_or_a_key_is_not_repeated() -> None:
    said = {"detail": f"key {KEY} may not read Jane Doe"}
    for path, told in (("leads", " (key ... may not read Jane Doe)"), ("leads/sessions", "")):
        with pytest.raises(errors.RequestRefused) as error:
            Line((400, said)).get(path)
        assert str(error.value) == f"LeadBoxer refused {path} with status 400{told}."
