"""The metrics pages when something is missing."""

from time import monotonic

import pytest

from scripts.live.job_bench import JobBench
from scripts.live.redis_server import RedisServer
from tests.integration.observing.watching import ANSWER, Watched


@pytest.mark.timeout(120)
def test_a_port_in_use_is_logged_once_and_the_worker_works(
    watched: Watched, bench: JobBench
) -> None:
    watched.start_worker(name="first", pool="solo", queues=["email"])
    second = watched.start_worker(name="second", pool="solo")
    bench.enqueue("effect", "a")
    bench.wait_for_effects(1, timeout=ANSWER)
    assert second.log_text().count(f"no metrics page on 127.0.0.1 port {watched.port}") == 1
    assert "Traceback" not in second.log_text()
    assert watched.runs() == {}, "the page is the first one's"


@pytest.mark.timeout(120)
def test_port_0_opens_no_page(watched: Watched, bench: JobBench) -> None:
    worker = watched.start_worker(pool="solo", environment={"METRICS_PORT": "0"})
    assert "metrics" not in worker.log_text()


@pytest.mark.timeout(120)
def test_beats_page_tells_of_the_deployment(watched: Watched, bench: JobBench) -> None:
    bench.enqueue_many("effect", 3)
    bench.enqueue("effect", "urgent", urgency=9)
    watched.start_beat()
    port = watched.beat_port
    assert watched.samples("celery_queue_depth", port)[("celery",)] == 4
    assert watched.samples("celery_queue_oldest_seconds", port)[("celery",)] > 0
    assert watched.samples("outbox_rows", port)[("pending",)] >= 4
    assert ("health-check",) in watched.samples("celery_beat_lag_seconds", port)
    assert watched.samples("outbox_resent_total", port) == {(): 0}
    assert watched.samples("celery_broker_memory_bytes", port)[()] > 0
    assert watched.samples("process_start_time_seconds", port)[()] > 0
    assert watched.samples("process_resident_memory_bytes", port)[()] > 0


@pytest.mark.timeout(180)
def test_a_hung_redis_costs_its_gauges_and_not_the_page(
    breakable: Watched, own_redis: RedisServer
) -> None:
    breakable.start_beat()
    assert breakable.samples("celery_queue_depth", breakable.beat_port)
    own_redis.pause()
    try:
        breakable.bench.wait_until(
            lambda: not breakable.samples("celery_queue_depth", breakable.beat_port), timeout=ANSWER
        )
        started = monotonic()
        assert breakable.samples("outbox_rows", breakable.beat_port)
        assert monotonic() - started < 5
    finally:
        own_redis.resume()
    breakable.bench.wait_until(
        lambda: bool(breakable.samples("celery_queue_depth", breakable.beat_port)), timeout=ANSWER
    )


@pytest.mark.timeout(180)
def test_a_message_that_was_gone_is_counted_by_the_beat_that_resent_it(
    breakable: Watched, own_redis: RedisServer
) -> None:
    breakable.bench.live.environment |= {
        "RESEND_MARGIN_SECONDS": "3",
        "PUBLISH_TIMEOUT_SECONDS": "1",
    }
    breakable.bench.enqueue_many("effect", 3)
    with own_redis.client() as client:
        client.flushall()
    breakable.start_beat()
    breakable.bench.wait_until(
        lambda: breakable.samples("outbox_resent_total", breakable.beat_port) == {(): 3},
        timeout=ANSWER,
    )
