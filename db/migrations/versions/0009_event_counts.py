"""Counts of events, what comparisons came to, and the order of a connector's runs

Expand only: the version before neither reads nor writes what is new. Counting begins with the oldest event that is kept.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "event_counts",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "at", "event", "reason", name=op.f("pk_event_counts")),
    )
    op.create_table(
        "event_count_mark",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("counted_to", sa.DateTime(timezone=True), nullable=False),
        sa.Column("above_id", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_count_mark")),
    )
    op.create_table(
        "verifications",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=True),
        sa.Column("drift", sa.Integer(), nullable=False),
        sa.Column("took_s", sa.Float(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("counts", postgresql.JSONB(), nullable=False),
        sa.Column("named", postgresql.JSONB(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_verifications_connector_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verifications")),
    )
    op.create_index("ix_verifications_latest", "verifications", ["connector_key", "id"])
    op.create_index("ix_runs_latest", "runs", ["connector_key", "id"])


def downgrade() -> None:
    op.drop_index("ix_runs_latest", table_name="runs")
    for table in ("verifications", "event_count_mark", "event_counts"):
        op.drop_table(table)
