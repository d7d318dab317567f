"""What led to an event: the delivery that told of a record, the exchanges of a batch and of a write

Expand only: every column may be null, and the version before neither reads nor writes them. An event of a fetched page names
none of the new ones, so that it is written as before. The indexes are of events that have a reason, which are few.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS: tuple[tuple[str, str, sa.types.TypeEngine[Any]], ...] = (
    ("sync_events", "delivery_id", sa.BigInteger()),
    ("sync_events", "exchange", sa.Text()),
    ("changes", "delivery_id", sa.BigInteger()),
    ("changes", "claimed_delivery_id", sa.BigInteger()),
    ("batches", "asked", postgresql.JSONB()),
    ("batches", "told", postgresql.JSONB()),
)
INDEXES = (("reason", "ix_sync_events_reason"), ("event", "ix_sync_events_outcome"))


def upgrade() -> None:
    for table, column, kind in COLUMNS:
        op.add_column(table, sa.Column(column, kind, nullable=True))
    for column, index in INDEXES:
        op.create_index(
            index, "sync_events", ["connector_key", column, "id"], postgresql_where=sa.text("reason IS NOT NULL")
        )


def downgrade() -> None:
    for _, index in INDEXES:
        op.drop_index(index, table_name="sync_events")
    for table, column, _ in reversed(COLUMNS):
        op.drop_column(table, column)
