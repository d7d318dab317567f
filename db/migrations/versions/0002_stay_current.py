"""What staying current needs: authorisation, watermarks, ids seen by a fetch, tokens spent, webhook subscriptions

Expand only: every column that is added may be empty or has a default, so the version before goes on meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _connector_key(*, foreign: bool = True) -> sa.Column[int]:
    return sa.Column(
        "connector_key", sa.Integer(), *([sa.ForeignKey("connectors.key")] if foreign else []), nullable=False
    )


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    op.add_column("connectors", sa.Column("company_id", sa.BigInteger(), nullable=True))
    op.add_column("connectors", sa.Column("authorised_by", sa.BigInteger(), nullable=True))
    op.add_column("credentials", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "oauth_states",
        sa.Column("digest", sa.Text(), nullable=False),
        _connector_key(),
        _now("created_at"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_oauth_states")),
    )
    op.alter_column("schedules", "cron", existing_type=sa.Text(), nullable=True)
    op.add_column("schedules", sa.Column("interval_s", sa.Integer(), nullable=True))
    op.execute(
        "INSERT INTO schedules (connector_key, kind, interval_s, next_run_at) "
        "SELECT key, 'incremental', 300, now() FROM connectors"
    )
    op.create_table(
        "watermarks",
        _connector_key(),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("reached_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("complete_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("excepted", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deletes_verified_at", sa.DateTime(timezone=True), nullable=True),
        _now("moved_at"),
        sa.PrimaryKeyConstraint("connector_key", "entity", name=op.f("pk_watermarks")),
    )
    op.create_table(
        "page_ids",
        sa.Column("run_id", sa.BigInteger(), sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=False),
        sa.Column("ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "batch_id", name=op.f("pk_page_ids")),
    )
    op.create_table(
        "token_ledger",
        _connector_key(),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "day", "lane", "operation", name=op.f("pk_token_ledger")),
    )
    op.create_table(
        "webhook_subscriptions",
        _connector_key(),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("healed", sa.Integer(), server_default="0", nullable=False),
        _now("checked_at"),
        sa.Column("sound_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("connector_key", "entity", name=op.f("pk_webhook_subscriptions")),
    )
    op.create_index("ix_deliveries_received", "deliveries", ["connector_key", "source", "received_at"])
    op.add_column("changes", sa.Column("is_created", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("id_mappings", sa.Column("absences", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("id_mappings", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("id_mappings", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_id_mappings_merged",
        "id_mappings",
        ["connector_key", "merged_into"],
        postgresql_where=sa.text("merged_into IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_column("changes", "is_created")
    op.drop_index("ix_deliveries_received", "deliveries")
    op.drop_index("ix_id_mappings_merged", "id_mappings")
    op.drop_column("id_mappings", "asked_at")
    op.drop_column("id_mappings", "deleted_at")
    op.drop_column("id_mappings", "absences")
    for table in ("webhook_subscriptions", "token_ledger", "page_ids", "watermarks"):
        op.drop_table(table)
    op.drop_column("schedules", "interval_s")
    op.execute("DELETE FROM schedules WHERE cron IS NULL")
    op.alter_column("schedules", "cron", existing_type=sa.Text(), nullable=False)
    op.drop_table("oauth_states")
    op.drop_column("credentials", "expires_at")
    op.drop_column("connectors", "authorised_by")
    op.drop_column("connectors", "company_id")
