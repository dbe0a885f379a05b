"""HTTP: session, pacing and retry. Knows status codes and clocks, not what the answers mean.

Pacing sits below the retry, so every attempt pays for its slot; waiting for quota is not a failed attempt. Facts of
the API: https://developers.leadboxer.com/docs/rate-limit-exceeded (the waits are told in the 429's body).
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import orjson
import requests
import urllib3.exceptions
from dlt.sources.helpers.requests.session import Session
from dlt.sources.helpers.rest_client.auth import APIKeyAuth
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from leadboxer_source import errors, settings
from leadboxer_source.clock import Clock, SystemClock, http_date
from leadboxer_source.pace import Pace, retry_after, told_by
from leadboxer_source.settings import Settings
from leadboxer_source.stores import store_of

_PIECE_BYTES = 65_536
_HOPS = 3
"""Redirections of one request that are followed."""

_REFUSALS = 10
"""Refusals in a row after which waiting as told is no use."""

_UNKNOWN_HOST, _REFUSED = "the host name is unknown", "connection refused"
_ON_THE_WAY = {
    _UNKNOWN_HOST: "check base_url, and whether this machine is online",
    _REFUSED: "check base_url, proxy and firewall",
}
"""What to do where nothing was ever answered."""


class Reply(NamedTuple):
    """An answer: its JSON, and the server's clock in epoch milliseconds (`None` if it did not say)."""

    body: Any
    server_ms: int | None


class _Failed(Exception):
    """An attempt that may go better the next time."""

    def __init__(self, reason: str, *, foreign: bool = False, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.foreign, self.wait_seconds = reason, foreign, wait_seconds


class _TimelyAdapter(HTTPAdapter):
    """Gives a body as a whole only so long to arrive: to a read time-out each byte is a new beginning."""

    def send(self, *args: Any, **options: Any) -> requests.Response:
        response = super().send(*args, **options)
        late, body = time.monotonic() + settings.BODY_SECONDS, BytesIO()
        try:
            while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
                body.write(piece)
                if time.monotonic() > late:
                    raise requests.exceptions.ReadTimeout
        except urllib3.exceptions.ReadTimeoutError:
            raise requests.exceptions.ReadTimeout from None
        except urllib3.exceptions.HTTPError:
            raise requests.exceptions.ConnectionError from None
        finally:
            response.raw.close()
        body.seek(0)
        response.raw = body
        return response


class Transport:
    """Sends requests to one account: paced for each endpoint, retried, with the key in the header only.

    Args:
        config: Which account, and how fast it may be asked.
        clock: The time, for tests.
        answered: Base URLs that have answered; grows. Until one is among them, what looks like a typing error in it
            is told soon.
    """

    later = "what was loaded is kept, run again later"
    """What is said to whoever gets no answer."""

    def __init__(self, config: Settings, clock: Clock | None = None, answered: set[str] | None = None) -> None:
        self.requests: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.failing: dict[str, str] = {}
        self.clock = clock or SystemClock()
        self.stop = threading.Event()
        self._config = config
        self._answered = set() if answered is None else answered
        self._counting = threading.Lock()
        self._paces: dict[str, Pace] = {}
        self._session = Session(timeout=(settings.CONNECT_SECONDS, settings.READ_SECONDS), raise_for_status=False)
        self._session.auth = APIKeyAuth(name="x-api-key", api_key=config.api_key, location="header")
        self._session.headers["Accept"] = "application/json"
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # proxies and certificates of the environment are read once: requests would read them for every request
        environment = self._session.merge_environment_settings(config.base_url, {}, None, None, None)
        self._session.proxies, self._session.verify = environment["proxies"], environment["verify"]
        self._session.trust_env = False
        adapter = _TimelyAdapter(pool_maxsize=4 * settings.LANE_WORKERS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._retrying = Retrying(
            retry=retry_if_exception_type(_Failed),
            stop=self._is_last,
            wait=_back_off,
            before_sleep=self._note_failure,
            sleep=lambda seconds: self.clock.sleep(seconds, self.stop),
            reraise=True,
        )

    @property
    def waited_seconds(self) -> dict[str, float]:
        """Seconds in which requests waited for quota, by endpoint."""
        return {endpoint: pace.waited_seconds for endpoint, pace in tuple(self._paces.items())}

    def pace(self, endpoint: str) -> Pace:
        """Returns the limiter of an endpoint."""
        with self._counting:
            if endpoint not in self._paces:
                self._paces[endpoint] = Pace(
                    self._config.rate_limit, self.clock, self.stop, store_of(self._config), endpoint
                )
            return self._paces[endpoint]

    def get(self, endpoint: str, path: str, params: Mapping[str, str | int], *, resend: bool = True) -> Reply:
        """Asks for `path` and returns the JSON that came back.

        Args:
            endpoint: Whose quota the request counts against.
            path: Below the base URL.
            params: The query; never holds the key.
            resend: False for a request that must not be sent twice (a page token).

        Raises:
            RequestRefused: A 4xx that a repetition cannot help.
            CredentialsRejected: 401.
            PaymentRequired: 402.
            AccessDenied: 403.
            NotLeadBoxer: What answered does not speak the API.
            QuotaExhausted: The wait asked for outlasts any slice.
            ApiUnavailable: Every attempt failed.
            Cancelled: The run ended meanwhile.
        """
        try:
            attempt = self._retrying if resend else self._retrying.copy(stop=lambda _: True)
            return attempt(self._attempt, endpoint, path, params)
        except _Failed as failure:
            told = f"{self._host} did not answer {path} as LeadBoxer does: {failure.reason}"
            if failure.foreign:
                raise errors.NotLeadBoxer(f"{told}; check base_url and any proxy in between.") from None
            remedy = _ON_THE_WAY[failure.reason] if self._has_wrong_address(failure) else self.later
            raise errors.ApiUnavailable(f"{told}; {remedy}.") from None

    def close(self) -> None:
        """Ends all waiting and gives connections back."""
        self.stop.set()
        self._session.close()
        for pace in self._paces.values():
            pace.close()

    @property
    def _host(self) -> str:
        return urlsplit(self._config.base_url).netloc

    def _has_wrong_address(self, failure: BaseException | None) -> bool:
        """Whether an attempt failed as it does where `base_url` has a typing error, and nothing shows it has none."""
        is_like_it = isinstance(failure, _Failed) and (failure.foreign or failure.reason in _ON_THE_WAY)
        return is_like_it and self._config.base_url not in self._answered

    def _is_last(self, attempt: RetryCallState) -> bool:
        is_wrong = self._has_wrong_address(attempt.outcome.exception() if attempt.outcome else None)
        allowed = settings.FIRST_ATTEMPTS if is_wrong else settings.ATTEMPTS
        return self.stop.is_set() or attempt.attempt_number >= allowed

    def _note_failure(self, attempt: RetryCallState) -> None:
        endpoint, failure = attempt.args[0], attempt.outcome and attempt.outcome.exception()
        self.failing[endpoint] = str(failure)
        self.pace(endpoint).on_wait()

    def _attempt(self, endpoint: str, path: str, params: Mapping[str, str | int]) -> Reply:
        """One attempt; a 429 is waited out inside it, because waiting for quota is no failure."""
        pace, refused, hops = self.pace(endpoint), 0, 0
        url, query = f"{self._config.base_url}/{path}", params
        while True:
            pace.acquire()
            response = self._send(url, query)
            with self._counting:
                self.requests[endpoint] += 1
                self.refusals[endpoint] += response.status_code == 429
            if not _is_web_page(response):
                self._answered.add(self._config.base_url)
            if response.is_redirect and hops < _HOPS:
                hops += 1
                url, query = self._redirected(url, response.headers["Location"]), {}
            elif response.status_code == 429:
                refused += 1
                self._wait_as_told(pace, response, path, refused)
            else:
                reply = self._read(response, path)
                self.failing.pop(endpoint, None)
                return reply

    def _send(self, url: str, params: Mapping[str, str | int]) -> requests.Response:
        try:
            # redirections are not left to requests: it would carry the key to another host, and pay for no slot
            return self._session.get(url, params=params, allow_redirects=False)
        except requests.exceptions.SSLError:
            raise errors.NotLeadBoxer(
                f"The TLS certificate of {self._host} cannot be trusted; check base_url and any proxy in between."
            ) from None
        except requests.exceptions.RequestException as error:
            raise _Failed(_spoken(error)) from None

    def _redirected(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        if urlsplit(target)[:2] != urlsplit(url)[:2]:
            raise errors.NotLeadBoxer(
                f"{self._host} redirects to another host, where the key must not go; correct base_url."
            )
        return target

    def _wait_as_told(self, pace: Pace, response: requests.Response, path: str, refused: int) -> None:
        told = told_by(response.headers, _json(response), self._server_now(response))
        wait = told.wait_seconds if told.wait_seconds is not None else 60.0
        # a server that keeps refusing after the wait it asked for is given more each time
        wait = max(wait, min(2.0 ** (refused - 1) - 1, 60.0))
        if wait > settings.QUOTA_WAIT_SECONDS:
            pace.spent = errors.QuotaExhausted(
                f"LeadBoxer's quota for {path} is spent for {wait / 3600:.1f} hours; run again after that.", wait
            )
        elif refused > _REFUSALS:
            pace.spent = errors.QuotaExhausted(
                f"LeadBoxer refused {path} for its quota {refused} times in a row, "
                "each time after the wait that it had asked for; run again later.",
                wait,
            )
        else:
            pace.hold(wait * random.uniform(1.02, 1.05))  # noqa: S311 - jitter, not a secret
            if told.rate:
                pace.learn(told.rate)
            return
        raise pace.spent

    def _read(self, response: requests.Response, path: str) -> Reply:
        status = response.status_code
        if status >= 500 or status == 408:
            raise _Failed(f"status {status}", wait_seconds=retry_after(response.headers, self._server_now(response)))
        body = _json(response)
        if status == 401:
            raise errors.CredentialsRejected(
                "LeadBoxer does not know this API key (401); copy it again from the App (Integrations, Data, API key)."
            )
        if status == 402:
            raise errors.PaymentRequired(
                "The LeadBoxer account has spent its free tier (402); add a card or wait for the next month."
            )
        if status == 403:
            raise errors.AccessDenied(
                "This API key may not read this dataset (403); check that `site` belongs to the key's account."
            )
        if status >= 300:
            # a lead or session may be gone, the listing itself never is
            hint = "; base_url has to end in /v1" if status == 404 and path == "leads" else ""
            # what is said of a lead or a session may name a person
            is_telling = isinstance(body, dict) and path == "leads"
            detail = body.get("detail") or body.get("message") if is_telling else None
            told = f" ({self._clipped(detail)})" if detail else ""
            raise errors.RequestRefused(
                f"LeadBoxer refused {path} with status {status}{told}{hint}.",
                status,
            )
        if body is _NOT_JSON:
            foreign = _is_web_page(response)
            raise _Failed("no JSON but a web page" if foreign else "torn or empty JSON", foreign=foreign)
        if isinstance(body, dict) and body.get("responseCode") not in (None, 0, "0"):
            raise _Failed(f"responseCode {self._clipped(body['responseCode'])}")
        server_s = http_date(response.headers.get("Date"))
        return Reply(body, None if server_s is None else int(server_s * 1000))

    def _server_now(self, response: requests.Response) -> float:
        """Epoch seconds by the server's clock, which the times that it names go by; this machine's may be wrong."""
        server_s = http_date(response.headers.get("Date"))
        return self.clock.time() if server_s is None else server_s

    def _clipped(self, text: object) -> str:
        """Text of the API, short and on one line; a key, an id or an address in it is not repeated."""
        said = str(text).replace(self._config.api_key, "...")
        words = "".join(char if char.isprintable() else " " for char in said).split()
        return " ".join("..." if "@" in word or sum(map(str.isdigit, word)) > 6 else word for word in words)[:200]


def _is_web_page(response: requests.Response) -> bool:
    """Whether a page stands where JSON should: any website has pages, whereas errors in HTML are a gateway's."""
    return response.status_code < 300 and response.content.lstrip().startswith(b"<")


_NOT_JSON = object()
_MANY_DIGITS = re.compile(rb"[:\[,]\s*-?\d{19}")
_MOST_DIGITS = 20


def _json(response: requests.Response) -> Any:
    with suppress(orjson.JSONDecodeError):
        read = orjson.loads(response.content)
        if _MANY_DIGITS.search(response.content):
            with suppress(RecursionError):  # deeper than json goes
                return json.loads(response.content, parse_int=_whole)
        return read
    # a text that was cut in the middle of an emoji ends in half of one, which no UTF-8 can hold
    with suppress(ValueError, RecursionError):
        read = json.loads(response.content, parse_int=_whole)
        return orjson.loads(json.dumps(read, ensure_ascii=False).encode("utf-8", "replace"))
    return _NOT_JSON


def _whole(digits: str) -> int | str:
    """A whole number; its digits where 64 bits are not enough: orjson would round it, and cannot write it."""
    number = int(digits) if len(digits) <= _MOST_DIGITS else 2**64
    return number if -(2**63) <= number < 2**64 else digits


def _spoken(error: requests.exceptions.RequestException) -> str:
    """Names the failure without its address, which would hold ids."""
    text = str(error)
    if "resolve" in text or "Name or service" in text or "nodename" in text:
        return _UNKNOWN_HOST
    if isinstance(error, requests.exceptions.Timeout):
        return "time-out"
    if "refused" in text:
        return _REFUSED
    return "the connection broke"


def _back_off(attempt: RetryCallState) -> float:
    """1, 2, 4, ... seconds and up to a quarter more; at least what the server asked for."""
    failure = attempt.outcome.exception() if attempt.outcome else None
    asked = failure.wait_seconds if isinstance(failure, _Failed) and failure.wait_seconds else 0.0
    wait = float(2 ** (attempt.attempt_number - 1)) * random.uniform(1.0, 1.25)  # noqa: S311 - jitter, not a secret
    return max(wait, min(asked, 120.0))
