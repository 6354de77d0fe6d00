"""A day counted and old rows deleted, by a real worker of the slow queues."""

from datetime import date, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import clock, db
from app.domain.calendar import DAY, day_of, day_start
from app.models import BookingStatus, OutboxEntry, OutboxState, UserSession
from app.outbox import enqueue
from app.settings import load_settings
from scripts.live.job_bench import JobBench
from tests.builders import a_lesson, a_service, a_student
from tests.metrics import recounted, stored

BACKFILL = "app.tasks.analytics.backfill"
GENERATE_DAILY = "app.tasks.analytics.generate_daily"
DELETE_SESSIONS = "app.tasks.cleanup.delete_expired_sessions"
DELETE_NOTIFICATIONS = "app.tasks.cleanup.delete_old_notifications"
DELETE_OLD_ROWS = "app.tasks.cleanup.delete_old_rows"
LONG_PAST = 10 * DAY


def open_marketplace(session: Session, day: date, zone: ZoneInfo) -> None:
    """Two days with lessons, and a session that has expired beside one that has not."""
    student, service = a_student(session), a_service(session)
    for number, status in enumerate(BookingStatus):
        starts_at = day_start(day, zone) + number * timedelta(hours=9)
        lesson = a_lesson(
            session, starts_at=starts_at, status=status, student=student, service=service
        )
        if status is BookingStatus.COMPLETED:
            lesson.completed_at = lesson.ends_at
    now = clock.utcnow()
    for name, lasts in (("expired", -DAY), ("valid", DAY)):
        session.add(
            UserSession(
                user_id=student.id,
                token_hash=name,
                created_at=now - LONG_PAST,
                expires_at=now + lasts,
            )
        )


def states_of(task: str) -> list[OutboxState]:
    with db.reading() as session:
        return list(session.scalars(select(OutboxEntry.state).where(OutboxEntry.task == task)))


def test_a_real_worker_counts_days_and_deletes_old_rows(bench: JobBench) -> None:
    zone = ZoneInfo(load_settings().celery_timezone)
    first = day_of(clock.utcnow() - LONG_PAST, zone)
    days = [first, first + DAY]
    with db.transaction() as session:
        open_marketplace(session, first, zone)
        enqueue(session, BACKFILL, first.isoformat(), days[-1].isoformat())
        enqueue(session, DELETE_SESSIONS)
        enqueue(session, DELETE_NOTIFICATIONS)
    bench.live.start_worker(concurrency=1, queues=["analytics", "maintenance"])
    done = [OutboxState.DONE]
    bench.wait_until(
        lambda: (
            states_of(GENERATE_DAILY) == 2 * done
            and states_of(DELETE_SESSIONS) == states_of(DELETE_OLD_ROWS) == done
        ),
        timeout=60,
    )
    with db.reading() as session:
        assert [stored(session, day) for day in days] == [
            recounted(session, day, zone) for day in days
        ]
        assert stored(session, first)[0]["bookings_completed"] == 0
        assert stored(session, days[-1])[0]["bookings_completed"] == 1
        assert session.scalars(select(UserSession.token_hash)).all() == ["valid"]
