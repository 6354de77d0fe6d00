"""Which definition of an entry is in force, which ones beats have, and an entry's last run.

Only additions: beats of the version before write the two columns that they know.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.models.types import UtcDateTime

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INSTANTS = ("next_due", "last_run_due", "last_run_at")
TEXTS = {"definition": 64, "last_run_id": 255}


def upgrade() -> None:
    for name in INSTANTS:
        op.add_column("beat_entries", sa.Column(name, UtcDateTime(), nullable=True))
    for name, length in TEXTS.items():
        op.add_column("beat_entries", sa.Column(name, sa.String(length), nullable=True))
    op.create_table(
        "beat_definitions",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("definition", sa.String(length=64), nullable=False),
        sa.Column("schedule_hash", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=1000), nullable=False),
        sa.Column("kept_through", UtcDateTime(), nullable=True),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("name", "definition", name=op.f("pk_beat_definitions")),
    )


def downgrade() -> None:
    op.drop_table("beat_definitions")
    for name in (*INSTANTS, *TEXTS):
        op.drop_column("beat_entries", name)
