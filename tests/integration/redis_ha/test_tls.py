"""An encrypted Redis is used by everything, and a wrong certificate is one line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import db, outbox
from app.adapters.slot_cache import slot_cache_from
from app.settings import load_settings
from scripts.live import jobs
from scripts.live.certificates import Certificates, certificates
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.redis_server import RedisServer
from tests.integration.redis_ha.conftest import ShowLogs
from tests.integration.starting.shell import Shell

WORKER = "celery -A app.tasks worker"
BEAT = "celery -A app.tasks beat"
SILENCE = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}


@pytest.fixture
def encrypted_bench(
    encrypted_redis: RedisServer, authority: Certificates, tmp_path: Path, show_logs: ShowLogs
) -> Iterator[JobBench]:
    with Deployment(
        redis_url=encrypted_redis.url,
        folder=tmp_path / "live",
        environment={"REDIS_TLS_CA": str(authority.ca)},
    ) as live:
        show_logs(live.logs)
        with job_bench(live) as made:
            yield made


def refused(shell: Shell, **environment: str) -> str:
    """The one line that worker and beat end with."""
    lines = set()
    for done in shell.together(WORKER, BEAT, **SILENCE, **environment):
        assert done.returncode == 2
        assert "Traceback" not in done.stdout + done.stderr
        (line,) = (said for said in done.stderr.splitlines() if "beat: Starting" not in said)
        lines.add(line)
    (line,) = lines
    return line


@pytest.mark.timeout(180)
def test_everything_works_on_an_encrypted_redis(encrypted_bench: JobBench) -> None:
    shell = Shell(encrypted_bench.live)
    encrypted_bench.live.start_worker()
    encrypted_bench.live.start_beat()
    encrypted_bench.enqueue("work", "a")
    encrypted_bench.wait_for_effects(1, timeout=30)
    assert jobs.effects()["a"] == 1
    status, healthy = shell.together(
        "python -m app.admin outbox status", "python -m app.tasks.health --json"
    )
    assert status.returncode == 0, status.stderr
    assert json.loads(healthy.stdout)["problems"] == []
    assert jobs.celery_app.control.ping(timeout=10, limit=1), "broadcasts take another connection"
    with db.transaction() as session:
        outbox.enqueue(session, "app.tasks.cache.update_availability")
    with slot_cache_from(load_settings()) as cache:
        encrypted_bench.wait_until(lambda: cache.fully_refreshed_at() is not None, timeout=30)


@pytest.mark.timeout(120)
def test_a_server_that_another_authority_signed_is_one_line(
    encrypted_redis: RedisServer, live: Deployment, tmp_path: Path
) -> None:
    other = certificates(tmp_path / "other")
    line = refused(Shell(live), REDIS_URL=encrypted_redis.url, REDIS_TLS_CA=str(other.ca))
    assert line.startswith(f"REDIS_TLS_CA: Redis's certificate is not one that {other.ca} trusts ")
    assert "for example REDIS_TLS_CA=" in line
