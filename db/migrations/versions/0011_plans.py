"""Plans of settings, with an item for every record they looked at; runs know the plan they carry out

Expand only: the version before neither reads nor writes what is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("base_version", sa.Integer(), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.Column("definitions", postgresql.JSONB(), nullable=False),
        sa.Column("fields_read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="computing", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("phase", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cursor", sa.Text(), server_default="", nullable=False),
        sa.Column("counts", postgresql.JSONB(), server_default="{}", nullable=False),
        *(
            sa.Column(name, sa.Integer(), server_default="0", nullable=False)
            for name in ("known", "examined", "tokens")
        ),
        sa.Column("takes_s", sa.Float(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("settings_version", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["connector_key"], ["connectors.key"], name=op.f("fk_plans_connector_key")),
        sa.ForeignKeyConstraint(["parent_id"], ["plans.id"], name=op.f("fk_plans_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
    )
    op.create_index("ix_plans_latest", "plans", ["connector_key", "id"])
    op.create_table(
        "plan_items",
        sa.Column("plan_id", sa.BigInteger(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("record_id", sa.Text(), nullable=False),
        sa.Column("pipedrive_id", sa.BigInteger(), nullable=True),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("told", sa.BigInteger(), nullable=True),
        sa.Column("names", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("fields", sa.LargeBinary(), nullable=True),
        sa.Column("message", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_plan_items_plan_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("plan_id", "direction", "entity", "record_id", name=op.f("pk_plan_items")),
        postgresql_with={"toast_tuple_target": "8160"},
    )
    op.create_index("ix_plan_items_act", "plan_items", ["plan_id", "direction", "entity", "act", "record_id"])
    op.add_column("runs", sa.Column("plan_id", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "plan_id")
    op.drop_table("plan_items")
    op.drop_table("plans")
