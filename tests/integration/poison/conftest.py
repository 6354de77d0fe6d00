from collections.abc import Iterator
from datetime import timedelta

import pytest

from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from tests.integration.poison import open_jobs
from tests.integration.poison.fuzzing import Fuzzed
from tests.integration.poison.raw_messages import Lists

VISIBILITY_TIMEOUT = timedelta(seconds=6)
"""Short, so that a message which a worker cannot get rid of comes again within the test."""


@pytest.fixture
def bench(live: Deployment) -> Iterator[JobBench]:
    with job_bench(live) as made:
        live.app = open_jobs.__name__
        live.environment.update(
            {
                "UNKNOWN_TASK_RETRIES": "0",
                "MAX_DELIVERIES": "2",
                "VISIBILITY_TIMEOUT_SECONDS": f"{VISIBILITY_TIMEOUT.total_seconds():.0f}",
                "LEASE_INTERVAL_SECONDS": "1",
            }
        )
        yield made


@pytest.fixture
def lists(bench: JobBench) -> Iterator[Lists]:
    made = Lists(bench.live.redis_url)
    yield made
    made.close()


@pytest.fixture
def fuzzed(bench: JobBench, lists: Lists) -> Fuzzed:
    return Fuzzed(bench, lists)
