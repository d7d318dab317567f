"""Fields that stayed behind are kept as failures of their own, and field definitions have a life

Expand only: the version before neither reads nor writes what is new. The new columns are added without rewriting a table.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

OPEN = "state = 'open' AND record_id IS NOT NULL"


def upgrade() -> None:
    op.add_column("field_definitions", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    texts = postgresql.ARRAY(sa.Text())
    op.add_column("field_definitions", sa.Column("unknown", texts, server_default=sa.text("'{}'"), nullable=False))
    op.add_column("field_definitions", sa.Column("in_vain", sa.Integer(), server_default="0", nullable=False))
    op.add_column("runs", sa.Column("rejected_fields", sa.Integer(), server_default="0", nullable=False))
    op.add_column("sync_events", sa.Column("field", sa.Text(), nullable=True))
    columns = ["connector_key", "direction", "entity", "record_id"]
    op.create_index("ix_failures_record", "failures", columns, postgresql_where=sa.text(OPEN))


def downgrade() -> None:
    op.execute("DELETE FROM failures WHERE kind = 'field'")
    op.drop_index("ix_failures_record", table_name="failures")
    op.drop_column("sync_events", "field")
    op.drop_column("runs", "rejected_fields")
    for name in ("in_vain", "unknown", "asked_at"):
        op.drop_column("field_definitions", name)
