"""What a kill, a lost broker and a retry leave: each effect exactly once."""

from time import sleep

import pytest
import redis

from app.models import OutboxEntry, OutboxState
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from scripts.live.redis_server import RedisServer

SHORT_LEASE = {"VISIBILITY_TIMEOUT_SECONDS": "3", "LEASE_INTERVAL_SECONDS": "1"}


def all_once(count: int) -> dict[str, int]:
    return {f"job-{number}": 1 for number in range(count)}


@pytest.mark.timeout(120)
def test_a_killed_workers_task_runs_elsewhere_within_45_seconds(bench: JobBench) -> None:
    victim = bench.live.start_worker(name="victim", concurrency=1)
    bench.live.start_beat()
    bench.enqueue("work", "a", 5)
    bench.wait_for_start("a")
    victim.kill()
    bench.live.start_worker(name="heir", concurrency=1)
    assert bench.wait_for_effects(1, timeout=60) < 45
    assert (jobs.effects()["a"], jobs.starts()["a"]) == (1, 2)


@pytest.mark.timeout(120)
def test_an_effect_that_was_committed_before_the_kill_is_not_doubled(bench: JobBench) -> None:
    bench.live.start_worker(name="victim", concurrency=1, environment=SHORT_LEASE)
    entry_id = bench.enqueue("effect_then_crash", "a")
    bench.wait_for_effects(1, timeout=30)
    heir = bench.live.start_worker(name="heir", concurrency=1, environment=SHORT_LEASE)
    heir.wait_for_line(f"{entry_id}.*succeeded.*skipped", timeout=30)
    assert jobs.effects()["a"] == 1


@pytest.mark.timeout(120)
def test_a_killed_childs_task_is_put_back_and_bounded(bench: JobBench) -> None:
    bench.live.start_worker()
    bench.live.start_beat()
    once = bench.enqueue("kill_child", "once", 1)
    always = bench.enqueue("kill_child", "always", 1000)
    bench.wait_until(lambda: bench.entry(always).state is OutboxState.DEAD, timeout=100)
    bench.wait_until(lambda: bench.entry(once).state is OutboxState.DONE, timeout=30)
    assert (jobs.effects()["once"], jobs.starts()["once"]) == (1, 2)
    assert jobs.starts()["always"] == len(bench.entry(always).errors) == 5
    assert "WorkerLostError" in bench.entry(always).errors[-1]["error"]


@pytest.mark.timeout(120)
def test_retries_wait_in_the_entry_and_not_in_the_broker(bench: JobBench) -> None:
    bench.live.start_worker()
    bench.live.start_beat()
    entry_id = bench.enqueue("fail_first", "a", 3)
    bench.wait_for_effects(1, timeout=60)
    assert (bench.entry(entry_id).tries, jobs.starts()["a"], jobs.effects()["a"]) == (3, 4, 1)


@pytest.mark.timeout(120)
def test_a_permanent_error_is_a_dead_letter_and_the_worker_goes_on(bench: JobBench) -> None:
    bench.live.start_worker(concurrency=1)
    dead = [bench.enqueue("fail", kind, kind) for kind in ("permanent", "assertion")]
    bench.enqueue("work", "after")
    bench.wait_for_effects(1, timeout=30)
    assert {bench.entry(entry_id).state for entry_id in dead} == {OutboxState.DEAD}


@pytest.mark.timeout(180)
def test_a_thousand_waiting_messages_survive_a_flush(
    breakable_bench: JobBench, own_redis: RedisServer
) -> None:
    bench = breakable_bench
    bench.enqueue_many("effect", 1000)
    with own_redis.client() as client:
        assert client.llen("celery4") + client.llen("celery\x06\x164") == 1000
        client.flushall()
    bench.live.start_beat()
    bench.live.start_worker()
    assert bench.wait_for_effects(1000, timeout=120) < 60
    assert jobs.effects() == all_once(1000)


@pytest.mark.timeout(180)
def test_a_booking_succeeds_while_redis_is_stopped_and_is_served_after(
    breakable_bench: JobBench, own_redis: RedisServer
) -> None:
    bench = breakable_bench
    bench.live.start_beat()
    own_redis.stop()
    bench.enqueue("work", "a")
    sleep(2)
    own_redis.start(empty=True)
    bench.live.start_worker()
    bench.wait_for_effects(1, timeout=90)
    assert jobs.effects()["a"] == 1


@pytest.mark.timeout(60)
def test_a_hung_redis_does_not_hold_up_a_booking(
    breakable_bench: JobBench, own_redis: RedisServer
) -> None:
    bench = breakable_bench
    own_redis.pause()
    try:
        took = bench.wait_until(lambda: bool(bench.enqueue("work", "a")), timeout=10)
        again = bench.wait_until(lambda: bool(bench.enqueue("work", "b")), timeout=10)
    finally:
        own_redis.resume()
    assert took < 5
    assert again < 1, "after one time-out the others do not try"


@pytest.mark.timeout(300)
def test_hundreds_of_jobs_survive_kills_cut_connections_and_a_flush(
    breakable_bench: JobBench, own_redis: RedisServer
) -> None:
    """A small one of ``scripts/prove_exactly_once``."""
    bench = breakable_bench
    bench.live.start_beat()
    bench.enqueue_many("effect", 600)
    for kill in range(3):
        worker = bench.live.start_worker(name=f"worker-{kill}")
        sleep(0.3)
        with own_redis.client() as client:
            client.client_kill_filter(_type="normal")
        if kill == 1:
            with own_redis.client() as client:
                client.flushall()
        sleep(0.3)
        worker.kill()
    bench.live.start_worker(name="last")
    bench.wait_for_effects(600, timeout=120)
    assert jobs.effects() == all_once(600)
    assert bench.total(OutboxEntry.resent) > 0, "nothing was lost: the kills came too late"


@pytest.mark.timeout(120)
def test_a_revoked_task_does_not_come_back(bench: JobBench) -> None:
    bench.live.start_worker(concurrency=1)
    bench.live.start_beat(environment={"RESEND_MARGIN_SECONDS": "5"})
    entry_id = bench.enqueue("work", "revoked", 60)
    bench.wait_for_start("revoked")
    jobs.celery_app.control.revoke(entry_id, terminate=True)
    bench.wait_until(lambda: bench.entry(entry_id).state is OutboxState.CANCELLED, timeout=30)
    bench.enqueue("work", "next")
    bench.wait_for_effects(1, timeout=30)
    assert (jobs.starts()["revoked"], jobs.effects()["revoked"]) == (1, 0)


def test_nothing_is_left_to_do_afterwards(bench: JobBench) -> None:
    bench.live.start_worker()
    bench.enqueue_many("effect", 20)
    bench.wait_until(lambda: bench.states() == {OutboxState.DONE: 20}, timeout=30)
    with redis.Redis.from_url(bench.live.redis_url) as client:
        assert client.hlen("unacked") == 0
