"""What matching, creating and linking need: intents, other values a record is known by, memories of writes

Expand only: every column that is added may be empty, so the version before goes on meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("id_mappings", sa.Column("awaits_account", sa.Text(), nullable=True))
    op.add_column("id_mappings", sa.Column("intent_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("id_mappings", sa.Column("outgoing", sa.LargeBinary(), nullable=True))
    op.create_index(
        "ix_id_mappings_awaiting",
        "id_mappings",
        ["connector_key", "awaits_account"],
        postgresql_where=sa.text("awaits_account IS NOT NULL"),
    )
    _by_claim("known_as", sa.Column("pipedrive_id", sa.BigInteger(), nullable=False), is_key=True)
    op.create_index("ix_known_as_record", "known_as", ["pipedrive_id", "connector_key", "entity"])
    _by_claim("create_intents", sa.Column("hull_id", sa.Text(), nullable=False), is_key=False)
    op.add_column("batches", sa.Column("cause", sa.Text(), nullable=True))
    op.create_table(
        "last_skips",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("hull_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "entity", "hull_id", name=op.f("pk_last_skips")),
    )
    op.create_table(
        "mirrors",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("listed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "entity", name=op.f("pk_mirrors")),
    )


def _by_claim(table: str, whose: sa.Column[object], *, is_key: bool) -> None:
    names = ["connector_key", "entity", "claim", "value"]
    op.create_table(
        table,
        sa.Column("connector_key", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in names[1:]),
        whose,
        sa.PrimaryKeyConstraint(*names, *([whose.name] if is_key else []), name=op.f(f"pk_{table}")),
    )


def downgrade() -> None:
    op.drop_column("batches", "cause")
    for table in ("mirrors", "last_skips", "create_intents", "known_as"):
        op.drop_table(table)
    op.drop_index("ix_id_mappings_awaiting", "id_mappings")
    for column in ("outgoing", "intent_at", "awaits_account"):
        op.drop_column("id_mappings", column)
