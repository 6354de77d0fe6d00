"""The index of unpublished entries in the order in which the relay publishes them.

It takes the place of the one on their due instants alone, which had to be sorted for each
batch, and knew no urgency. Code of the version before works on this schema.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_outbox_entries_unpublished"
BEFORE = ["due_at"]
AFTER = ["priority", "due_at", "id"]


def upgrade() -> None:
    _replace(AFTER)


def downgrade() -> None:
    _replace(BEFORE)


def _replace(columns: list[str]) -> None:
    op.drop_index(INDEX, table_name="outbox_entries")
    op.create_index(
        INDEX,
        "outbox_entries",
        columns,
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND published_at IS NULL"),
        postgresql_where=sa.text("state = 'pending' AND published_at IS NULL"),
    )
