"""Without the index on the state and lease of mails: no query uses it.

Each mail was moved in it twice, and each end of a move is a page to be written.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_email_messages_state_leased_until"


def upgrade() -> None:
    op.drop_index(INDEX, table_name="email_messages")


def downgrade() -> None:
    op.create_index(INDEX, "email_messages", ["state", "leased_until"], unique=False)
