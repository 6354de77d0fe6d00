"""Work that fails, and work for later, in a cluster of two workers and a beat."""

import json
from datetime import timedelta

import pytest

from app import clock
from app.models import OutboxState
from scripts.live import jobs
from tests.integration.cluster.cluster import PATIENCE, TEST_TIMEOUT, Cluster

pytestmark = pytest.mark.timeout(TEST_TIMEOUT)

SHORTLY = timedelta(seconds=4)
FOR_EVER = 1000
"""Failures in a row."""


def test_a_transient_failure_is_tried_again_from_its_row_until_it_succeeds(
    cluster: Cluster,
) -> None:
    entry_id = cluster.enqueue("fail_first", "twice", 2)
    cluster.wait_until(lambda: cluster.entry(entry_id).state is OutboxState.DONE, timeout=PATIENCE)
    entry = cluster.entry(entry_id)
    assert (entry.tries, len(entry.errors)) == (2, 2)
    assert (jobs.starts()["twice"], jobs.effects()["twice"]) == (3, 1)


def test_what_still_fails_after_the_last_retry_is_a_dead_letter_that_an_operator_sees(
    cluster: Cluster,
) -> None:
    entry_id = cluster.enqueue("fail_first", "always", FOR_EVER, 0.1)
    cluster.wait_until(lambda: cluster.entry(entry_id).state is OutboxState.DEAD, timeout=PATIENCE)
    tries = 1 + (jobs.fail_first.max_retries or 0)
    assert len(cluster.entry(entry_id).errors) == tries
    assert (jobs.starts()["always"], jobs.effects()["always"]) == (tries, 0)
    (letter,) = json.loads(cluster.second.admin("deadletters", "list", "--json"))
    assert letter["id"] == entry_id


def test_work_planned_for_an_instant_runs_then_and_once(cluster: Cluster) -> None:
    due_at = clock.utcnow() + SHORTLY
    entry_id = cluster.enqueue("work", "later", at=due_at)
    cluster.wait_until(lambda: cluster.entry(entry_id).state is OutboxState.DONE, timeout=PATIENCE)
    assert [start.at >= due_at for start in jobs.starts_of("later")] == [True]
    assert jobs.effects()["later"] == 1


def test_a_celery_countdown_runs_when_it_is_over_and_once(cluster: Cluster) -> None:
    due_at = clock.utcnow() + SHORTLY
    jobs.work.apply_async(("counted",), countdown=SHORTLY.total_seconds(), ignore_result=True)
    cluster.wait_until(lambda: cluster.held() == 1, timeout=PATIENCE)
    cluster.wait_until(lambda: cluster.held() == 0, timeout=PATIENCE)
    assert [start.at >= due_at for start in jobs.starts_of("counted")] == [True]
    assert jobs.effects()["counted"] == 1
