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


FULL = "Redis is full and refuses writes: raise its maxmemory, or add workers"
REPLICA = "Redis is a read-only replica and refuses writes: set REDIS_URL to the primary"
ASKING = (
    "celery -A app.tasks call app.tasks.health.health_check",
    "celery -A app.tasks inspect ping",
    "celery -A app.tasks control revoke 1",
    "celery -A app.tasks status",
)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("refuse", "line"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), FULL),
        (("REPLICAOF", "127.0.0.1", "1"), REPLICA),
    ],
)
def test_a_redis_that_refuses_writes_is_told_from_one_that_does_not_answer(
    refuse: tuple[str, ...], line: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    with Deployment(redis_url=own_redis.url, folder=tmp_path / "live") as live:
        shell = Shell(live)
        shell.run("python -m app.admin database upgrade")
        own_redis.client().execute_command(*refuse)
        health = shell.run("python -m app.tasks.health")
        problems = health.stdout.partition("\n\n")[0].splitlines()
        assert (health.returncode, line in problems) == (1, True)
        assert "does not answer" not in health.stdout
        asked = shell.together(*ASKING)
        assert [done.returncode for done in asked] == [2] * len(ASKING)
        assert [done.stderr for done in asked] == [f"REDIS_URL: {line}\n"] * len(ASKING)


@pytest.mark.timeout(60)
def test_messages_are_purged_from_a_redis_that_is_full(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """It makes room."""
    with Deployment(redis_url=own_redis.url, folder=tmp_path / "live") as live:
        shell = Shell(live)
        shell.run("python -m app.admin database upgrade")
        own_redis.client().lpush("email", "a message")
        own_redis.client().config_set("maxmemory", "1")
        told = shell.run("python -m app.admin queues purge email --yes")
        assert told.stdout.splitlines()[0] == (
            "email is purged: 0 entries cancelled, 1 message removed"
        ), told


def test_a_user_who_may_not_run_a_command_is_told_which(own_redis: RedisServer) -> None:
    own_redis.client().execute_command("ACL", "SETUSER", "worker", "on", ">pw", "~*", "+ping")
    line = str(said(redis_url=own_redis.url.replace("//", "//worker:pw@")))
    assert line.startswith("REDIS_URL: Redis refuses a command: ")
    assert "'time'" in line
    assert "ACL SETUSER" in line


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
