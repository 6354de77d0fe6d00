from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.ports import free_port
from scripts.live.redis_server import RedisServer
from tests.integration.observing.watching import Watched


@pytest.fixture
def bench(live: Deployment) -> Iterator[JobBench]:
    """Jobs on a deployment whose processes log JSON lines."""
    live.environment["LOG_FORMAT"] = "json"
    with job_bench(live) as made:
        yield made


@pytest.fixture
def watched(bench: JobBench) -> Watched:
    return Watched(bench, port=free_port(), beat_port=free_port())


@pytest.fixture
def breakable(
    own_redis: RedisServer, tmp_path: Path, show_logs: Callable[[Callable[[], Any]], None]
) -> Iterator[Watched]:
    """A bench on a Redis of its own, which the test may stop and empty."""
    with Deployment(
        redis_url=own_redis.url, folder=tmp_path / "live", environment={"LOG_FORMAT": "json"}
    ) as deployment:
        show_logs(deployment.logs)
        with job_bench(deployment) as made:
            yield Watched(made, port=free_port(), beat_port=free_port())
