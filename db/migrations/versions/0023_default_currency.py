"""The currency of an amount that comes without one

Expand only: a new column without a value; it is read from Pipedrive when an outgoing mapping needs it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("connectors", sa.Column("default_currency", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("connectors", "default_currency")
