"""Where the stamps of paced requests are kept, so that all who use one key share its budget.

In memory, in a file of this machine, or in a Redis or PostgreSQL that several machines reach. There the server's clock
makes the stamps: those of the machines differ.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from dlt.common.runtime import run_context
from pyrate_limiter import AbstractBucket, InMemoryBucket, Rate, SQLiteBucket

from leadboxer_source.clock import Clock
from leadboxer_source.errors import LimiterUnavailable, extra_missing
from leadboxer_source.settings import IN_PROCESS_ONLY, Settings

_ANSWER_SECONDS = 10.0
_LOCK_SECONDS = 30.0
_SHARED_PATIENCE_MS = 20
_POOL = "leadboxer limiter_store"


class Store(NamedTuple):
    """An opened store.

    Attributes:
        bucket: Holds the stamps of one endpoint.
        now_ms: Stamps.
        exclusively: Keeps others away while a stamp is made and put; yields the bucket.
        close: Gives it back.
        patience_ms: The least time to wait before it is asked again.
    """

    bucket: AbstractBucket
    now_ms: Callable[[], int]
    exclusively: Callable[[], AbstractContextManager[AbstractBucket]]
    close: Callable[[], None]
    patience_ms: int = 1


class Place(NamedTuple):
    """Where an account's stamps are: a file or a server's address, and what the account is called there."""

    address: str
    account: str


def store_of(config: Settings) -> Place | None:
    """Returns where an account's stamps are: as configured, else a file of this machine; `None` for memory alone."""
    if config.limiter_store == IN_PROCESS_ONLY:
        return None
    # named after the account, not after the key
    account = hashlib.blake2b(f"{config.base_url}\n{config.api_key}".encode(), digest_size=8).hexdigest()
    own_file = Path(run_context.active().data_dir) / "leadboxer" / "rate-limit.sqlite"
    return Place(config.limiter_store or str(own_file), account)


def opened(place: Place | None, endpoint: str, rates: list[Rate], clock: Clock) -> Store:
    """Opens a store for one endpoint.

    Raises:
        ConfigurationInvalid: It needs an extra that is not installed.
        LimiterUnavailable: Its server does not answer.
    """

    def now_ms() -> int:
        return int(clock.time() * 1000)

    if place is None:
        memory = InMemoryBucket(rates)
        return Store(memory, now_ms, lambda: nullcontext(memory), memory.close)
    name = f"leadboxer_{place.account}_{endpoint}"
    if "://" in place.address:
        at_server = _redis if urlsplit(place.address).scheme in {"redis", "rediss"} else _postgres
        return at_server(place.address, name, rates)
    Path(place.address).parent.mkdir(parents=True, exist_ok=True)
    file = SQLiteBucket.init_from_file(rates, table=name, db_path=place.address, use_file_lock=True)

    @contextmanager
    def exclusively() -> Iterator[AbstractBucket]:
        # stamped before the lock is held, a request would look older than those that others have put meanwhile
        with file.lock:
            yield file

    return Store(file, now_ms, exclusively, file.close)


def _redis(url: str, name: str, rates: list[Rate]) -> Store:
    try:
        from pyrate_limiter import RedisBucket
        from redis import Redis
        from redis.exceptions import RedisError
    except ImportError:
        raise extra_missing("This limiter_store", "redis") from None
    client = Redis.from_url(url, socket_timeout=_ANSWER_SECONDS, socket_connect_timeout=_ANSWER_SECONDS)

    @contextmanager
    def exclusively() -> Iterator[AbstractBucket]:
        # the bucket does not count stamps later than the one it is to put: two processes must not stamp side by side
        with _told(url, RedisError), client.lock(f"{name}:lock", timeout=_LOCK_SECONDS, sleep=0.01):
            yield bucket

    def now_ms() -> int:
        seconds, microseconds = client.time()
        return int(seconds * 1000 + microseconds // 1000)

    with _told(url, RedisError):
        bucket = RedisBucket.init(rates, client, name)
    return Store(bucket, now_ms, exclusively, client.close, _SHARED_PATIENCE_MS)


def _postgres(url: str, name: str, rates: list[Rate]) -> Store:
    try:
        from psycopg import Error
        from psycopg_pool import ConnectionPool
        from pyrate_limiter import PostgresBucket
    except ImportError:
        raise extra_missing("This limiter_store", "postgres") from None

    @contextmanager
    def exclusively() -> Iterator[AbstractBucket]:
        with _told(url, Error):
            yield bucket  # it locks its table itself

    def now_ms() -> int:
        with pool.connection() as connection:
            row = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetchone()
        return int(row[0]) if row else 0

    logging.getLogger("psycopg.pool").addFilter(_is_not_ours)
    with _told(url, Error):
        # the bucket's stamps have no time zone: they must not jump with the clocks of one
        in_utc = {"options": "-c timezone=UTC"}
        pool = ConnectionPool(
            url, name=_POOL, min_size=1, max_size=2, timeout=_ANSWER_SECONDS, kwargs=in_utc, open=True
        )
        try:
            bucket = PostgresBucket(pool, name, rates)
        except BaseException:
            pool.close()
            raise
    return Store(bucket, now_ms, exclusively, pool.close, _SHARED_PATIENCE_MS)


@contextmanager
def _told(url: str, failure: type[Exception]) -> Iterator[None]:
    """Says which server does not answer; its address may hold a password."""
    try:
        yield
    except failure as error:
        parts = urlsplit(url)
        raise LimiterUnavailable(
            f"The limiter_store at {parts.hostname} ({parts.scheme}) cannot be used ({type(error).__name__}): "
            "start it or correct its address, then run again."
        ) from None


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Leaves out what the pool logs of each attempt to connect: the error that ends them tells it once."""
    return _POOL not in record.getMessage()
