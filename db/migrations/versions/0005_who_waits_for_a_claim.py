"""Who waits for a claim that another record holds

Expand only: the version before neither reads nor writes the column.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("claims", sa.Column("wanted_by", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("claims", "wanted_by")
