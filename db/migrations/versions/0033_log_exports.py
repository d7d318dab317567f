"""Files of the log that a job writes

Expand only: the version before neither reads nor writes what is new.

Revision ID: 0033
Revises: 0032
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_exports",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="writing", nullable=False),
        sa.Column("before_id", sa.BigInteger(), nullable=True),
        sa.Column("events", sa.Integer(), server_default="0", nullable=False),
        sa.Column("parts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_log_exports_connector_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_exports")),
    )
    op.create_index("ix_log_exports_latest", "log_exports", ["connector_key", "id"])
    op.create_table(
        "log_export_parts",
        sa.Column("export_id", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["export_id"], ["log_exports.id"], name=op.f("fk_log_export_parts_export_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("export_id", "n", name=op.f("pk_log_export_parts")),
    )


def downgrade() -> None:
    op.drop_table("log_export_parts")
    op.drop_table("log_exports")
