"""What ``inspect``, ``revoke`` and ``shutdown`` do in a cluster of two workers."""

import pytest

from app.models import OutboxState
from app.routing import DEFAULT_QUEUE
from scripts.live import jobs
from tests.integration.cluster.cluster import PATIENCE, TEST_TIMEOUT, Cluster

pytestmark = pytest.mark.timeout(TEST_TIMEOUT)

FOR_HOURS = 7200.0
QUESTIONS = ("ping", "stats", "active", "reserved", "scheduled", "registered", "active_queues")


def test_both_workers_answer_every_question_of_inspect(cluster: Cluster) -> None:
    nodes = {worker.node for worker in cluster.workers}
    answers = {question: getattr(cluster.inspect(), question)() for question in QUESTIONS}
    assert {question: set(answer or ()) for question, answer in answers.items()} == dict.fromkeys(
        QUESTIONS, nodes
    )
    assert all(jobs.work.name in tasks for tasks in answers["registered"].values())


def test_inspect_names_the_worker_of_a_running_task_and_revoke_ends_it(cluster: Cluster) -> None:
    entry_id = cluster.enqueue("work", "long", FOR_HOURS)
    cluster.wait_for_start("long", timeout=PATIENCE)
    active = cluster.inspect().active() or {}
    runs_it = {node for node, tasks in active.items() if entry_id in {task["id"] for task in tasks}}
    (start,) = jobs.starts_of("long")
    assert runs_it == {worker.node for worker in cluster.workers if worker.host == start.host}

    revoke(cluster, entry_id, terminate=True)
    cluster.wait_until(
        lambda: cluster.entry(entry_id).state is OutboxState.CANCELLED, timeout=PATIENCE
    )
    cluster.wait_until(lambda: cluster.held() == 0, timeout=PATIENCE)
    assert (jobs.starts()["long"], jobs.effects()["long"]) == (1, 0)


def test_a_revoked_task_that_waits_is_cancelled_when_a_worker_meets_its_message(
    cluster: Cluster,
) -> None:
    cluster.pause(DEFAULT_QUEUE)
    entry_id = cluster.enqueue("work", "revoked")
    revoke(cluster, entry_id)
    assert cluster.entry(entry_id).state is OutboxState.PENDING
    cluster.start()
    cluster.wait_until(
        lambda: cluster.entry(entry_id).state is OutboxState.CANCELLED, timeout=PATIENCE
    )
    cluster.enqueue("work", "next")
    cluster.wait_for_effects(1, timeout=PATIENCE)
    assert jobs.starts() == {"next": 1}


def test_after_a_restart_what_was_revoked_runs_and_what_was_cancelled_does_not(
    cluster: Cluster,
) -> None:
    """A revocation is in the memory of the workers alone, a cancellation in the row."""
    cluster.pause(DEFAULT_QUEUE)
    cancelled = cluster.enqueue("work", "cancelled")
    revoked = cluster.enqueue("work", "revoked")
    revoke(cluster, revoked)
    cluster.first.admin("outbox", "cancel", cancelled)
    cluster.stop()
    cluster.start()
    cluster.wait_until(lambda: cluster.entry(revoked).state is OutboxState.DONE, timeout=PATIENCE)
    assert cluster.entry(cancelled).state is OutboxState.CANCELLED
    assert jobs.starts() == {"revoked": 1}


def test_a_worker_shut_down_by_remote_control_ends_well_and_the_other_goes_on(
    cluster: Cluster,
) -> None:
    cluster.app.control.shutdown(destination=[cluster.second.node])
    assert cluster.second.wait() == 0
    names = [f"job-{number}" for number in range(5)]
    cluster.enqueue_many("work", len(names))
    cluster.wait_for_effects(len(names), timeout=PATIENCE)
    assert {jobs.starts_of(name)[0].host for name in names} == {cluster.first.host}


def revoke(cluster: Cluster, entry_id: str, **options: bool) -> None:
    """As ``celery control revoke`` does; both workers have heard it."""
    nodes = [worker.node for worker in cluster.workers]
    heard = cluster.app.control.revoke(
        entry_id, destination=nodes, reply=True, timeout=PATIENCE, **options
    )
    assert {node for answer in heard for node in answer} == set(nodes)
