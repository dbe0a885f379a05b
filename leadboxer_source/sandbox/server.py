"""The sandbox's protocol: keys, quotas, page tokens and envelopes, over real HTTP."""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from leadboxer_source.sandbox import answers, query
from leadboxer_source.sandbox.faults import Faults
from leadboxer_source.sandbox.profile import Profile
from leadboxer_source.sandbox.query import Malformed, Query, TooLarge
from leadboxer_source.sandbox.records import Record
from leadboxer_source.sandbox.world import World

KEY = "sandbox-key-that-opens-nothing"
_PERIODS = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0}
_ENDPOINTS = {
    "/v1/leads": "leads",
    "/v1/leads/sessions": "sessions",
    "/v1/leads/events": "events",
    "/v1/leads/export": "export",
    "/v1/segments": "segments",
    "/v1/users/datasets": "datasets",
    "/v1/user-datasets": "datasets",
}


@dataclass(slots=True)
class Request:
    """One request as the server saw it.

    Attributes:
        at: Epoch seconds, by the server's clock.
        endpoint: `leads`, `sessions`, `events`, `detail`, `datasets`, `export`, `segments` or `unknown`.
        path: Path of the URL.
        params: Its query.
        key: The API key sent, if any.
        status: Status of the answer; 0 if none was sent.
        fault: Name of the fault it met, if any.
    """

    at: float
    endpoint: str
    path: str
    params: dict[str, str]
    key: str | None
    status: int = 0
    fault: str | None = None


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class _Quota:
    """So many requests in any window; a refused one takes no place."""

    def __init__(self, rate: str) -> None:
        count, _, self.period = rate.partition("/")
        self.limit, self.seconds = int(count), _PERIODS[self.period]
        self._taken: deque[float] = deque()

    def wait(self, now: float) -> float:
        """Seconds until a place is free; 0 takes it."""
        while self._taken and self._taken[0] <= now - self.seconds:
            self._taken.popleft()
        if len(self._taken) < self.limit:
            self._taken.append(now)
            return 0.0
        return self._taken[0] + self.seconds - now


@dataclass(slots=True)
class _Listing:
    """What a token stands for."""

    site: str
    query: Query
    limit: int
    snapshot: list[str] | None
    position: int
    issued: float
    used: bool = False
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))


class Sandbox:
    """A LeadBoxer on this machine.

    Args:
        worlds: The datasets that the key opens.
        key: The key.
        profile: How the API's open points are read; may be changed while it runs.
        rate_limit: Requests for each key and endpoint, such as `10/minute`; unlimited if `None`.
        dataset_rate_limit: The same for the calls that list datasets.
        clock: Epoch seconds.
        faults: What goes wrong.
        port: Where to listen; any free port if 0.
        foreign_sites: Datasets that exist and belong to somebody else.

    Attributes:
        requests: Every request so far.
        lock: Held while a request is answered; hold it to change a world.
        on_request: Called before a request is answered.
    """

    def __init__(
        self,
        worlds: World | Iterable[World],
        *,
        key: str = KEY,
        profile: Profile | None = None,
        rate_limit: str | None = "10/minute",
        dataset_rate_limit: str | None = "2/minute",
        clock: Callable[[], float] = time.time,
        faults: Faults | None = None,
        port: int = 0,
        foreign_sites: Iterable[str] = (),
    ) -> None:
        self.worlds = {world.site: world for world in ([worlds] if isinstance(worlds, World) else worlds)}
        self.key = key
        self.profile = profile or Profile()
        self.rate_limit = rate_limit
        self.dataset_rate_limit = dataset_rate_limit
        self.faults = faults or Faults()
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self.on_request: Callable[[Request], None] | None = None
        self._clock = clock
        self._port = port
        self._foreign = frozenset(foreign_sites)
        self._quotas: dict[tuple[str, str, str], _Quota] = {}
        self._listings: dict[str, _Listing] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event
        self._thread: threading.Thread | None = None

    # life

    @property
    def url(self) -> str:
        """The base URL, once it runs."""
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> str:
        """Listens in a thread of its own; returns the base URL."""
        ready = threading.Event()
        failure: list[BaseException] = []

        async def serve() -> None:
            runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.2)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", self._port).start()
                self._port = runner.addresses[0][1]
                self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
                ready.set()
                await self._ended.wait()
            finally:
                await runner.cleanup()

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:
                failure.append(error)
                ready.set()

        self._thread = threading.Thread(target=run, name="leadboxer-sandbox", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            raise failure[0]
        return self.url

    def stop(self) -> None:
        """Stops listening."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()

    def __enter__(self) -> Sandbox:
        """Starts."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops."""
        self.stop()

    def clear_requests(self) -> None:
        """Forgets the requests so far."""
        self.requests = []

    # one request

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        return await self._send(http, *self.answer(http.path, dict(http.query), http.headers.get("x-api-key")))

    def answer(self, path: str, params: dict[str, str], key: str | None) -> tuple[Request, Answer]:
        """Notes a request and decides what goes back; needs no socket."""
        endpoint = _ENDPOINTS.get(path, "detail" if path.startswith("/v1/leads/") else "unknown")
        request = Request(self._clock(), endpoint, path, params, key)
        with self.lock:
            self.requests.append(request)
            answer = self._refusal(request)
            if answer is None:
                if self.on_request is not None:
                    self.on_request(request)
                request.fault = self.faults.meets(endpoint, params.get("leadId") or params.get("sessionId") or "")
                now = self._clock()
                for world in self.worlds.values():
                    world.settle_until(int(now * 1000))
                answer = self._faulty(request, now) or self._answer(request, now)
            request.status = answer.status
        return request, answer

    def _refusal(self, request: Request) -> Answer | None:
        """The answer to a request that the gateway does not let pass."""
        if request.key != self.key:
            return _json(401, answers.UNAUTHORIZED)
        rate = self.dataset_rate_limit if request.endpoint == "datasets" else self.rate_limit
        daily = f"{self.profile.daily_quota}/day" if self.profile.daily_quota else None
        for limit in filter(None, (rate, daily)):
            quota = self._quotas.setdefault((request.key, request.endpoint, limit), _Quota(limit))
            wait = quota.wait(request.at)
            if wait > 0:
                return self._limited(request, math.ceil(wait), quota.limit, quota.period)
        return None

    def _limited(self, request: Request, wait_s: float, limit: int, period: str) -> Answer:
        headers = {"Retry-After": str(int(wait_s))} if self.profile.retry_after_header else {}
        body = answers.rate_limited(request.path, wait_s, limit, period, request.at + wait_s)
        return _json(429, body, headers)

    def _faulty(self, request: Request, now: float) -> Answer | None:
        """The answer that a fault makes by itself; `None` for those that spoil a real one."""
        fault, path = request.fault or "", request.path
        waits = {"429": 1, "429_zero": 0, "429_negative": -5, "429_absurd": 10**12, "daily_quota": 7 * 3600}
        if fault in waits:
            period = "day" if fault == "daily_quota" else "minute"
            return _json(429, answers.rate_limited(path, waits[fault], 10, period, now + waits[fault]))
        bare = answers.rate_limited(path, None, 0, "", None)
        made: dict[str, Callable[[], Answer]] = {
            "429_header": lambda: _json(429, bare, {"Retry-After": "1"}),
            "429_bare": lambda: _json(429, bare),
            "400": lambda: _json(400, answers.bad_request(path, "Bad request")),
            "401": lambda: _json(401, answers.UNAUTHORIZED),
            "402": lambda: _json(402, answers.payment_required()),
            "403": lambda: _json(403, answers.access_denied(path)),
            "404": lambda: _json(404, answers.not_found(path, "Not found")),
            "500": lambda: _json(500, answers.internal_error(path)),
            "502_html": lambda: Answer(502, b"<html><h1>502 Bad Gateway</h1></html>", {"Content-Type": "text/html"}),
            "503_empty": lambda: Answer(503, b""),
            "html_200": lambda: Answer(200, b"<html><h1>Sign in</h1></html>", {"Content-Type": "text/html"}),
            "response_code": lambda: _json(200, {"responseCode": 17, "responseMessage": "Try again"}),
            "empty_body": lambda: Answer(200, b""),
            "empty_list": lambda: _json(200, []),
            "redirect_other_host": lambda: Answer(301, b"", {"Location": f"http://127.0.0.2:1{path}"}),
            "reset": lambda: Answer(0, b""),
        }
        return made[fault]() if fault in made else None

    async def _send(self, http: web.BaseRequest, request: Request, answer: Answer) -> web.StreamResponse:
        headers = {"Content-Type": "application/json", **answer.headers, "Date": formatdate(self._clock(), usegmt=True)}
        if request.fault == "timeout_after":
            await asyncio.sleep(self.faults.hang_s)
        if request.fault in {"reset", "timeout_after"}:
            request.status = 0
            if http.transport is not None:
                http.transport.abort()
            return web.Response(status=500)
        if request.fault == "wrong_type":
            headers["Content-Type"] = "text/plain"
        body = answer.body[: len(answer.body) // 2] if request.fault == "torn_json" else answer.body
        if request.fault in {"cut_body", "slow_drip", "endless_drip"}:
            return await self._drip(http, answer, headers, request.fault)
        response = web.Response(status=answer.status, body=body, headers=headers)
        if self.profile.compressed:
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def _drip(
        self, http: web.BaseRequest, answer: Answer, headers: dict[str, str], fault: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            status=answer.status, headers={**headers, "Content-Length": str(len(answer.body))}
        )
        await response.prepare(http)
        size = max(1, len(answer.body) // 4)
        pieces = [answer.body[start : start + size] for start in range(0, len(answer.body), size)]
        for piece in pieces[:2] if fault == "cut_body" else pieces:
            await response.write(piece)
            await asyncio.sleep(self.faults.hang_s / len(pieces) if fault == "endless_drip" else 0.002)
        if fault == "cut_body" and http.transport is not None:
            http.transport.abort()
        return response

    def _answer(self, request: Request, now: float) -> Answer:
        params, path = request.params, request.path
        if request.endpoint == "datasets":
            return _json(200, [{"datasetId": site, "name": f"Sandbox {site[:4]}"} for site in self.worlds])
        if request.endpoint == "segments":
            return _json(200, {"responseCode": 0, "responseMessage": "", "smartlists": []})
        if request.endpoint == "unknown":
            return _json(404, answers.not_found(path, "No such endpoint"))
        required = {
            "leads": (),
            "sessions": ("leadId", "limit"),
            "events": ("sessionId", "limit"),
            "detail": ("email",),
        }
        for name in (*required.get(request.endpoint, ()), "site"):
            if not params.get(name):
                return _json(400, answers.bad_request(path, f"Required parameter '{name}' is not present"))
        world = self.worlds.get(params["site"])
        if world is None:
            return _json(403, answers.access_denied(path))
        try:
            if request.endpoint == "leads":
                return self._leads(world, params, path, now)
            if request.endpoint == "export":
                return self._export(world, params, now)
            if request.endpoint == "detail":
                return self._detail(world, path.removeprefix("/v1/leads/"), path, now)
            return self._children(world, request.endpoint, params, path)
        except TooLarge as refused:
            told = answers.bad_request(path, str(refused))
            return _json(self.profile.too_large, {**told, "status": self.profile.too_large})
        except Malformed as malformed:
            return _json(400, answers.bad_request(path, str(malformed)))

    # the listing

    def _leads(self, world: World, params: dict[str, str], path: str, now: float) -> Answer:
        profile = self.profile
        if "nextToken" in params:
            listing = self._listings.get(params["nextToken"])
            if listing is None or listing.site != world.site or not self._is_alive(listing, now):
                return self._expired(path)
            listing.used = True
        else:
            found = query.read(params, profile, now)
            snapshot = found.run(world, int(now * 1000)) if profile.list_state == "snapshot" else None
            listing = _Listing(world.site, found, self._limit(params), snapshot, 0, now)
        now_ms = int(now * 1000)
        ids = listing.snapshot if listing.snapshot is not None else listing.query.run(world, now_ms)
        page = ids[listing.position : listing.position + listing.limit]
        ended = listing.position + len(page) >= len(ids)
        token: str | None = None
        if not ended or profile.end_of_list == "token":
            token = self._issue(listing, listing.position + len(page), now)
        users = [world.user_record(user_id, now_ms) for user_id in page if world.has_user(user_id)]
        total = len(page) if self.profile.total_counts == "page" else len(ids)
        total = min(total, self.profile.total_ceiling or total)
        return _json(200, self._enveloped(users, token, total, world.site))

    def _is_alive(self, listing: _Listing, now: float) -> bool:
        spent = listing.used and self.profile.token_reuse == "single_use" and self.profile.token_style == "changing"
        return not spent and now - listing.issued <= self.profile.token_life_s

    def _issue(self, listing: _Listing, position: int, now: float) -> str:
        if self.profile.token_style == "constant":
            listing.position, listing.issued = position, now
        else:
            listing = _Listing(listing.site, listing.query, listing.limit, listing.snapshot, position, now)
        self._listings[listing.token] = listing
        if len(self._listings) > 5_000:
            alive = {token: old for token, old in self._listings.items() if self._is_alive(old, now)}
            self._listings = alive
        return listing.token

    def _expired(self, path: str) -> Answer:
        answer = self.profile.token_expired
        if answer == "empty_page":
            return _json(200, self._enveloped([], None, None, ""))
        bodies = {
            400: answers.bad_request(path, "Invalid nextToken"),
            404: answers.not_found(path, "Unknown nextToken"),
            410: answers.problem(410, "gone", "Gone", "nextToken has expired", path),
            500: answers.internal_error(path),
        }
        return _json(answer, bodies[answer])

    def _limit(self, params: dict[str, str]) -> int:
        limit = _number(params.get("limit", "50"), "limit")
        if limit > self.profile.max_limit and self.profile.limit_rule != "uncapped":
            if self.profile.limit_rule == "reject":
                raise TooLarge("Parameter 'limit' is too large")
            return self.profile.max_limit
        return limit

    def _enveloped(self, users: list[Record], token: str | None, total: int | None, site: str) -> dict[str, Any]:
        profile = self.profile
        ending: dict[str, dict[str, Any]] = {
            "token": {},
            "absent": {},
            "null": {"nextToken": None},
            "empty": {"nextToken": ""},
        }
        paging: dict[str, Any] = {"nextToken": token} if token is not None else ending[profile.end_of_list]
        if profile.envelope == "legacy":
            told = {"rows": len(users), "total": total, "site": site, "timeZone": query.AMSTERDAM}
            return {"resultsList": users, **paging, **told}
        if profile.envelope == "nested":
            return {"data": users, "meta": paging}
        if profile.envelope == "inside":
            return {"data": {"resultsList": users, **paging}}
        return {"data": users, **paging, **({"total": total} if profile.show_total and total is not None else {})}

    # the rest

    def _children(self, world: World, endpoint: str, params: dict[str, str], path: str) -> Answer:
        profile = self.profile
        limit = _number(params["limit"], "limit")
        if limit > (profile.children_max_limit or limit):
            raise TooLarge("Parameter 'limit' is too large")
        if endpoint == "sessions":
            lead_id = params["leadId"]
            found = world.session_records(lead_id)
            if found is None and lead_id in world.merged:
                if profile.merged_lead == "winner":
                    found = world.session_records(_winner(world, lead_id))
                elif profile.merged_lead == "empty":
                    found = []
        else:
            found = world.event_records(params["sessionId"])
        if found is None:
            if profile.unknown_lead == "404":
                return _json(404, answers.not_found(path, "Not found"))
            found = []
        if profile.children_order == "oldest":
            found = found[::-1]
        found = found[: min(limit, profile.children_cap or limit)]
        if endpoint == "sessions":
            found = [_told_session(record, profile) for record in found]
        if profile.children_envelope == "bare":
            return _json(200, found)
        if profile.children_envelope == "legacy":
            return _json(200, {"responseCode": 0, "responseMessage": "", endpoint: found})
        return _json(200, {"data": found})

    def _detail(self, world: World, lead_id: str, path: str, now: float) -> Answer:
        if not world.has_user(lead_id) and lead_id in world.merged and self.profile.merged_lead == "winner":
            lead_id = _winner(world, lead_id)
        if not world.has_user(lead_id):
            if self.profile.unknown_lead == "empty":
                return _json(200, {})
            return _json(404, answers.not_found(path, "Lead not found"))
        lead = world.user_record(lead_id, int(now * 1000))
        return _json(200, {"resultsList": [lead]} if self.profile.detail_envelope == "wrapped" else lead)

    def _export(self, world: World, params: dict[str, str], now: float) -> Answer:
        found = query.read({"criteriaTimeFilter": "eventEsTimestamp|lessthan|366", **params}, self.profile, now)
        rows = ["use_id,lastEvent", *(f"{id_},{world.last_ms(id_)}" for id_ in found.run(world, int(now * 1000)))]
        return Answer(200, "\n".join(rows[:2_501]).encode(), {"Content-Type": "text/csv"})


def _told_session(record: Record, profile: Profile) -> Record:
    """A session as the profile has it told."""
    hidden = set() if profile.session_times == "full" else {"lastEvent", "eventEsTimestamp", "eventUnixTimestamp"}
    told = {name: value for name, value in record.items() if name not in hidden}
    if profile.session_times == "start_as_event":
        told["eventUnixTimestamp"] = str(int(told.pop("session_unix_timestamp")) + 1_606)
    if profile.session_id_name != "session_id":
        told[profile.session_id_name] = told.pop("session_id")
    return told


def _winner(world: World, lead_id: str) -> str:
    while lead_id in world.merged:
        lead_id = world.merged[lead_id]
    return lead_id


def _number(text: str, name: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise Malformed(f"Parameter '{name}' is not a positive number")
    return int(text)


def _json(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, orjson.dumps(body), headers or {})
