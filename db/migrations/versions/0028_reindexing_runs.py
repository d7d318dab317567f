"""Backfills that read what is stored by new identifiers

Expand only: the version before neither reads nor writes what is new.

Revision ID: 0028
Revises: 0027
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("reindexes", sa.Boolean(), server_default="false", nullable=False))
    op.create_index(
        "ix_runs_reindexes", "runs", ["connector_key", "entity", "id"], postgresql_where=sa.text("reindexes")
    )


def downgrade() -> None:
    op.drop_index("ix_runs_reindexes", table_name="runs")
    op.drop_column("runs", "reindexes")
