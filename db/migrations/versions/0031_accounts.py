"""Keys expire and have a role, sessions say where they are, a second factor, failed logins by name and place, origins of acts

Keys that exist get their owner's role and expire after 90 days. Counts of failed logins start again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

NOW = sa.text("now()")


def upgrade() -> None:
    op.add_column("operators", sa.Column("totp_sealed", sa.LargeBinary(), nullable=True))
    op.add_column("operators", sa.Column("totp_confirmed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("operators", sa.Column("totp_step", sa.BigInteger(), nullable=True))
    digests: sa.Column[list[bytes]] = sa.Column(
        "recovery_digests", postgresql.ARRAY(sa.LargeBinary()), server_default=sa.text("'{}'"), nullable=False
    )
    op.add_column("operators", digests)
    op.add_column("operator_sessions", sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False))
    op.create_unique_constraint(op.f("uq_operator_sessions_id"), "operator_sessions", ["id"])
    for name in ("address", "agent"):
        op.add_column("operator_sessions", sa.Column(name, sa.Text(), server_default="", nullable=False))
    op.add_column("api_keys", sa.Column("role", sa.Text(), nullable=True))
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "UPDATE api_keys k SET role = o.role, expires_at = now() + interval '90 days'"
        "  FROM operators o WHERE o.id = k.operator_id"
    )
    op.alter_column("api_keys", "role", nullable=False)
    op.alter_column("api_keys", "expires_at", nullable=False)
    op.add_column("audit_log", sa.Column("origin", sa.Text(), nullable=True))
    op.drop_table("login_attempts")
    op.create_table(
        "login_attempts",
        sa.Column("name_digest", sa.LargeBinary(), nullable=False),
        sa.Column("place_digest", sa.LargeBinary(), nullable=False),
        sa.Column("failures", sa.Double(), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("name_digest", "place_digest", name=op.f("pk_login_attempts")),
    )
    op.create_index(op.f("ix_login_attempts_last_at"), "login_attempts", ["last_at"])


def downgrade() -> None:
    op.drop_table("login_attempts")
    op.create_table(
        "login_attempts",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("failures", sa.SmallInteger(), nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_login_attempts")),
    )
    op.drop_column("audit_log", "origin")
    for name in ("expires_at", "role"):
        op.drop_column("api_keys", name)
    op.drop_constraint(op.f("uq_operator_sessions_id"), "operator_sessions")
    for name in ("agent", "address", "id"):
        op.drop_column("operator_sessions", name)
    for name in ("recovery_digests", "totp_step", "totp_confirmed_at", "totp_sealed"):
        op.drop_column("operators", name)
