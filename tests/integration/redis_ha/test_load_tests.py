"""A load test reaches a Redis as the app does: encrypted, and by way of sentinels."""

from pathlib import Path

import pytest

from app.routing import QUEUES
from scripts.live.certificates import Certificates
from scripts.live.deployment import Deployment
from scripts.live.redis_server import RedisServer
from scripts.live.sentinels import SentinelledRedis
from tests.integration.loadtests.conftest import Locust

pytestmark = pytest.mark.timeout(240)

SHORT = ("-u", "10", "-r", "50", "-t", "4s", "--backlog", "5")


@pytest.fixture
def encrypted(authority: Certificates) -> dict[str, str]:
    return {"REDIS_TLS_CA": str(authority.ca)}


def measured(deployment: Deployment, folder: Path, **environment: str) -> set[str]:
    """The queues of which a short load test measured something."""
    deployment.start_worker()
    locust = Locust(deployment, folder)
    done = locust.run(*SHORT, f"--objectives={locust.patient}", **environment)
    assert done.status == 0, done.output
    figures = done.figures
    return {name for kind, name in figures if kind == "in queue"}


def test_an_encrypted_redis_is_loaded(
    encrypted_redis: RedisServer, encrypted: dict[str, str], tmp_path: Path
) -> None:
    with Deployment(
        redis_url=encrypted_redis.url, folder=tmp_path / "live", environment=encrypted
    ) as live:
        assert "bookings" in measured(live, tmp_path / "locust", **encrypted)


def test_a_redis_that_sentinels_know_is_loaded(
    sentinelled: SentinelledRedis, tmp_path: Path
) -> None:
    environment = dict(sentinelled.environment)
    with Deployment(
        redis_url=sentinelled.url, folder=tmp_path / "live", environment=environment
    ) as live:
        queues = measured(live, tmp_path / "locust", **environment)
        assert queues <= {spec.name for spec in QUEUES}
        assert "bookings" in queues
