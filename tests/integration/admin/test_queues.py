"""What an operator purges, while a worker is busy."""

import json

import pytest

from app.models import OutboxState
from scripts.live import jobs
from scripts.live.deployment import Deployment
from scripts.live.job_bench import job_bench
from tests.integration.starting.shell import READY, Shell

WAITING = 700
"""More than one batch of the outbox."""


@pytest.mark.timeout(120)
def test_a_purge_ends_what_waits_also_messages_without_an_entry(live: Deployment) -> None:
    with job_bench(live) as bench:
        shell = Shell(live)
        live.start_worker(concurrency=1)
        bench.enqueue("work", "running", 25.0)
        bench.wait_for_start("running")
        bench.enqueue_many("work", WAITING)
        shell.answer("celery -A app.tasks call app.tasks.health.health_check")
        told = json.loads(shell.answer("python -m app.admin queues purge celery --yes --json"))
        assert told["cancelled"] == WAITING + 1, "the running task's entry too"
        assert told["removed"] in {WAITING, WAITING + 1}, "the worker may hold the next message"
        bench.enqueue("work", "after")
        bench.wait_for_effects(1, timeout=READY)
        assert jobs.effects() == {"after": 1}, "the guard skipped what the worker held"
        assert bench.states() == {OutboxState.CANCELLED: WAITING + 1, OutboxState.DONE: 1}


@pytest.mark.timeout(120)
def test_celerys_own_purge_leaves_the_entries(live: Deployment) -> None:
    """docs/operations.md says so: beat publishes them again."""
    with job_bench(live) as bench:
        bench.enqueue("work", "job")
        assert "Purged 1 message" in Shell(live).answer("celery -A app.tasks purge -f")
        live.start_worker(concurrency=1, environment={"RESEND_MARGIN_SECONDS": "5"})
        live.start_beat(environment={"RESEND_MARGIN_SECONDS": "5"})
        bench.wait_for_effects(1, timeout=READY)
        assert jobs.effects() == {"job": 1}
