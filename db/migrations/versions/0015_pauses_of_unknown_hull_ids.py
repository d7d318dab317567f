"""How often Hull's search did not know a record in a row, so that it is asked for less and less often

Expand only: the version before neither reads nor writes the column. A constant default rewrites no table.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "id_mappings", sa.Column("resolve_attempts", sa.SmallInteger(), server_default=sa.text("0"), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("id_mappings", "resolve_attempts")
