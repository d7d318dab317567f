"""Remote systems that do not answer, and what waits for them

Expand only: the version before neither reads nor writes what is new. Columns without a default need no rewrite.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

TABLES = ("batches", "changes", "errands")


def upgrade() -> None:
    for name in TABLES:
        op.add_column(name, sa.Column("waits_for", sa.Text(), nullable=True))
    op.create_table(
        "outages",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("remote", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="1", nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("is_shared", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("probe_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "remote", name=op.f("pk_outages")),
        sa.ForeignKeyConstraint(
            ["connector_key"], ["connectors.key"], name=op.f("fk_outages_connector_key"), ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("outages")
    for name in reversed(TABLES):
        op.drop_column(name, "waits_for")
