"""The master is lost under load: the sentinels promote its replica, and no work is lost."""

import pytest

from app.models import OutboxEntry, OutboxState
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from scripts.live.sentinels import SentinelledRedis

COUNT = 200


def half_is_under_way(bench: JobBench) -> None:
    bench.live.start_worker()
    bench.live.start_beat()
    bench.enqueue_many("effect", COUNT // 2)
    bench.wait_for_effects(COUNT // 10, timeout=30)


def all_are_done_once_by_the_same_processes(bench: JobBench) -> bool:
    bench.wait_until(lambda: bench.states() == {OutboxState.DONE: COUNT}, timeout=120)
    assert jobs.effects() == {f"job-{number}": 1 for number in range(COUNT)}
    return all(process.alive for process in bench.live.processes)


@pytest.mark.timeout(180)
def test_what_a_killed_master_had_not_passed_on_is_sent_again(
    sentinelled: SentinelledRedis, sentinelled_bench: JobBench
) -> None:
    bench = sentinelled_bench
    half_is_under_way(bench)
    lost, replica = sentinelled.master, sentinelled.cut_off_replica()
    bench.enqueue_many("effect", COUNT // 2, first=COUNT // 2)
    lost.kill()
    replica.resume()
    sentinelled.wait_for_failover(lost)
    assert all_are_done_once_by_the_same_processes(bench)
    assert bench.total(OutboxEntry.resent) > 0, "nothing was lost: the replica was not behind"


@pytest.mark.timeout(180)
def test_a_master_that_hung_and_comes_back_doubles_nothing(
    sentinelled: SentinelledRedis, sentinelled_bench: JobBench
) -> None:
    bench = sentinelled_bench
    half_is_under_way(bench)
    lost = sentinelled.master
    lost.pause()
    bench.enqueue_many("effect", COUNT // 2, first=COUNT // 2)
    sentinelled.wait_for_failover(lost)
    lost.resume()
    assert all_are_done_once_by_the_same_processes(bench)


@pytest.mark.timeout(180)
def test_an_encrypted_master_that_is_killed_is_followed_by_encrypted_sentinels(
    encrypted_sentinels: SentinelledRedis, encrypted_sentinels_bench: JobBench
) -> None:
    bench = encrypted_sentinels_bench
    half_is_under_way(bench)
    lost = encrypted_sentinels.master
    lost.kill()
    bench.enqueue_many("effect", COUNT // 2, first=COUNT // 2)
    encrypted_sentinels.wait_for_failover(lost)
    assert all_are_done_once_by_the_same_processes(bench)
