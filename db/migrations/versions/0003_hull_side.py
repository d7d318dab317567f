"""What Hull's side needs: errands, and the settings that Hull was last seen with

Expand only: the column that is added may be empty, so the version before goes on meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "errands",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("connector_key", sa.Integer(), sa.ForeignKey("connectors.key"), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.Text(), server_default="due", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("asked", sa.Integer(), server_default="1", nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("token", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("woken_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("mark", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_errands")),
    )
    due = sa.text("state = 'due'")
    op.create_index("uq_errands_due", "errands", ["kind", "key"], unique=True, postgresql_where=due)
    op.create_index("ix_errands_due", "errands", ["due_at"], postgresql_where=due)
    op.add_column("connectors", sa.Column("hull_settings", postgresql.JSONB(), nullable=True))
    op.execute("""
        UPDATE connectors c SET hull_settings =
               (SELECT v.document FROM settings_versions v
                 WHERE v.connector_key = c.key AND v.author = 'hull' ORDER BY v.version DESC LIMIT 1)""")


def downgrade() -> None:
    op.drop_column("connectors", "hull_settings")
    op.drop_table("errands")
