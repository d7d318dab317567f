"""Operators, their sessions and keys, the audit log; and what the console asks of sync events

Expand only: the version before neither reads nor writes what is new. The indexes of sync_events are partial and small: an event
that carried a record over without a word is in neither, and those are nearly all.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
WITHOUT_A_WORD = "event NOT IN ('incoming.user.success', 'incoming.account.success')"


def upgrade() -> None:
    op.create_table(
        "operators",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operators")),
        sa.UniqueConstraint("name", name=op.f("uq_operators_name")),
    )
    op.create_table(
        "operator_sessions",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        _operator("operator_sessions"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_operator_sessions")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        _operator("api_keys"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    for table in ("operator_sessions", "api_keys"):
        op.create_index(op.f(f"ix_{table}_operator_id"), table, ["operator_id"])
    op.create_table(
        "login_attempts",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("failures", sa.SmallInteger(), nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_login_attempts")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("connector_key", sa.Integer(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("detail", postgresql.JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_connector", "audit_log", ["connector_key", "id"])
    op.create_index(
        "ix_sync_events_notable", "sync_events", ["connector_key", "id"], postgresql_where=sa.text(WITHOUT_A_WORD)
    )
    op.create_index(
        "ix_sync_events_hull_alone",
        "sync_events",
        ["connector_key", "entity", "hull_id"],
        postgresql_where=sa.text("pipedrive_id IS NULL AND hull_id IS NOT NULL"),
    )


def _operator(table: str) -> sa.Column[int]:
    key = sa.ForeignKey("operators.id", name=op.f(f"fk_{table}_operator_id"), ondelete="CASCADE")
    return sa.Column("operator_id", sa.BigInteger(), key, nullable=False)


def downgrade() -> None:
    for index in ("ix_sync_events_hull_alone", "ix_sync_events_notable"):
        op.drop_index(index, table_name="sync_events")
    for table in ("audit_log", "login_attempts", "api_keys", "operator_sessions", "operators"):
        op.drop_table(table)
