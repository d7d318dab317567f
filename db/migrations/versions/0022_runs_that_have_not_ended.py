"""An index of the runs that have not ended, for figures that are read every few seconds

Expand only. The table holds a few rows a day and connector, so the index is made within a second.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_runs_unended",
        "runs",
        ["connector_key", "entity", "state"],
        postgresql_where=sa.text("state IN ('running', 'held', 'stopped')"),
    )


def downgrade() -> None:
    op.drop_index("ix_runs_unended", "runs")
