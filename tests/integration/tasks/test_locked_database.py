"""A SQLite file that another program has locked: an outage is nobody's fault."""

import sqlite3
from contextlib import closing
from time import sleep

import pytest

from app.models import OutboxEntry, OutboxState
from scripts.live import jobs
from scripts.live.job_bench import JobBench

JOBS = 50
LONG = 15.0
"""Seconds."""
SOON = {
    "DATABASE_BUSY_TIMEOUT_SECONDS": "1",
    "RESEND_MARGIN_SECONDS": "2.5",
    "PUBLISH_TIMEOUT_SECONDS": "1",
    "MAX_PUBLISHES": "3",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_worker_on_a_locked_database_takes_no_message_until_it_is_free(
    bench: JobBench, pool: str
) -> None:
    bench.live.environment |= SOON
    worker = bench.live.start_worker(pool=pool)
    bench.enqueue_many("effect", JOBS)
    bench.wait_for_effects(1, timeout=30)
    with closing(sqlite3.connect(bench.live.database, timeout=10)) as other:
        other.execute("BEGIN IMMEDIATE")
        worker.wait_for_line("takes no messages until it does: database is locked", timeout=30)
        sleep(LONG)
        assert worker.alive
        other.rollback()
    worker.wait_for_line("the database answers again", timeout=30)
    bench.live.start_beat()
    bench.wait_until(lambda: bench.states() == {OutboxState.DONE: JOBS}, timeout=60)
    assert jobs.effects() == {f"job-{number}": 1 for number in range(JOBS)}
    assert bench.total(OutboxEntry.resent) == 0, "no message was acknowledged and lost"
    assert worker.log_text().count("takes no messages until it does") == 1
