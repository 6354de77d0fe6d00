"""What postponed the message of an entry's attempt, such as a rate limit.

The column may be empty, so code of the version before works on this schema. The index of
retrying entries stays: an entry whose attempt was postponed is one of few, and is left out
when its row is read.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("outbox_entries", sa.Column("waits_for", sa.String(255), nullable=True))


def downgrade() -> None:
    op.drop_column("outbox_entries", "waits_for")
