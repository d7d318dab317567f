"""Look-ups see what is listed and not loaded yet, and changes say what they wait for

The marks of look-ups may be ahead of what the index holds: they are dropped, and the next look-up lists from the watermark on.

Expand only: the version before neither reads nor writes what is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

UNLOADED = (
    "direction = 'incoming' AND extracted IS NOT NULL"
    " AND (state = 'failed' OR cause = 'look_up' AND state IN ('ready', 'running'))"
)
READ_WHOLE = """
    UPDATE watermarks w
       SET fully_read_at = (SELECT max(r.started_at) FROM runs r
                             WHERE r.connector_key = w.connector_key AND r.entity = w.entity AND r.kind = 'full'
                               AND r.state = 'done')"""


def upgrade() -> None:
    op.add_column("watermarks", sa.Column("fully_read_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(READ_WHOLE)
    op.create_index("ix_batches_unloaded", "batches", ["connector_key", "entity"], postgresql_where=sa.text(UNLOADED))
    op.execute("DELETE FROM mirrors")


def downgrade() -> None:
    op.drop_index("ix_batches_unloaded", "batches")
    op.drop_column("watermarks", "fully_read_at")
