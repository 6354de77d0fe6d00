"""Workers and beats that run ``scripts.live.jobs``, and a publisher in the test's process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.redis_server import RedisServer


@pytest.fixture
def bench(live: Deployment) -> Iterator[JobBench]:
    with job_bench(live) as made:
        yield made


@pytest.fixture
def breakable_bench(
    own_redis: RedisServer, tmp_path: Path, show_logs: Callable[[Callable[[], Any]], None]
) -> Iterator[JobBench]:
    """A bench on a Redis of its own, which the test may stop, kill and empty."""
    with Deployment(redis_url=own_redis.url, folder=tmp_path / "live") as deployment:
        show_logs(deployment.logs)
        with job_bench(deployment) as made:
            yield made
