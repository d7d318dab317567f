"""Who comes first under one claim in a plan

Revision ID: 0027
Revises: 0026
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plan_claims",
        sa.Column("plan_id", sa.BigInteger(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_plan_claims_plan_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("plan_id", "entity", "claim", "value", name=op.f("pk_plan_claims")),
    )


def downgrade() -> None:
    op.drop_table("plan_claims")
