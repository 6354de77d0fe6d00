"""Two workers and two beats on PostgreSQL, of which one each is killed: each effect once."""

from time import sleep

import pytest

from app.models import OutboxState
from scripts.live import jobs
from scripts.live.job_bench import JobBench

JOBS = 200
SOON = {
    "VISIBILITY_TIMEOUT_SECONDS": "3",
    "LEASE_INTERVAL_SECONDS": "1",
    "RESEND_MARGIN_SECONDS": "3",
    "PUBLISH_TIMEOUT_SECONDS": "1",
}


@pytest.mark.timeout(120)
def test_each_effect_happens_once_though_a_worker_and_a_beat_are_killed(bench: JobBench) -> None:
    bench.live.environment |= SOON
    victims = [bench.live.start_worker(name="victim"), bench.live.start_beat(name="beat-victim")]
    for name in ("heir", "beat-heir"):
        start = bench.live.start_beat if name.startswith("beat") else bench.live.start_worker
        start(name=name)
    bench.enqueue_many("work", JOBS, 0.02)
    bench.enqueue("fail_first", "retried", 1)
    bench.wait_until(lambda: len(jobs.effects()) >= JOBS // 4, timeout=30)
    for victim in victims:
        victim.kill()
    bench.wait_until(lambda: bench.states() == {OutboxState.DONE: JOBS + 1}, timeout=60)
    sleep(1)  # a second effect would come late
    assert jobs.effects() == {"retried": 1} | {f"job-{number}": 1 for number in range(JOBS)}
