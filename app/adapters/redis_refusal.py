"""Why a Redis will never let this process in, as far as that can be told from outside."""

import socket
import ssl

from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.sentinel import MasterNotFoundError

from app.adapters.redis_connection import causes_of, sentinels, trouble
from app.redis_settings import RedisSettings
from app.redis_url import RedisUrl

PROBE_SECONDS = 2.0


def refusal(url: RedisUrl, settings: RedisSettings, error: BaseException) -> str | None:
    """One line on the setting that is wrong, ``None`` where the error may pass by itself.

    ``url`` is that of REDIS_URL, and ``error`` what came of an attempt to use it. Asks
    again in other words where the error alone does not tell. Raises nothing.
    """
    causes = list(causes_of(error))
    if any(isinstance(cause, MasterNotFoundError) for cause in causes):
        return _refusal_of_sentinels(url, settings)
    return _refusal_of(url, settings, causes) or _other_language(url, causes)


def _refusal_of_sentinels(url: RedisUrl, settings: RedisSettings) -> str | None:
    master = settings.redis_sentinel_master
    reasons: list[str | None] = []
    with sentinels(url, settings) as known:
        for sentinel in known.sentinels:
            try:
                masters = sentinel.sentinel_masters()
            except (ResponseError, AuthenticationError) as error:
                reasons.append(
                    f"REDIS_SENTINEL_PASSWORD: a sentinel refuses: {error}: check it, or set "
                    "REDIS_SENTINEL_PASSWORD_FILE=/run/secrets/redis_sentinel_password"
                )
            except RedisError as error:
                causes = list(causes_of(error))
                reasons.append(_refusal_of(url, settings, causes) or _other_language(url, causes))
            else:
                if master in masters:
                    return None  # it only is not there now
                reasons.append(
                    f"REDIS_SENTINEL_MASTER: the sentinels know no {master!r}, for example "
                    f"REDIS_SENTINEL_MASTER={next(iter(masters), 'mymaster')}"
                )
    return next(filter(None, reasons), None)


def _refusal_of(url: RedisUrl, settings: RedisSettings, causes: list[BaseException]) -> str | None:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            whose = settings.redis_tls_ca or "this system"
            return (
                f"REDIS_TLS_CA: Redis's certificate is not one that {whose} trusts "
                f"({cause.verify_message}): name the file of the authority that signed it, for "
                f"example REDIS_TLS_CA={settings.EXAMPLES['redis_tls_ca']}"
            )
        if isinstance(cause, ssl.SSLError) and "CERTIFICATE_REQUIRED" in str(cause):
            return (
                "REDIS_TLS_CERT: Redis asks for a certificate of ours, for example "
                f"REDIS_TLS_CERT={settings.EXAMPLES['redis_tls_cert']}"
            )
        if isinstance(cause, NoPermissionError):
            return f"REDIS_URL: {trouble(cause)}"
        # A wrong password is a ConnectionError for redis-py.
        if isinstance(cause, ResponseError | AuthenticationError):
            return (
                f"REDIS_URL: Redis refuses: {cause}: check the password and the database number, "
                "for example REDIS_URL=redis://:password@localhost:6379/0"
            )
    return None


def _other_language(url: RedisUrl, causes: list[BaseException]) -> str | None:
    """Whether one side speaks TLS and the other does not: neither says so."""
    if not any(isinstance(cause, ConnectionError | TimeoutError) for cause in causes):
        return None
    for address in url.addresses:
        where = f"{address[0]}:{address[1]}"
        if not url.tls and _speaks_tls(address):
            scheme = f"{url.scheme}s"
            return f"REDIS_URL: {where} speaks TLS, for example REDIS_URL={scheme}://{where}"
        if url.tls and _speaks_plainly(address):
            scheme = url.scheme.removesuffix("s")
            return f"REDIS_URL: {where} speaks no TLS, for example REDIS_URL={scheme}://{where}"
    return None


def _speaks_tls(address: tuple[str, int]) -> bool:
    # Nothing is sent or believed, so nobody's certificate matters.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(address, timeout=PROBE_SECONDS) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except OSError:
        return False


def _speaks_plainly(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=PROBE_SECONDS) as plain:
            plain.sendall(b"PING\r\n")
            # +PONG, or -NOAUTH where it wants a password first.
            return plain.recv(1) in {b"+", b"-"}
    except OSError:
        return False
