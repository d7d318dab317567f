"""A cursor of some pages ago, and the pages without a record in a row: what shows that a walk goes in circles or nowhere

Expand only: the version before neither reads nor writes what is new.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("slices", sa.Column("anchor", sa.Text(), nullable=True))
    op.add_column("slices", sa.Column("empty_pages", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("slices", "empty_pages")
    op.drop_column("slices", "anchor")
