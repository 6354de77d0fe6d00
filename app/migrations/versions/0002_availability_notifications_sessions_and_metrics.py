"""The whole marketplace: availability, check-ins, notifications, sessions, daily metrics.

``email_messages`` gets new kinds. SQLite cannot change a CHECK, so there the table is made
again and its rows are copied; it has no triggers that would get lost. Columns of ``bookings``
are added in place, which keeps the triggers that refuse double bookings.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.models.types import UtcDateTime

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

KINDS_BEFORE = ("confirmation", "cancellation", "reminder_24h", "reminder_1h")
NEW_KINDS = ("no_show", "password_reset", "digest", "weekly_report")
# What a day's metrics are counted by, and what is deleted by its age.
BOOKING_INSTANTS = ("created_at", "cancelled_at", "completed_at", "no_show_at")
EMAIL_INSTANTS = ("created_at", "sent_at", "failed_at")
STATES = ("queued", "sending", "sent", "failed", "cancelled")


def _known(name: str, values: Sequence[str]) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=20)


def _set_email_kinds(kinds: Sequence[str]) -> None:
    if op.get_bind().dialect.name == "sqlite":
        # Reflection leaves CHECKs out, so the copy is told both.
        with op.batch_alter_table(
            "email_messages", recreate="always", table_kwargs={"sqlite_autoincrement": True}
        ) as table:
            table.alter_column("kind", type_=_known("emailkind_known", kinds))
            table.alter_column("state", type_=_known("emailstate_known", STATES))
        return
    name = op.f("ck_email_messages_emailkind_known")
    op.drop_constraint(name, "email_messages", type_="check")
    quoted = ", ".join(f"'{kind}'" for kind in kinds)
    op.create_check_constraint(name, "email_messages", f"kind IN ({quoted})")


def upgrade() -> None:
    op.create_table(
        "broadcasts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("body", sa.String(length=2000), nullable=False),
        sa.Column(
            "audience",
            sa.Enum(
                "student",
                "instructor",
                name="role_known",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=True,
        ),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_broadcasts")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_broadcasts_finished_at"), "broadcasts", ["finished_at"], unique=False)
    op.create_table(
        "daily_metrics",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("active_instructors", sa.Integer(), nullable=False),
        sa.Column("mails_sent", sa.Integer(), nullable=False),
        sa.Column("mails_failed", sa.Integer(), nullable=False),
        sa.Column("tasks_done", sa.Integer(), nullable=False),
        sa.Column("tasks_dead", sa.Integer(), nullable=False),
        sa.Column("bookings_created", sa.Integer(), nullable=False),
        sa.Column("bookings_completed", sa.Integer(), nullable=False),
        sa.Column("bookings_cancelled", sa.Integer(), nullable=False),
        sa.Column("no_shows", sa.Integer(), nullable=False),
        sa.Column("revenue_cents", sa.BigInteger(), nullable=False),
        sa.Column("active_students", sa.Integer(), nullable=False),
        sa.Column("computed_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("date", name=op.f("pk_daily_metrics")),
    )
    op.create_table(
        "paused_queues",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("paused_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_paused_queues")),
    )
    op.create_table(
        "availability_exceptions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instructor_id", sa.Integer(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column(
            "change",
            sa.Enum(
                "blocked",
                "extra",
                name="availabilitychange_known",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("starts_minute", sa.Integer(), nullable=False),
        sa.Column("ends_minute", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "starts_minute >= 0 AND starts_minute < ends_minute AND ends_minute <= 1440",
            name=op.f("ck_availability_exceptions_span_within_a_day"),
        ),
        sa.ForeignKeyConstraint(
            ["instructor_id"],
            ["users.id"],
            name=op.f("fk_availability_exceptions_instructor_id_users"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_availability_exceptions")),
    )
    op.create_index(
        "ix_availability_exceptions_instructor_id_date",
        "availability_exceptions",
        ["instructor_id", "date"],
        unique=False,
    )
    op.create_table(
        "availability_windows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instructor_id", sa.Integer(), nullable=False),
        sa.Column("weekday", sa.Integer(), nullable=False),
        sa.Column("starts_minute", sa.Integer(), nullable=False),
        sa.Column("ends_minute", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "starts_minute >= 0 AND starts_minute < ends_minute AND ends_minute <= 1440",
            name=op.f("ck_availability_windows_span_within_a_day"),
        ),
        sa.CheckConstraint(
            "weekday BETWEEN 0 AND 6", name=op.f("ck_availability_windows_weekday_known")
        ),
        sa.ForeignKeyConstraint(
            ["instructor_id"],
            ["users.id"],
            name=op.f("fk_availability_windows_instructor_id_users"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_availability_windows")),
    )
    op.create_index(
        op.f("ix_availability_windows_instructor_id"),
        "availability_windows",
        ["instructor_id"],
        unique=False,
    )
    op.create_table(
        "instructor_metrics",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("instructor_id", sa.Integer(), nullable=False),
        sa.Column("bookings_created", sa.Integer(), nullable=False),
        sa.Column("bookings_completed", sa.Integer(), nullable=False),
        sa.Column("bookings_cancelled", sa.Integer(), nullable=False),
        sa.Column("no_shows", sa.Integer(), nullable=False),
        sa.Column("revenue_cents", sa.BigInteger(), nullable=False),
        sa.Column("active_students", sa.Integer(), nullable=False),
        sa.Column("computed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instructor_id"], ["users.id"], name=op.f("fk_instructor_metrics_instructor_id_users")
        ),
        sa.PrimaryKeyConstraint("date", "instructor_id", name=op.f("pk_instructor_metrics")),
    )
    op.create_table(
        "password_resets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=True),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("used_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_password_resets_user_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_password_resets")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_password_resets_token_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_password_resets_expires_at"), "password_resets", ["expires_at"], unique=False
    )
    op.create_index(
        op.f("ix_password_resets_user_id"), "password_resets", ["user_id"], unique=False
    )
    op.create_table(
        "stale_availability",
        sa.Column("instructor_id", sa.Integer(), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.Column("cached_changes", sa.Integer(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instructor_id"], ["users.id"], name=op.f("fk_stale_availability_instructor_id_users")
        ),
        sa.PrimaryKeyConstraint("instructor_id", name=op.f("pk_stale_availability")),
    )
    op.create_table(
        "user_sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_sessions_user_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_user_sessions_token_hash")),
    )
    op.create_index(
        op.f("ix_user_sessions_expires_at"), "user_sessions", ["expires_at"], unique=False
    )
    op.create_index(op.f("ix_user_sessions_user_id"), "user_sessions", ["user_id"], unique=False)
    op.create_table(
        "service_metrics",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("service_id", sa.Integer(), nullable=False),
        sa.Column("bookings_created", sa.Integer(), nullable=False),
        sa.Column("bookings_completed", sa.Integer(), nullable=False),
        sa.Column("bookings_cancelled", sa.Integer(), nullable=False),
        sa.Column("no_shows", sa.Integer(), nullable=False),
        sa.Column("revenue_cents", sa.BigInteger(), nullable=False),
        sa.Column("active_students", sa.Integer(), nullable=False),
        sa.Column("computed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_service_metrics_service_id_services")
        ),
        sa.PrimaryKeyConstraint("date", "service_id", name=op.f("pk_service_metrics")),
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "booking_confirmed",
                "booking_cancelled",
                "booking_no_show",
                "booking_completed",
                "booking_expired",
                "broadcast",
                name="notificationkind_known",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("body", sa.String(length=2000), nullable=False),
        sa.Column("booking_id", sa.Integer(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("read_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["booking_id"], ["bookings.id"], name=op.f("fk_notifications_booking_id_bookings")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_notifications_user_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
        sa.UniqueConstraint("key", name=op.f("uq_notifications_key")),
    )
    op.create_index("ix_notifications_read_at", "notifications", ["read_at"], unique=False)
    op.create_index(
        "ix_notifications_user_id_read_at", "notifications", ["user_id", "read_at"], unique=False
    )
    op.add_column("bookings", sa.Column("student_checked_in_at", UtcDateTime(), nullable=True))
    op.add_column("bookings", sa.Column("instructor_checked_in_at", UtcDateTime(), nullable=True))
    op.add_column("bookings", sa.Column("completed_at", UtcDateTime(), nullable=True))
    op.add_column("bookings", sa.Column("no_show_at", UtcDateTime(), nullable=True))
    for column in BOOKING_INSTANTS:
        op.create_index(op.f(f"ix_bookings_{column}"), "bookings", [column], unique=False)
    op.add_column("email_messages", sa.Column("failed_at", UtcDateTime(), nullable=True))
    op.add_column("email_messages", sa.Column("trace_id", sa.String(length=32), nullable=True))
    op.add_column("outbox_entries", sa.Column("trace_id", sa.String(length=32), nullable=True))
    op.add_column("outbox_entries", sa.Column("due_instant", UtcDateTime(), nullable=True))
    op.create_index(
        "ix_outbox_entries_dead",
        "outbox_entries",
        ["state", "finished_at"],
        unique=False,
        sqlite_where=sa.text("state = 'dead'"),
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.add_column(
        "users",
        sa.Column("wants_booking_mails", sa.Boolean(), server_default=sa.true(), nullable=False),
    )
    op.add_column(
        "users",
        sa.Column("wants_reminders", sa.Boolean(), server_default=sa.true(), nullable=False),
    )
    op.add_column(
        "users", sa.Column("wants_digests", sa.Boolean(), server_default=sa.true(), nullable=False)
    )
    _set_email_kinds(KINDS_BEFORE + NEW_KINDS)
    for column in EMAIL_INSTANTS:
        name = op.f(f"ix_email_messages_{column}")
        op.create_index(name, "email_messages", [column], unique=False)


def downgrade() -> None:
    op.execute(
        sa.text("DELETE FROM email_messages WHERE kind IN :kinds").bindparams(
            sa.bindparam("kinds", NEW_KINDS, expanding=True)
        )
    )
    for column in EMAIL_INSTANTS:
        op.drop_index(op.f(f"ix_email_messages_{column}"), table_name="email_messages")
    _set_email_kinds(KINDS_BEFORE)
    op.drop_column("users", "wants_digests")
    op.drop_column("users", "wants_reminders")
    op.drop_column("users", "wants_booking_mails")
    op.drop_index("ix_outbox_entries_dead", table_name="outbox_entries")
    op.drop_column("outbox_entries", "due_instant")
    op.drop_column("outbox_entries", "trace_id")
    op.drop_column("email_messages", "trace_id")
    op.drop_column("email_messages", "failed_at")
    for column in BOOKING_INSTANTS:
        op.drop_index(op.f(f"ix_bookings_{column}"), table_name="bookings")
    op.drop_column("bookings", "no_show_at")
    op.drop_column("bookings", "completed_at")
    op.drop_column("bookings", "instructor_checked_in_at")
    op.drop_column("bookings", "student_checked_in_at")
    op.drop_index("ix_notifications_user_id_read_at", table_name="notifications")
    op.drop_index("ix_notifications_read_at", table_name="notifications")
    op.drop_table("notifications")
    op.drop_table("service_metrics")
    op.drop_index(op.f("ix_user_sessions_user_id"), table_name="user_sessions")
    op.drop_index(op.f("ix_user_sessions_expires_at"), table_name="user_sessions")
    op.drop_table("user_sessions")
    op.drop_table("stale_availability")
    op.drop_index(op.f("ix_password_resets_user_id"), table_name="password_resets")
    op.drop_index(op.f("ix_password_resets_expires_at"), table_name="password_resets")
    op.drop_table("password_resets")
    op.drop_table("instructor_metrics")
    op.drop_index(op.f("ix_availability_windows_instructor_id"), table_name="availability_windows")
    op.drop_table("availability_windows")
    op.drop_index(
        "ix_availability_exceptions_instructor_id_date", table_name="availability_exceptions"
    )
    op.drop_table("availability_exceptions")
    op.drop_table("paused_queues")
    op.drop_table("daily_metrics")
    op.drop_index(op.f("ix_broadcasts_finished_at"), table_name="broadcasts")
    op.drop_table("broadcasts")
