"""Urgent work goes first, and slow work goes on all the same."""

import pytest

from app import db, outbox
from app.routing import QUEUES
from scripts import prove_urgency
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from scripts.live.queue_jobs import name_of

BULK = [spec for spec in QUEUES if spec.bulk]
FLOOD = 300
FLOOD_SECONDS = 0.2


@pytest.mark.timeout(180)
def test_one_slot_serves_all_queues_in_the_order_of_their_urgency(bench: JobBench) -> None:
    order = prove_urgency.order_of_queues(bench)
    assert prove_urgency.is_by_urgency(order), order
    assert len(order) == prove_urgency.EACH * len(QUEUES)


@pytest.mark.timeout(180)
def test_a_booking_is_the_next_to_start_whatever_waits(bench: JobBench) -> None:
    between, waiting = prove_urgency.started_between(bench, backlog=200)
    assert between == []
    assert waiting > 100


@pytest.mark.timeout(180)
def test_slow_work_goes_on_in_a_flood_of_bookings_with_a_worker_of_its_own(
    bench: JobBench,
) -> None:
    bookings = next(spec for spec in QUEUES if spec.name == "bookings")
    with db.transaction() as session:
        for number in range(FLOOD):
            outbox.enqueue(session, name_of(bookings), f"flood-{number}", FLOOD_SECONDS)
        for spec in BULK:
            outbox.enqueue(session, name_of(spec), spec.name)
    bench.live.app = prove_urgency.APP
    bench.live.start_worker(name="all", concurrency=1)
    names = {spec.name for spec in BULK}
    assert not names & set(jobs.starts()), "strict order: the others get nothing in a flood"
    bench.live.start_worker(name="bulk", concurrency=1, queues=sorted(names))
    bench.wait_until(lambda: names <= set(jobs.effects()), timeout=60)
    assert len(jobs.starts()) < FLOOD, "the flood must not be over"
