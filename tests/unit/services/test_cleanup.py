"""What is deleted and what stays, in batches that a kill may end and others may interrupt."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from app import db
from app.models import (
    BeatDefinition,
    BeatEntry,
    Broadcast,
    EmailKind,
    EmailMessage,
    EmailState,
    Notification,
    NotificationKind,
    OutboxEntry,
    OutboxState,
    PasswordReset,
    UserSession,
)
from app.services import cleanup
from app.services.cleanup import Deletion, Swept
from app.settings import Settings
from tests.builders import NOON, a_student
from tests.fakes import FakeClock
from tests.query_plans import plans_of

SETTINGS = Settings()
MICROSECOND = timedelta(microseconds=1)
BUDGET = timedelta(seconds=30)

pytestmark = pytest.mark.usefixtures("database")


class WorkerKilled(BaseException):
    pass


@dataclass
class Sweeper:
    """A worker with a clock that the test holds."""

    clock: FakeClock = field(default_factory=lambda: FakeClock(NOON))
    during_pause: Callable[[], None] = lambda: None

    def sweep(self, deletions: dict[str, Deletion], batch: int = 10) -> Swept:
        return cleanup.sweep(
            deletions,
            budget=BUDGET,
            clock=self.clock,
            pause=lambda: self.during_pause(),
            batch=batch,
        )


_numbers = count(1)


def an_entry(state: OutboxState, finished_at: datetime | None) -> OutboxEntry:
    return OutboxEntry(
        id=f"work-{next(_numbers)}",
        task="app.tasks.email.deliver",
        queue="email",
        priority=4,
        state=state,
        created_at=NOON - timedelta(days=400),
        due_at=NOON - timedelta(days=400),
        finished_at=finished_at,
    )


def a_mail(
    state: EmailState, reader: int, created_at: datetime, failed_at: datetime | None = None
) -> EmailMessage:
    return EmailMessage(
        kind=EmailKind.DIGEST,
        subject_id=next(_numbers),
        recipient_id=reader,
        state=state,
        created_at=created_at,
        failed_at=failed_at,
    )


def a_session(reader: int, expires_at: datetime) -> UserSession:
    return UserSession(
        user_id=reader,
        token_hash=f"{next(_numbers):064}",
        created_at=expires_at - timedelta(days=14),
        expires_at=expires_at,
    )


def a_reset(reader: int, expires_at: datetime, used_at: datetime | None = None) -> PasswordReset:
    return PasswordReset(
        user_id=reader,
        token_hash=f"{next(_numbers):064}",
        created_at=expires_at - timedelta(hours=1),
        expires_at=expires_at,
        used_at=used_at,
    )


def a_notification(reader: int, read_at: datetime | None) -> Notification:
    return Notification(
        user_id=reader,
        kind=NotificationKind.BROADCAST,
        key=f"broadcast:{next(_numbers)}",
        title="News",
        body="None",
        created_at=NOON - timedelta(days=400),
        read_at=read_at,
    )


def a_broadcast(finished_at: datetime | None) -> Broadcast:
    return Broadcast(
        title="News",
        body="None",
        created_at=NOON - timedelta(days=400),
        finished_at=finished_at,
    )


def ago(days: int) -> datetime:
    return NOON - timedelta(days=days)


def expired_sessions() -> dict[str, Deletion]:
    return cleanup.expired_sessions(now=NOON)


def old_notifications() -> dict[str, Deletion]:
    return cleanup.old_notifications(SETTINGS, now=NOON)


def old_rows() -> dict[str, Deletion]:
    return cleanup.old_rows(SETTINGS, now=NOON)


# What is deleted, and what is a moment too young for it or stays for ever.
TABLES = [
    pytest.param(
        expired_sessions,
        "sessions",
        lambda reader: [a_session(reader, NOON)],
        lambda reader: [a_session(reader, NOON + MICROSECOND)],
        id="sessions",
    ),
    pytest.param(
        old_notifications,
        "notifications",
        lambda reader: [a_notification(reader, ago(30) - MICROSECOND)],
        lambda reader: [a_notification(reader, ago(30)), a_notification(reader, None)],
        id="notifications",
    ),
    pytest.param(
        old_rows,
        "outbox",
        lambda _: [
            an_entry(OutboxState.DONE, ago(7) - MICROSECOND),
            an_entry(OutboxState.CANCELLED, ago(7) - MICROSECOND),
        ],
        lambda _: [
            an_entry(OutboxState.DONE, ago(7)),
            an_entry(OutboxState.CANCELLED, ago(7)),
            an_entry(OutboxState.PENDING, None),
        ],
        id="outbox",
    ),
    pytest.param(
        old_rows,
        "dead_letters",
        lambda _: [an_entry(OutboxState.DEAD, ago(90) - MICROSECOND)],
        lambda _: [an_entry(OutboxState.DEAD, ago(90))],
        id="dead letters",
    ),
    pytest.param(
        old_rows,
        "mails",
        lambda reader: [
            a_mail(EmailState.SENT, reader, ago(90) - MICROSECOND),
            a_mail(EmailState.CANCELLED, reader, ago(90) - MICROSECOND),
        ],
        lambda reader: [
            a_mail(EmailState.SENT, reader, ago(90)),
            a_mail(EmailState.CANCELLED, reader, ago(90)),
            a_mail(EmailState.QUEUED, reader, ago(400)),
            a_mail(EmailState.SENDING, reader, ago(400)),
        ],
        id="mails",
    ),
    pytest.param(
        old_rows,
        "failed_mails",
        lambda reader: [a_mail(EmailState.FAILED, reader, ago(95), ago(90) - MICROSECOND)],
        lambda reader: [
            a_mail(EmailState.FAILED, reader, ago(95), ago(90)),
            a_mail(EmailState.SENDING, reader, ago(95), ago(91)),  # an operator's repetition
        ],
        id="failed mails",
    ),
    pytest.param(
        old_rows,
        "password_resets",
        lambda reader: [
            a_reset(reader, ago(7) - MICROSECOND),
            a_reset(reader, ago(7) - MICROSECOND, used_at=ago(8)),
        ],
        lambda reader: [a_reset(reader, ago(7)), a_reset(reader, ago(7), used_at=ago(8))],
        id="password resets",
    ),
    pytest.param(
        old_rows,
        "broadcasts",
        lambda _: [a_broadcast(ago(90) - MICROSECOND)],
        lambda _: [a_broadcast(ago(90)), a_broadcast(None)],
        id="broadcasts",
    ),
]


@pytest.mark.parametrize(("deletions", "name", "old", "kept"), TABLES)
def test_what_is_too_old_is_deleted_and_nothing_else(
    deletions: Any, name: str, old: Any, kept: Any
) -> None:
    with db.transaction() as session:
        reader = a_student(session).id
        session.add_all(old(reader))
        young = kept(reader)
        session.add_all(young)
        session.flush()
        expected = {row.id for row in young}
        number = len(old(reader))
    swept = Sweeper().sweep(deletions())
    assert {table: rows for table, rows in swept.deleted.items() if rows} == {name: number}
    assert not swept.more
    with db.reading() as session:
        assert set(session.scalars(select(type(young[0]).id))) == expected


def test_definitions_that_no_beat_has_had_for_long_are_deleted_but_never_the_one_in_force() -> None:
    def definition(name: str, definition: str, seen_at: datetime) -> BeatDefinition:
        return BeatDefinition(
            name=name,
            definition=definition,
            schedule_hash="x",
            description="x",
            seen_at=seen_at,
            host="x",
        )

    old, young = ago(90) - MICROSECOND, ago(90)
    with db.transaction() as session:
        session.add(
            BeatEntry(name="nightly", schedule_hash="x", definition="in force", last_due=old)
        )
        session.add_all(
            [
                definition("nightly", "in force", old),
                definition("nightly", "replaced", old),
                definition("nightly", "replaced lately", young),
                definition("of another name", "in force", old),
            ]
        )
    assert Sweeper().sweep(old_rows()).deleted["beat_definitions"] == 2
    assert Sweeper().sweep(old_rows()).deleted["beat_definitions"] == 0
    with db.reading() as session:
        left = set(session.scalars(select(BeatDefinition.definition)))
    assert left == {"in force", "replaced lately"}


def test_a_failed_mail_stays_as_long_as_its_dead_letter() -> None:
    settings = Settings(mail_retention_days=7, dead_letter_retention_days=90)
    with db.transaction() as session:
        session.add(a_mail(EmailState.FAILED, a_student(session).id, ago(90), ago(90)))
    swept = Sweeper().sweep(cleanup.old_rows(settings, now=NOON))
    assert sum(swept.deleted.values()) == 0


def many_sessions(number: int) -> None:
    with db.transaction() as session:
        reader = a_student(session).id
        session.add_all(
            [a_session(reader, NOON - timedelta(seconds=second)) for second in range(number)]
        )


def sessions_left() -> int:
    with db.reading() as session:
        return session.scalar(select(func.count()).select_from(UserSession)) or 0


def test_no_transaction_deletes_more_than_a_batch() -> None:
    many_sessions(25)
    left: list[int] = []
    sweeper = Sweeper(during_pause=lambda: left.append(sessions_left()))
    assert sweeper.sweep(expired_sessions(), batch=10) == Swept({"sessions": 25}, more=False)
    assert [*left, sessions_left()] == [15, 5, 0]


def test_the_oldest_go_first() -> None:
    many_sessions(3)
    with db.transaction() as session:
        expired_sessions()["sessions"](session, 2)
        left = session.scalars(select(UserSession.expires_at)).all()
    assert left == [NOON]


def test_others_write_between_two_batches(database: Engine) -> None:
    many_sessions(25)
    url = database.url.render_as_string(hide_password=False)
    impatient = db.create_database_engine(url, busy_timeout=0)
    written: list[int] = []

    def write() -> None:
        with Session(impatient) as session, session.begin():
            written.append(a_student(session).id)

    Sweeper(during_pause=write).sweep(expired_sessions(), batch=10)
    impatient.dispose()
    assert len(written) == 2


def test_a_run_whose_time_is_up_says_that_there_is_more() -> None:
    many_sessions(30)
    sweeper = Sweeper()
    sweeper.during_pause = lambda: sweeper.clock.advance(seconds=BUDGET.total_seconds())
    swept = sweeper.sweep(expired_sessions(), batch=10)
    assert (swept.deleted, swept.more, sessions_left()) == ({"sessions": 20}, True, 10)
    swept = sweeper.sweep(expired_sessions(), batch=11)
    assert (swept.deleted, swept.more) == ({"sessions": 10}, False)


def test_a_killed_run_leaves_whole_batches_and_the_next_one_goes_on() -> None:
    many_sessions(25)

    def die() -> None:
        raise WorkerKilled

    with pytest.raises(WorkerKilled):
        Sweeper(during_pause=die).sweep(expired_sessions(), batch=10)
    assert sessions_left() == 15
    assert Sweeper().sweep(expired_sessions(), batch=10).deleted == {"sessions": 15}


INDEXES = {
    "sessions": "user_sessions USING INDEX ix_user_sessions_expires_at",
    "notifications": "notifications USING INDEX ix_notifications_read_at",
    "outbox": "outbox_entries USING INDEX ix_outbox_entries_finished_at_state",
    "dead_letters": "outbox_entries USING INDEX ix_outbox_entries_dead",
    "mails": "email_messages USING INDEX ix_email_messages_created_at",
    "failed_mails": "email_messages USING INDEX ix_email_messages_failed_at",
    "password_resets": "password_resets USING INDEX ix_password_resets_expires_at",
    "broadcasts": "broadcasts USING INDEX ix_broadcasts_finished_at",
}


def all_deletions() -> dict[str, Deletion]:
    return expired_sessions() | old_notifications() | old_rows()


@pytest.mark.parametrize("name", INDEXES)
def test_each_deletion_finds_its_rows_by_an_index_and_sorts_nothing(
    database: Engine, name: str
) -> None:
    with db.transaction() as session, plans_of(database) as plans:
        all_deletions()[name](session, 10)
    (plan,) = plans
    searches = [line.replace("COVERING ", "") for line in plan]
    assert [line for line in searches if line.startswith(f"SEARCH {INDEXES[name]} (")]
    assert not [line for line in plan if line.startswith("SCAN") and "batch" not in line]
    assert not [line for line in plan if "TEMP B-TREE" in line]


def test_every_deletion_has_its_index() -> None:
    few = {"beat_definitions"}  # some for each entry of the schedule
    assert set(all_deletions()) == set(INDEXES) | few


@pytest.mark.parametrize("name", [*INDEXES, "beat_definitions"])
def test_on_postgresql_no_deletion_waits_for_a_row(database: Engine, name: str) -> None:
    seen: list[Any] = []
    with db.transaction() as session:
        event.listen(session, "do_orm_execute", lambda state: seen.append(state.statement))
        all_deletions()[name](session, 10)
    sql = str(seen[0].compile(dialect=postgresql.dialect()))
    assert sql.startswith("WITH batch AS")
    assert "ORDER BY" in sql
    assert "FOR UPDATE SKIP LOCKED" in sql
