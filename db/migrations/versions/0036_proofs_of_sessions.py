"""Sessions know when the person last proved who they are"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    proved = sa.Column("proved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    op.add_column("operator_sessions", proved)


def downgrade() -> None:
    op.drop_column("operator_sessions", "proved_at")
