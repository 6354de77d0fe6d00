"""What becomes of a worker's work when it is told to stop."""

import pytest

from app.routing import QUEUES
from scripts.live import jobs
from tests.integration.cluster.cluster import PATIENCE, TEST_TIMEOUT, Cluster
from tests.integration.cluster.containers import SLOTS, WorkerContainer, app_container

pytestmark = pytest.mark.timeout(TEST_TIMEOUT)

JOBS = [f"job-{number}" for number in range(14)]
SECONDS = 3.0
"""Of each job: time to look at the worker, and to stop it, while it runs one."""
HELD = 4
"""Messages that the hoarder takes, one to run and the others for later."""

hoarder = app_container(
    command=WorkerContainer.command("--concurrency=1", f"--prefetch-multiplier={HELD}")
)
"""Prefetches, as Celery does by default and our workers do not."""


def test_a_stopped_worker_ends_what_it_runs_and_gives_back_what_it_holds(
    cluster: Cluster, hoarder: WorkerContainer
) -> None:
    cluster.wait_until_consumed(hoarder, queues=[spec.name for spec in QUEUES])
    cluster.enqueue_many("work", len(JOBS), SECONDS)
    everybody = HELD + SLOTS * len(cluster.workers)
    cluster.wait_until(
        lambda: cluster.held() == everybody and hoarder.host in hosts(*JOBS), timeout=PATIENCE
    )
    (reserved,) = cluster.inspect(hoarder).reserved().values()
    hoarder.terminate()
    assert hoarder.wait() == 0
    cluster.wait_for_effects(len(JOBS), timeout=PATIENCE)
    assert jobs.effects() == dict.fromkeys(JOBS, 1)
    assert jobs.starts() == jobs.effects(), "what was begun was ended, and not begun again"
    others = {worker.host for worker in cluster.workers}
    assert hosts(*(task["args"][0] for task in reserved)) & others, "nothing was given back"


def hosts(*names: str) -> set[str]:
    """Where the jobs were started."""
    return {start.host for name in names for start in jobs.starts_of(name)}
