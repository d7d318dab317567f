"""Live batches note which remote system they call, so that one that stalls holds no more than its share of the processes

Expand only: the version before neither reads nor writes what is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("slot", sa.Text(), nullable=True))
    op.add_column("batches", sa.Column("slot_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("batches", "slot_at")
    op.drop_column("batches", "slot")
