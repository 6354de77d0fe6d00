"""What waits is not resent, however long, and whatever else lies in its list."""

from collections.abc import Callable
from datetime import datetime, timedelta
from time import sleep

import pytest
import redis

from app import clock
from app.models import OutboxEntry, OutboxState
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from scripts.live.redis_server import RedisServer

MARGIN_SECONDS = 2
LOOKS = 8
"""How many margins the pump watches the backlog for."""


@pytest.mark.timeout(400)
def test_a_backlog_of_ten_thousand_is_never_resent(
    breakable_bench: JobBench, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a publisher whose clock is ahead, urgent calls, retries, and a foreign head."""
    bench = breakable_bench
    jobs.work.apply_async(("foreign", 1.0), ignore_result=True)
    bench.enqueue_many("work", 5000, 0.05)
    real_utcnow: Callable[[], datetime] = clock.utcnow
    with monkeypatch.context() as skewed:
        skewed.setattr(clock, "utcnow", lambda: real_utcnow() + timedelta(minutes=5))
        bench.enqueue_many("work", 2500, 0.05, first=5000)
    bench.enqueue_many("work", 2500, 0.05, first=7500)
    for number in range(100):
        bench.enqueue("fail_first", f"retried-{number}", 1, urgency=9)
    bench.live.start_beat(
        environment={
            "RESEND_MARGIN_SECONDS": str(MARGIN_SECONDS),
            "PUBLISH_TIMEOUT_SECONDS": str(MARGIN_SECONDS / 4),
        }
    )
    bench.live.start_worker(concurrency=2)
    bench.wait_until(
        lambda: sum(job.startswith("retried") for job in jobs.effects()) == 100, timeout=90
    )
    sleep(LOOKS * MARGIN_SECONDS)
    with own_redis.client() as client:
        assert _waiting(client) > 5000, "the backlog must be longer than the test"
    assert bench.total(OutboxEntry.resent) == 0
    assert max(jobs.starts()[f"job-{number}"] for number in range(10_000)) == 1
    assert bench.states()[OutboxState.DEAD] == 0


@pytest.mark.timeout(120)
def test_urgent_work_overtakes_a_backlog(bench: JobBench) -> None:
    bench.enqueue_many("work", 300, 0.05)
    bench.live.start_worker(concurrency=1)
    bench.wait_for_effects(5, timeout=30)
    before = len(jobs.starts())
    bench.enqueue("work", "urgent", urgency=9)
    bench.wait_for_start("urgent")
    assert jobs.start_order().index("urgent") <= before + 3


def _waiting(client: "redis.Redis") -> int:
    return sum(client.llen(key) for key in client.scan_iter("celery*", _type="list"))
