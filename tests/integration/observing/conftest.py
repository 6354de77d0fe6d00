from collections.abc import Iterator

import pytest

from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.ports import free_port
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
