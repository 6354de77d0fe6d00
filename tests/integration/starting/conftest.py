from collections.abc import Iterator

import pytest

from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from tests.integration.starting.shell import Shell


@pytest.fixture
def shell(live: Deployment) -> Iterator[Shell]:
    """Lines typed into a deployment; what still runs in the end is killed, to save time."""
    yield Shell(live)
    for process in live.processes:
        process.kill()


@pytest.fixture
def bench(live: Deployment) -> Iterator[JobBench]:
    with job_bench(live) as made:
        yield made
