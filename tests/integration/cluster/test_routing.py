"""Where work goes in a cluster of two workers, and what goes first."""

from collections.abc import Iterable

import pytest

from app.routing import QUEUES
from scripts.live import jobs
from tests.integration.cluster.cluster import PATIENCE, TEST_TIMEOUT, Cluster
from tests.integration.cluster.containers import SLOTS, WorkerContainer, app_container

pytestmark = pytest.mark.timeout(TEST_TIMEOUT)

BULK = tuple(spec.name for spec in QUEUES if spec.bulk)
URGENT = tuple(spec.name for spec in QUEUES if not spec.bulk)
EACH = 3
"""Jobs in each queue."""
BACKLOG = 80

urgent_worker = app_container(command=WorkerContainer.command("-Q", ",".join(URGENT)))
bulk_worker = app_container(command=WorkerContainer.command("-Q", ",".join(BULK)))


def test_work_of_every_queue_is_done_once(cluster: Cluster) -> None:
    names = [f"{spec.name} {number}" for spec in QUEUES for number in range(EACH)]
    for spec in QUEUES:
        cluster.enqueue_in(spec, [name for name in names if name.split()[0] == spec.name])
    cluster.wait_for_effects(len(names), timeout=PATIENCE)
    assert jobs.effects() == dict.fromkeys(names, 1)
    assert jobs.starts() == jobs.effects()


def test_each_of_two_workers_with_queues_of_their_own_takes_only_from_those(
    cluster: Cluster, urgent_worker: WorkerContainer, bulk_worker: WorkerContainer
) -> None:
    cluster.stop()
    cluster.wait_until_consumed(urgent_worker, queues=URGENT)
    cluster.wait_until_consumed(bulk_worker, queues=BULK)
    for spec in QUEUES:
        cluster.enqueue_in(spec, [f"{spec.name} {number}" for number in range(EACH)])
    cluster.wait_for_effects(len(QUEUES) * EACH, timeout=PATIENCE)
    took = {spec.name: hosts(f"{spec.name} {number}" for number in range(EACH)) for spec in QUEUES}
    assert took == {
        spec.name: {(bulk_worker if spec.bulk else urgent_worker).host} for spec in QUEUES
    }


def test_a_booking_overtakes_a_backlog_that_both_workers_are_at(cluster: Cluster) -> None:
    by_name = {spec.name: spec for spec in QUEUES}
    backlog = [f"backlog-{number}" for number in range(BACKLOG)]
    cluster.enqueue_in(by_name["analytics"], backlog, 0.5)
    cluster.wait_until(
        lambda: (
            {start.host for job in jobs.starts() for start in jobs.starts_of(job)}
            == {worker.host for worker in cluster.workers}
        ),
        timeout=PATIENCE,
    )
    cluster.enqueue_in(by_name["bookings"], ["booking"])
    seen = len(jobs.start_order())
    cluster.wait_for_start("booking", timeout=PATIENCE)
    order = jobs.start_order()
    between = order[seen : order.index("booking")]
    assert len(between) <= len(cluster.workers) * SLOTS, "no more than were on the way to a slot"
    assert len(order) < BACKLOG / 2, "the backlog must not be over"


def hosts(names: Iterable[str]) -> set[str]:
    """Where the jobs were started."""
    return {start.host for name in names for start in jobs.starts_of(name)}
