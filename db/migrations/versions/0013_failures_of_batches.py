"""An index of the open failures of batches, so that those made good since are found at every end of a batch

The index is small: few failures are of batches, and only open ones are in it.
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_failures_batches",
        "failures",
        ["connector_key", "direction", "entity"],
        postgresql_where="state = 'open' AND kind = 'batch'",
    )


def downgrade() -> None:
    op.drop_index("ix_failures_batches", "failures")
