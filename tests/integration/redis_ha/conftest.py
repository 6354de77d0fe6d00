"""Redis servers that fail over and that speak TLS; everything ends with the test."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from scripts.live.certificates import Certificates, NoOpenSslError, certificates
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.redis_server import NoRedisServerError, RedisServer, find_server, speaks_tls
from scripts.live.sentinels import SentinelledRedis

ShowLogs = Callable[[Callable[[], Mapping[str, str]]], None]

SOON_AGAIN = {
    "VISIBILITY_TIMEOUT_SECONDS": "6",
    "LEASE_INTERVAL_SECONDS": "1",
    "RESEND_MARGIN_SECONDS": "5",
}


@pytest.fixture
def sentinelled(
    tmp_path: Path, missing_service: Callable[[str], NoReturn], show_logs: ShowLogs
) -> Iterator[SentinelledRedis]:
    """A master, its replica, and three sentinels that notice within a second."""
    try:
        redis = SentinelledRedis(folder=tmp_path / "redis")
    except NoRedisServerError as error:
        missing_service(str(error))
    show_logs(redis.logs)
    with redis:
        yield redis


@pytest.fixture
def sentinelled_bench(
    sentinelled: SentinelledRedis, tmp_path: Path, show_logs: ShowLogs
) -> Iterator[JobBench]:
    """A bench whose deployment knows the sentinels alone."""
    environment = {**sentinelled.environment, **SOON_AGAIN}
    with Deployment(
        redis_url=sentinelled.url, folder=tmp_path / "live", environment=environment
    ) as live:
        show_logs(live.logs)
        with job_bench(live) as made:
            yield made


@pytest.fixture
def authority(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> Certificates:
    """A private authority, and a server's certificate that it signed."""
    try:
        return certificates(tmp_path / "certificates")
    except NoOpenSslError as error:
        missing_service(str(error))


@pytest.fixture
def encrypted_redis(
    authority: Certificates,
    tmp_path: Path,
    missing_service: Callable[[str], NoReturn],
    show_logs: ShowLogs,
) -> Iterator[RedisServer]:
    """A server that speaks nothing but TLS."""
    try:
        binary = find_server()
    except NoRedisServerError as error:
        missing_service(str(error))
    if not speaks_tls(binary):
        missing_service(f"{binary} was built without TLS: apt install redis-server")
    server = RedisServer(folder=tmp_path / "redis", tls=authority)
    show_logs(server.logs)
    with server:
        yield server
