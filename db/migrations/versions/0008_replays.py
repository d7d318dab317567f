"""Replays: what a person set going again, item by item; and what lists of failures ask for

Expand only: the version before neither reads nor writes what is new. Failures are few beside events, so an index more on them
costs a record that fails a moment and no other record anything.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "replays",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("chosen", postgresql.JSONB(), nullable=False),
        sa.Column("per_second", sa.Float(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sent_until", TIME, nullable=True),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replays")),
    )
    op.create_index("ix_replays_latest", "replays", ["connector_key", "id"])
    op.create_table(
        "replay_items",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("replay_id", sa.BigInteger(), nullable=False),
        sa.Column("failure_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("sent_at", TIME, nullable=True),
        sa.Column("after_event", sa.BigInteger(), nullable=True),
        sa.Column("settled_at", TIME, nullable=True),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("new_failure_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replay_items")),
        sa.ForeignKeyConstraint(
            ["replay_id"], ["replays.id"], name=op.f("fk_replay_items_replay_id"), ondelete="CASCADE"
        ),
    )
    op.create_index("ix_replay_items_state", "replay_items", ["replay_id", "state", "id"])
    op.create_index("ix_replay_items_failure", "replay_items", ["failure_id"])
    op.add_column("failures", sa.Column("settings_version", sa.Integer(), nullable=True))
    op.create_index("ix_failures_subject", "failures", ["connector_key", "subject", "id"])
    op.create_index("ix_failures_groups", "failures", ["connector_key", "state", "fingerprint", "id"])


def downgrade() -> None:
    for index in ("ix_failures_groups", "ix_failures_subject"):
        op.drop_index(index, table_name="failures")
    op.drop_column("failures", "settings_version")
    for table in ("replay_items", "replays"):
        op.drop_table(table)
