"""When an entry began to be retried, and when a mail's claim was last taken over.

Both columns may be empty, so code of the version before works on this schema. The index
holds the few pending entries whose last attempt failed, for the health check.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.models.types import UtcDateTime

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_outbox_entries_retrying"


def upgrade() -> None:
    op.add_column("outbox_entries", sa.Column("retrying_since", UtcDateTime(), nullable=True))
    op.create_index(
        INDEX,
        "outbox_entries",
        ["task", "retrying_since"],
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND tries > 0"),
        postgresql_where=sa.text("state = 'pending' AND tries > 0"),
    )
    op.add_column("email_messages", sa.Column("uncertain_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    op.drop_column("email_messages", "uncertain_at")
    op.drop_index(INDEX, table_name="outbox_entries")
    op.drop_column("outbox_entries", "retrying_since")
