"""Bookings, mails, outbox and beat.

A booking that is not cancelled overlaps no other one of the same instructor or student.
SQLite has no exclusion constraints, so triggers refuse it, on INSERT and on UPDATE: an
UPDATE of the status alone could make two bookings collide too. A later migration that
recreates the table drops its triggers with it and must make them again.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.models.types import UtcDateTime

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


OVERLAP_EVENTS = {
    "insert": "INSERT",
    "update": "UPDATE OF starts_at, ends_at, status, instructor_id, student_id",
}
PARTIES = ("instructor", "student")


def create_sqlite_triggers() -> None:
    for event, clause in OVERLAP_EVENTS.items():
        for party in PARTIES:
            op.execute(
                f"""
                CREATE TRIGGER bookings_{party}_overlap_on_{event}
                BEFORE {clause} ON bookings
                WHEN NEW.status <> 'cancelled' AND EXISTS (
                    SELECT 1 FROM bookings AS other
                    WHERE other.{party}_id = NEW.{party}_id
                      AND other.id IS NOT NEW.id
                      AND other.status <> 'cancelled'
                      AND other.starts_at < NEW.ends_at
                      AND other.ends_at > NEW.starts_at
                )
                BEGIN
                    SELECT RAISE(ABORT, 'bookings_{party}_overlap');
                END
                """  # noqa: S608 - the words are ours
            )


def create_postgresql_exclusions() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    for party in PARTIES:
        op.execute(
            f"""
            ALTER TABLE bookings ADD CONSTRAINT bookings_{party}_overlap
            EXCLUDE USING gist (
                {party}_id WITH =, tstzrange(starts_at, ends_at) WITH &&
            ) WHERE (status <> 'cancelled')
            """
        )


def upgrade() -> None:
    op.create_table(
        "beat_entries",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("schedule_hash", sa.String(length=64), nullable=False),
        sa.Column("last_due", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_beat_entries")),
    )
    op.create_table(
        "outbox_entries",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("task", sa.String(length=255), nullable=False),
        sa.Column("args", sa.JSON(), nullable=False),
        sa.Column("kwargs", sa.JSON(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=True),
        sa.Column("queue", sa.String(length=100), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "done",
                "dead",
                "cancelled",
                name="outboxstate_known",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("publishes", sa.Integer(), nullable=False),
        sa.Column("resent", sa.Integer(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("errors", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "priority BETWEEN 0 AND 9", name=op.f("ck_outbox_entries_priority_is_one_digit")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_entries")),
    )
    op.create_index(
        "ix_outbox_entries_published",
        "outbox_entries",
        ["queue", "priority", "published_at"],
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND published_at IS NOT NULL"),
        postgresql_where=sa.text("state = 'pending' AND published_at IS NOT NULL"),
    )
    op.create_index(
        "ix_outbox_entries_finished_at_state",
        "outbox_entries",
        ["finished_at", "state"],
        unique=False,
    )
    op.create_index(
        "ix_outbox_entries_unpublished",
        "outbox_entries",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND published_at IS NULL"),
        postgresql_where=sa.text("state = 'pending' AND published_at IS NULL"),
    )
    op.create_index(
        "uq_outbox_entries_key",
        "outbox_entries",
        ["key"],
        unique=True,
        sqlite_where=sa.text("state <> 'cancelled'"),
        postgresql_where=sa.text("state <> 'cancelled'"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column(
            "role",
            sa.Enum(
                "student",
                "instructor",
                name="role_known",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("time_zone", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_table(
        "email_messages",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "confirmation",
                "cancellation",
                "reminder_24h",
                "reminder_1h",
                name="emailkind_known",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("subject_id", sa.Integer(), nullable=False),
        sa.Column("recipient_id", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "sending",
                "sent",
                "failed",
                "cancelled",
                name="emailstate_known",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("leased_until", UtcDateTime(), nullable=True),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("uncertain", sa.Integer(), nullable=False),
        sa.Column("sent_at", UtcDateTime(), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.ForeignKeyConstraint(
            ["recipient_id"], ["users.id"], name=op.f("fk_email_messages_recipient_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_email_messages")),
        sa.UniqueConstraint(
            "kind",
            "subject_id",
            "recipient_id",
            name=op.f("uq_email_messages_kind_subject_id_recipient_id"),
        ),
    )
    op.create_index(
        "ix_email_messages_state_leased_until",
        "email_messages",
        ["state", "leased_until"],
        unique=False,
    )
    op.create_table(
        "services",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instructor_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("minutes", sa.Integer(), nullable=False),
        sa.Column("price_cents", sa.Integer(), nullable=False),
        sa.CheckConstraint("minutes > 0", name=op.f("ck_services_minutes_positive")),
        sa.CheckConstraint("price_cents >= 0", name=op.f("ck_services_price_not_negative")),
        sa.ForeignKeyConstraint(
            ["instructor_id"], ["users.id"], name=op.f("fk_services_instructor_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_services")),
    )
    op.create_index(op.f("ix_services_instructor_id"), "services", ["instructor_id"], unique=False)
    op.create_table(
        "bookings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("student_id", sa.Integer(), nullable=False),
        sa.Column("instructor_id", sa.Integer(), nullable=False),
        sa.Column("service_id", sa.Integer(), nullable=False),
        sa.Column("starts_at", UtcDateTime(), nullable=False),
        sa.Column("ends_at", UtcDateTime(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "pending",
                "confirmed",
                "cancelled",
                "completed",
                "no_show",
                name="bookingstatus_known",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("price_cents", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("confirmed_at", UtcDateTime(), nullable=True),
        sa.Column("cancelled_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_bookings_ends_after_start")),
        sa.CheckConstraint("price_cents >= 0", name=op.f("ck_bookings_price_not_negative")),
        sa.ForeignKeyConstraint(
            ["instructor_id"], ["users.id"], name=op.f("fk_bookings_instructor_id_users")
        ),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_bookings_service_id_services")
        ),
        sa.ForeignKeyConstraint(
            ["student_id"], ["users.id"], name=op.f("fk_bookings_student_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bookings")),
    )
    op.create_index(
        "ix_bookings_instructor_id_starts_at",
        "bookings",
        ["instructor_id", "starts_at"],
        unique=False,
    )
    op.create_index(
        "ix_bookings_status_starts_at", "bookings", ["status", "starts_at"], unique=False
    )
    op.create_index(
        "ix_bookings_student_id_starts_at", "bookings", ["student_id", "starts_at"], unique=False
    )
    if op.get_bind().dialect.name == "sqlite":
        create_sqlite_triggers()
    else:
        create_postgresql_exclusions()


def downgrade() -> None:
    op.drop_index("ix_bookings_student_id_starts_at", table_name="bookings")
    op.drop_index("ix_bookings_status_starts_at", table_name="bookings")
    op.drop_index("ix_bookings_instructor_id_starts_at", table_name="bookings")
    op.drop_table("bookings")
    op.drop_index(op.f("ix_services_instructor_id"), table_name="services")
    op.drop_table("services")
    op.drop_index("ix_email_messages_state_leased_until", table_name="email_messages")
    op.drop_table("email_messages")
    op.drop_table("users")
    op.drop_index(
        "uq_outbox_entries_key",
        table_name="outbox_entries",
        sqlite_where=sa.text("state <> 'cancelled'"),
        postgresql_where=sa.text("state <> 'cancelled'"),
    )
    op.drop_index(
        "ix_outbox_entries_unpublished",
        table_name="outbox_entries",
        sqlite_where=sa.text("state = 'pending' AND published_at IS NULL"),
        postgresql_where=sa.text("state = 'pending' AND published_at IS NULL"),
    )
    op.drop_index("ix_outbox_entries_finished_at_state", table_name="outbox_entries")
    op.drop_index(
        "ix_outbox_entries_published",
        table_name="outbox_entries",
        sqlite_where=sa.text("state = 'pending' AND published_at IS NOT NULL"),
        postgresql_where=sa.text("state = 'pending' AND published_at IS NOT NULL"),
    )
    op.drop_table("outbox_entries")
    op.drop_table("beat_entries")
