"""How this deployment reaches a Redis: straight, encrypted, or by way of sentinels."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from app.redis_settings import RedisSettings
from app.redis_url import RedisUrl

SENTINEL_TIMEOUT_SECONDS = 1.0
"""Of every wait on one sentinel; then the next one is asked. They answer from memory."""


@contextmanager
def redis_client(
    url: RedisUrl, settings: RedisSettings, *, timeout: float, **options: Any
) -> Iterator[redis.Redis]:
    """A client of the Redis that ``url`` leads to now; closed at the end.

    ``timeout`` is in seconds and bounds each wait. Nothing is tried a second time: whoever
    asks knows better when. ``options`` are redis-py's own.
    """
    given = {
        "db": url.database,
        "username": url.username,
        "password": url.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        **({"ssl": True, **tls_options(settings)} if url.tls else {}),
        **options,
    }
    if url.by_sentinel:
        with (
            sentinels(url, settings) as known,
            known.master_for(settings.redis_sentinel_master, **given) as client,  # type: ignore[no-untyped-call]
        ):
            yield client
    elif url.path:
        with redis.Redis(unix_socket_path=url.path, **given) as client:
            yield client
    else:
        ((host, port),) = url.addresses
        with redis.Redis(host, port, **given) as client:
            yield client


@contextmanager
def sentinels(url: RedisUrl, settings: RedisSettings) -> Iterator[Sentinel]:
    """Clients of the sentinels themselves; closed at the end."""
    options = sentinel_options(url, settings)["sentinel_kwargs"]
    with Sentinel(list(url.addresses), sentinel_kwargs=options) as known:  # type: ignore[no-untyped-call]
        yield known


def tls_options(settings: RedisSettings) -> dict[str, Any]:
    """What redis-py and kombu must know of TLS. The server's certificate is always checked."""
    options = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": settings.redis_tls_ca,
        "ssl_certfile": settings.redis_tls_cert,
        "ssl_keyfile": settings.redis_tls_key,
    }
    return {name: value for name, value in options.items() if value is not None}


def sentinel_options(url: RedisUrl, settings: RedisSettings) -> dict[str, Any]:
    """What kombu and Celery's result backend must know of sentinels; empty without any."""
    if not url.by_sentinel:
        return {}
    password = settings.redis_sentinel_password
    options = {
        "password": password.get_secret_value() if password is not None else None,
        "socket_timeout": SENTINEL_TIMEOUT_SECONDS,
        "socket_connect_timeout": SENTINEL_TIMEOUT_SECONDS,
        # redis-py would ask a dead one ten times before it asks the next.
        "retry": Retry(NoBackoff(), 0),
        **({"ssl": True, **tls_options(settings)} if url.tls else {}),
    }
    return {
        "master_name": settings.redis_sentinel_master,
        "sentinel_kwargs": {name: value for name, value in options.items() if value is not None},
    }


def reason(error: BaseException) -> str:
    """What an error of redis-py says, without the sentinels' whole configuration."""
    return str(error).partition(" : <")[0] if isinstance(error, MasterNotFoundError) else str(error)


_FULL = "Redis is full and refuses writes: raise its maxmemory, or add workers"
_REPLICA = "Redis is a read-only replica and refuses writes: set REDIS_URL to the primary"
_PASSWORD = "Redis refuses the password: check REDIS_URL and REDIS_PASSWORD"  # noqa: S105
_BY_KIND: tuple[tuple[type[Exception], str], ...] = (
    (OutOfMemoryError, _FULL),
    (ReadOnlyError, _REPLICA),
    (BusyLoadingError, "Redis is loading its data and answers soon"),
    (AuthenticationError, _PASSWORD),
)
_BY_CODE = {
    "OOM": _FULL,
    "READONLY": _REPLICA,
    "MISCONF": "Redis cannot save to its disk and refuses writes: look at its log and its disk",
    "NOREPLICAS": "Redis has too few replicas and refuses writes: start them, or lower "
    "min-replicas-to-write",
    "NOAUTH": _PASSWORD,
    "WRONGPASS": _PASSWORD,
}
"""Error codes for which redis-py has no class of its own, or not everywhere.
https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors"""


def trouble(error: BaseException) -> str:
    """One line on an attempt to use Redis that failed: what is wrong, and what to do.

    Looks for redis-py's error behind ``error``, such as a ``BrokerUnavailableError``. A Redis
    that refuses is told from one that does not answer. Raises nothing.
    """
    for cause in causes_of(error):
        for kind, line in _BY_KIND:
            if isinstance(cause, kind):
                return line
        if isinstance(cause, NoPermissionError):
            return f"Redis refuses a command: {cause}: allow it (ACL SETUSER)"
        if isinstance(cause, ResponseError):
            code = str(cause).partition(" ")[0]
            return _BY_CODE.get(code, f"Redis refuses: {cause}")
    return f"Redis does not answer: {reason(error).removeprefix('Redis: ')}"


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and each that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
