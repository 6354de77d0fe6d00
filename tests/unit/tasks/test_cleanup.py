from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from app import db, outbox
from app.models import OutboxEntry, OutboxState, UserSession
from app.outbox import retention
from app.outbox.broker import OutboxMessage
from app.services.cleanup import BATCH
from app.settings import load_settings
from app.tasks import cleanup
from app.tasks.cleanup import LONGEST_RUN
from tests.builders import a_student
from tests.fakes import FakeBroker, FakeClock
from tests.tracing import deliver
from tests.unit.tasks.conftest import Bench, add_mark, entry, marks

MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens in the pauses between batches, one call for each; none sleeps."""
    coming: list[Callable[[], object]] = []
    monkeypatch.setattr(cleanup.time, "sleep", lambda _: coming.pop(0)() if coming else None)
    return coming


def message(broker: FakeBroker, task: str) -> OutboxMessage:
    with db.transaction() as session:
        outbox.enqueue(session, task)
    return broker.pushed[-1]


def expired_sessions(now: FakeClock, number: int) -> None:
    with db.transaction() as session:
        reader = a_student(session).id
        session.bulk_insert_mappings(
            UserSession.__mapper__,
            [
                {
                    "user_id": reader,
                    "token_hash": f"{index:064}",
                    "created_at": now.now - timedelta(days=1),
                    "expires_at": now.now,
                }
                for index in range(number)
            ],
        )


def sessions_left() -> int:
    with db.reading() as session:
        return session.scalar(select(func.count()).select_from(UserSession)) or 0


def test_a_run_says_how_many_it_has_deleted(
    broker: FakeBroker, now: FakeClock, pauses: list[Callable[[], object]]
) -> None:
    expired_sessions(now, 3)
    run = message(broker, cleanup.delete_expired_sessions.name)
    result = deliver(cleanup.delete_expired_sessions, run).result
    assert result == {"deleted": {"sessions": 3}, "more": False}
    assert len(broker.pushed) == 1


def test_what_a_run_had_no_time_for_is_deleted_by_the_next(
    broker: FakeBroker, now: FakeClock, pauses: list[Callable[[], object]]
) -> None:
    expired_sessions(now, 2 * BATCH + 1)
    pauses.append(lambda: now.advance(seconds=LONGEST_RUN.total_seconds()))
    first = message(broker, cleanup.delete_expired_sessions.name)
    assert deliver(cleanup.delete_expired_sessions, first).result["more"]
    assert sessions_left() == 1
    following = broker.pushed[-1]
    assert (following.id != first.id, following.task) == (True, first.task)
    assert deliver(cleanup.delete_expired_sessions, first).result["status"] == "skipped"
    assert not deliver(cleanup.delete_expired_sessions, following).result["more"]
    assert (sessions_left(), len(broker.pushed)) == (0, 2)


class WorkerKilled(BaseException):
    ends_its_process = True


def test_a_killed_run_is_continued_by_its_redelivery(
    broker: FakeBroker, now: FakeClock, pauses: list[Callable[[], object]]
) -> None:
    def die() -> None:
        raise WorkerKilled

    expired_sessions(now, BATCH + 1)
    pauses.append(die)
    run = message(broker, cleanup.delete_expired_sessions.name)
    with pytest.raises(WorkerKilled):
        deliver(cleanup.delete_expired_sessions, run)
    assert (sessions_left(), entry(run.id).state) == (1, OutboxState.PENDING)
    again = deliver(cleanup.delete_expired_sessions, run, redelivered=True)
    assert again.result == {"deleted": {"sessions": 1}, "more": False}


def test_old_rows_follow_the_notifications(broker: FakeBroker) -> None:
    run = message(broker, cleanup.delete_old_notifications.name)
    assert deliver(cleanup.delete_old_notifications, run).result["deleted"] == {"notifications": 0}
    following = broker.pushed[-1]
    assert following.task == cleanup.delete_old_rows.name
    assert not any(deliver(cleanup.delete_old_rows, following).result["deleted"].values())
    assert len(broker.pushed) == 2


def test_a_run_ends_well_before_its_time_limit() -> None:
    assert 2 * LONGEST_RUN.total_seconds() < load_settings().task_soft_time_limit_seconds


def test_a_message_that_comes_after_its_done_row_was_deleted_has_no_effect(
    bench: Bench, now: FakeClock
) -> None:
    def body(self: object) -> None:
        with self.transaction() as session:  # type: ignore[attr-defined]
            add_mark(session)

    task = bench.task(body)
    run = bench.enqueue(task)
    deliver(task, run)
    with db.transaction() as session:
        assert retention.purge(session, before=now.now + MICROSECOND) == 1
    assert deliver(task, run, redelivered=True).result["status"] == "skipped"
    assert marks() == 1


def test_a_run_does_not_delete_its_own_entry(broker: FakeBroker, now: FakeClock) -> None:
    run = message(broker, cleanup.delete_old_rows.name)
    now.advance(days=400)
    deliver(cleanup.delete_old_rows, run)
    with db.reading() as session:
        assert session.scalars(select(OutboxEntry.id)).all() == [run.id]
