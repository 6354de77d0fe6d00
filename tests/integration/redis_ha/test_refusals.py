"""What is wrong with the way to Redis is said in one line; what may pass is waited for."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from app.adapters.redis_refusal import refusal
from app.outbox import BrokerUnavailableError
from app.settings import Settings
from app.tasks.broker import RedisBroker
from app.tasks.celery_config import config
from app.tasks.typed_app import TypedCelery
from scripts.live.certificates import Certificates
from scripts.live.deployment import Deployment
from scripts.live.redis_server import NoRedisServerError, RedisServer
from scripts.live.sentinels import SentinelledRedis
from tests.integration.redis_ha.conftest import ShowLogs
from tests.integration.starting.shell import Shell


def said(**values: Any) -> str | None:
    """What a worker with these settings would end with."""
    settings = Settings(**values)
    app = TypedCelery("asking")
    app.conf.update(config(settings))
    broker = RedisBroker(app, timeout=2)
    try:
        with pytest.raises(BrokerUnavailableError) as raised:
            broker.now()
        assert "\n" not in str(raised.value)
        assert " object " not in str(raised.value)
        return refusal(settings.broker, settings, raised.value)
    finally:
        broker.close()


@pytest.mark.timeout(120)
def test_a_redis_that_drops_messages_is_told_by_worker_and_health_check(
    tmp_path: Path, missing_service: Callable[[str], NoReturn], show_logs: ShowLogs
) -> None:
    options = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    try:
        server = RedisServer(folder=tmp_path / "redis", options=options)
    except NoRedisServerError as error:
        missing_service(str(error))
    risk = (
        "Redis drops messages when it is full (maxmemory-policy allkeys-lru): set it to noeviction"
    )
    with server, Deployment(redis_url=server.url, folder=tmp_path / "live") as live:
        show_logs(live.logs)
        shell = Shell(live)
        worker = shell.start_worker("celery -A app.tasks worker --loglevel=info")
        worker.wait_for_line(rf"warning.*{re.escape(risk)}")
        told = shell.run("python -m app.tasks.health")
        assert (told.returncode, risk in told.stdout.splitlines()) == (1, True)
        server.client().config_set("maxmemory-policy", "noeviction")
        assert risk not in shell.run("python -m app.tasks.health").stdout


def test_sentinels_that_would_never_let_us_in_are_told_from_a_master_that_is_away(
    sentinelled: SentinelledRedis,
) -> None:
    given = {name.lower(): value for name, value in sentinelled.environment.items()}
    given["redis_url"] = sentinelled.url
    wrong = {
        "redis_sentinel_master": "REDIS_SENTINEL_MASTER: the sentinels know no 'wrong', for "
        "example REDIS_SENTINEL_MASTER=mymaster",
        "redis_sentinel_password": "REDIS_SENTINEL_PASSWORD: a sentinel refuses: ",
        "redis_password": "REDIS_URL: Redis refuses: ",
    }
    for name, line in wrong.items():
        assert str(said(**{**given, name: "wrong"})).startswith(line)
    port = sentinelled.ports[0]
    encrypted = sentinelled.url.replace("sentinel:", "sentinels:")
    assert said(**{**given, "redis_url": encrypted}) == (
        f"REDIS_URL: 127.0.0.1:{port} speaks no TLS, "
        f"for example REDIS_URL=sentinel://127.0.0.1:{port}"
    )
    sentinelled.master.pause()
    assert said(**given) is None


def test_a_server_that_speaks_no_tls_and_one_that_is_away(own_redis: RedisServer) -> None:
    where = f"127.0.0.1:{own_redis.port}"
    assert said(redis_url=f"rediss://{where}") == (
        f"REDIS_URL: {where} speaks no TLS, for example REDIS_URL=redis://{where}"
    )
    own_redis.stop()
    assert said(redis_url=f"rediss://{where}") is None


def test_a_url_that_forgets_tls(encrypted_redis: RedisServer) -> None:
    where = f"127.0.0.1:{encrypted_redis.port}"
    assert said(redis_url=f"redis://{where}") == (
        f"REDIS_URL: {where} speaks TLS, for example REDIS_URL=rediss://{where}"
    )


def test_a_certificate_for_another_host_is_not_taken(
    encrypted_redis: RedisServer, authority: Certificates
) -> None:
    """localhost is 127.0.0.1, but the certificate does not say so."""
    line = said(
        redis_url=f"rediss://localhost:{encrypted_redis.port}", redis_tls_ca=str(authority.ca)
    )
    assert "not valid for 'localhost'" in str(line)
