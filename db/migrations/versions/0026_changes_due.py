"""Read the due changes of one connector, direction and entity in the order in which they are claimed

Until now a claim sorted everything that was due. The first index replaces the one by time alone; the second finds the changes that
wait for something without reading the others.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_changes_due", "changes")
    op.create_index(
        "ix_changes_due",
        "changes",
        ["connector_key", "direction", "entity", "due_at", "id"],
        postgresql_where=sa.text("batch_id IS NULL"),
    )
    op.create_index(
        "ix_changes_waiting",
        "changes",
        ["connector_key", "waits_for"],
        postgresql_where=sa.text("batch_id IS NULL AND waits_for IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_changes_waiting", "changes")
    op.drop_index("ix_changes_due", "changes")
    op.create_index("ix_changes_due", "changes", ["due_at"], postgresql_where=sa.text("batch_id IS NULL"))
