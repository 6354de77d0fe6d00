"""Each migration on a database that already holds something."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from app import schema
from app.outbox.schedule import Seen, remembered

CONFIG = Config()
CONFIG.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))


def upgrade(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        CONFIG.attributes["connection"] = connection
        command.upgrade(CONFIG, revision)


def downgrade(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        CONFIG.attributes["connection"] = connection
        command.downgrade(CONFIG, revision)


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


A_LESSON = (
    "INSERT INTO users (id, role, email, name, time_zone) VALUES"
    " (1, 'student', 'ada@example.com', 'Ada', 'US/Eastern'),"
    " (2, 'instructor', 'bob@example.com', 'Bob', 'UTC')",
    "INSERT INTO services (id, instructor_id, name, minutes, price_cents)"
    " VALUES (1, 2, 'Piano', 60, 5000)",
    "INSERT INTO bookings (id, student_id, instructor_id, service_id, starts_at, ends_at,"
    " status, price_cents, created_at) VALUES (1, 1, 2, 1, '2026-03-02 12:00:00',"
    " '2026-03-02 13:00:00', 'confirmed', 5000, '2026-03-01 12:00:00')",
    "INSERT INTO email_messages (id, kind, subject_id, recipient_id, state, created_at, claims,"
    " uncertain) VALUES (7, 'confirmation', 1, 1, 'sent', '2026-03-01 12:00:00', 1, 0)",
)
OVERLAPPING = A_LESSON[2].replace("VALUES (1, 1,", "VALUES (2, 1,")


@pytest.fixture
def with_a_lesson(empty_database: Engine) -> Engine:
    """A database of revision 0001 in which somebody has booked."""
    upgrade(empty_database, "0001")
    run(empty_database, *A_LESSON)
    return empty_database


def test_0002_keeps_what_is_there(with_a_lesson: Engine) -> None:
    upgrade(with_a_lesson, "0002")
    with with_a_lesson.connect() as connection:
        mail = connection.execute(text("SELECT id, kind, state FROM email_messages")).one()
        lesson = connection.execute(text("SELECT status, no_show_at FROM bookings")).one()
        wishes = connection.execute(
            text("SELECT DISTINCT wants_booking_mails, wants_reminders, wants_digests FROM users")
        ).one()
    assert mail == (7, "confirmation", "sent")
    assert lesson == ("confirmed", None)
    assert wishes == (1, 1, 1), "who never chose gets what was sent before there was a choice"


def test_0002_keeps_the_refusal_of_double_bookings(with_a_lesson: Engine) -> None:
    upgrade(with_a_lesson, "0002")
    with pytest.raises(DatabaseError, match="overlap"):
        run(with_a_lesson, OVERLAPPING)


def test_0002_allows_the_new_mails_and_still_no_unknown_ones(with_a_lesson: Engine) -> None:
    upgrade(with_a_lesson, "0002")
    run(with_a_lesson, "UPDATE email_messages SET kind = 'password_reset'")
    with pytest.raises(IntegrityError):
        run(with_a_lesson, "UPDATE email_messages SET kind = 'chain_letter'")
    with pytest.raises(IntegrityError):
        run(with_a_lesson, "UPDATE email_messages SET state = 'lost'")


def test_0002_can_be_taken_back(with_a_lesson: Engine) -> None:
    """Mails of kinds that 0001 does not know go with it."""
    upgrade(with_a_lesson, "0002")
    run(
        with_a_lesson,
        "INSERT INTO email_messages (kind, subject_id, recipient_id, state, created_at, claims,"
        " uncertain) VALUES ('digest', 20260301, 1, 'sent', '2026-03-01 12:00:00', 1, 0)",
    )
    downgrade(with_a_lesson, "0001")
    with with_a_lesson.connect() as connection:
        assert connection.scalars(text("SELECT kind FROM email_messages")).all() == ["confirmation"]
    with pytest.raises(DatabaseError, match="overlap"):
        run(with_a_lesson, OVERLAPPING)


def test_0004_keeps_what_beats_remember_and_can_be_taken_back(empty_database: Engine) -> None:
    upgrade(empty_database, "0003")
    run(
        empty_database,
        "INSERT INTO beat_entries (name, schedule_hash, last_due)"
        " VALUES ('nightly', 'x', '2026-03-01 12:00:00')",
    )
    for revision in ("0004", "0003", "0004"):
        (upgrade if revision == "0004" else downgrade)(empty_database, revision)
        with empty_database.connect() as connection:
            rows = connection.execute(text("SELECT name, schedule_hash FROM beat_entries")).all()
        assert rows == [("nightly", "x")]
    with empty_database.connect() as connection:
        seen = remembered(connection)["nightly"]
    assert seen == Seen("x", datetime(2026, 3, 1, 12, tzinfo=UTC))


def test_0007_replaces_an_index_and_can_be_taken_back(with_a_lesson: Engine) -> None:
    by_due_instant, by_urgency = ["due_at"], ["priority", "due_at", "id"]
    for go, revision, columns in (
        (upgrade, "0006", by_due_instant),
        (upgrade, "0007", by_urgency),
        (downgrade, "0006", by_due_instant),
        (upgrade, "0007", by_urgency),
    ):
        go(with_a_lesson, revision)
        indexes = inspect(with_a_lesson).get_indexes("outbox_entries")
        found = {index["name"]: index["column_names"] for index in indexes}
        assert found["ix_outbox_entries_unpublished"] == columns
    with pytest.raises(DatabaseError, match="overlap"):
        run(with_a_lesson, OVERLAPPING)


def test_0006_keeps_work_and_can_be_taken_back(with_a_lesson: Engine) -> None:
    upgrade(with_a_lesson, "0005")
    run(
        with_a_lesson,
        "INSERT INTO outbox_entries (id, task, args, kwargs, queue, priority, state, created_at,"
        " due_at, publishes, resent, deliveries, tries, errors) VALUES ('a', 'x', '[]', '{}',"
        " 'email', 4, 'pending', '2026-03-01 12:00:00', '2026-03-01 12:00:00', 0, 0, 0, 3, '[]')",
    )
    upgrade(with_a_lesson, "0006")
    with with_a_lesson.connect() as connection:
        waits = connection.execute(text("SELECT tries, waits_for FROM outbox_entries")).one()
    assert waits == (3, None)
    downgrade(with_a_lesson, "0005")
    with with_a_lesson.connect() as connection:
        assert connection.scalar(text("SELECT tries FROM outbox_entries")) == 3


def test_0005_keeps_work_that_is_retried_and_can_be_taken_back(with_a_lesson: Engine) -> None:
    upgrade(with_a_lesson, "0003")
    run(
        with_a_lesson,
        "INSERT INTO outbox_entries (id, task, args, kwargs, queue, priority, state, created_at,"
        " due_at, publishes, resent, deliveries, tries, errors) VALUES ('a', 'x', '[]', '{}',"
        " 'email', 4, 'pending', '2026-03-01 12:00:00', '2026-03-01 12:00:00', 0, 0, 0, 3, '[]')",
    )
    upgrade(with_a_lesson, "0005")
    tries = text("SELECT tries, retrying_since FROM outbox_entries")
    with with_a_lesson.connect() as connection:
        assert connection.execute(tries).one() == (3, None)
        assert connection.scalar(text("SELECT uncertain_at FROM email_messages")) is None
    downgrade(with_a_lesson, "0003")
    with with_a_lesson.connect() as connection:
        assert connection.scalar(text("SELECT tries FROM outbox_entries")) == 3
