"""The master is lost under load: the sentinels promote its replica, and no work is lost."""

from collections.abc import Callable

import pytest

from app.models import OutboxState
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from scripts.live.redis_server import RedisServer
from scripts.live.sentinels import SentinelledRedis

COUNT = 200


@pytest.mark.timeout(180)
@pytest.mark.parametrize("lose", [RedisServer.kill, RedisServer.pause], ids=["killed", "hung"])
def test_a_lost_master_loses_no_work_and_doubles_none(
    sentinelled: SentinelledRedis,
    sentinelled_bench: JobBench,
    lose: Callable[[RedisServer], None],
) -> None:
    bench = sentinelled_bench
    worker = bench.live.start_worker()
    beat = bench.live.start_beat()
    bench.enqueue_many("effect", COUNT // 2)
    bench.wait_for_effects(COUNT // 10, timeout=30)
    lost = sentinelled.master
    lose(lost)
    bench.enqueue_many("effect", COUNT // 2, first=COUNT // 2)
    sentinelled.wait_for_failover(lost)
    lost.resume()
    bench.wait_until(lambda: bench.states() == {OutboxState.DONE: COUNT}, timeout=120)
    assert jobs.effects() == {f"job-{number}": 1 for number in range(COUNT)}
    assert worker.alive, "it goes on by itself"
    assert beat.alive, "it goes on by itself"
