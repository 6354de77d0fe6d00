"""Redis servers that fail over and that speak TLS; everything ends with the test."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    with _bench_of(sentinelled, tmp_path, show_logs) as made:
        yield made


@contextmanager
def _bench_of(redis: SentinelledRedis, tmp_path: Path, show_logs: ShowLogs) -> Iterator[JobBench]:
    environment = {**redis.environment, **SOON_AGAIN}
    with Deployment(redis_url=redis.url, folder=tmp_path / "live", environment=environment) as live:
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
def encrypted_sentinels(
    authority: Certificates,
    encryption_can_be_had: None,
    tmp_path: Path,
    show_logs: ShowLogs,
) -> Iterator[SentinelledRedis]:
    """The same, where servers and sentinels speak nothing but TLS."""
    redis = SentinelledRedis(folder=tmp_path / "redis", tls=authority)
    show_logs(redis.logs)
    with redis:
        yield redis


@pytest.fixture
def encrypted_sentinels_bench(
    encrypted_sentinels: SentinelledRedis, tmp_path: Path, show_logs: ShowLogs
) -> Iterator[JobBench]:
    with _bench_of(encrypted_sentinels, tmp_path, show_logs) as made:
        yield made


@pytest.fixture
def encryption_can_be_had(missing_service: Callable[[str], NoReturn]) -> None:
    """Skip, or fail in CI, where there is no server that speaks TLS."""
    try:
        binary = find_server()
    except NoRedisServerError as error:
        missing_service(str(error))
    if not speaks_tls(binary):
        missing_service(f"{binary} was built without TLS: apt install redis-server")


@pytest.fixture
def encrypted_redis(
    authority: Certificates, encryption_can_be_had: None, tmp_path: Path, show_logs: ShowLogs
) -> Iterator[RedisServer]:
    """A server that speaks nothing but TLS."""
    server = RedisServer(folder=tmp_path / "redis", tls=authority)
    show_logs(server.logs)
    with server:
        yield server
