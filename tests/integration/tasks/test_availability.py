"""A booked slot is gone from the cache, through the outbox, a real worker and a real Redis."""

from datetime import timedelta

import redis
from sqlalchemy import select

from app import clock, db
from app.adapters.slot_cache import decode
from app.models import OutboxEntry, OutboxState
from app.outbox import enqueue
from app.services import bookings
from app.services.availability import free_slots
from scripts.live.job_bench import JobBench
from tests.builders import a_service, a_student

UPDATE = "app.tasks.cache.update_availability"
TWO_DAYS = timedelta(days=2)


def update(bench: JobBench) -> None:
    with db.transaction() as session:
        entry_id = enqueue(session, UPDATE)
    bench.wait_until(lambda: is_done(entry_id), timeout=60)


def is_done(entry_id: str) -> bool:
    with db.reading() as session:
        state = session.scalar(select(OutboxEntry.state).where(OutboxEntry.id == entry_id))
        return state is OutboxState.DONE


def test_a_booked_slot_is_gone_from_what_a_web_process_reads(bench: JobBench) -> None:
    with db.transaction() as session:
        services = [a_service(session, minutes=60) for _ in range(3)]
        student_id = a_student(session).id
    ids = [service.instructor_id for service in services]
    bench.live.start_worker(concurrency=1)

    def read() -> dict[int, list[object]]:
        with redis.Redis.from_url(bench.live.redis_url) as client:
            found = client.mget([f"availability:{each}" for each in ids])
        return {
            each: list(decode(each, text or "").starts[60])
            for each, text in zip(ids, found, strict=True)
        }

    update(bench)
    now = clock.utcnow()
    wished = (now + TWO_DAYS).replace(minute=0, second=0, microsecond=0)
    assert all(wished in starts for starts in read().values())
    with db.transaction() as session:
        bookings.book(
            session, student_id=student_id, service_id=services[0].id, starts_at=wished, now=now
        )
    update(bench)
    cached = read()
    assert [wished in cached[each] for each in ids] == [False, True, True]
    with db.reading() as session:
        computed = free_slots(session, ids, now=clock.utcnow())
    tomorrow = now + TWO_DAYS / 2  # the first slots pass while this runs
    assert {each: [start for start in cached[each] if start > tomorrow] for each in ids} == {
        each: [start for start in computed[each].starts[60] if start > tomorrow] for each in ids
    }
