"""The newest webhook about each record, which a reading must not be older than; and which waiting change tells of a deletion

Expand only: the version before neither reads nor writes what is new. Changes that wait are few, and whether one of them
tells of a deletion is read out of its payload as before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "newest_webhooks",
        sa.Column("connector_key", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("pipedrive_id", sa.BigInteger(), nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("is_deleted", sa.Boolean(), nullable=False),
        sa.Column("delivery_id", sa.BigInteger(), nullable=True),
        sa.Column("noted_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("connector_key", "entity", "pipedrive_id", name=op.f("pk_newest_webhooks")),
    )
    op.add_column("changes", sa.Column("is_deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False))


def downgrade() -> None:
    op.drop_column("changes", "is_deleted")
    op.drop_table("newest_webhooks")
