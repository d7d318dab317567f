"""What an authorisation that is being finished knows of itself, so that its callback may come twice or be tried again

Expand only: the version before deletes the row when the person comes back.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "callback": sa.Text(),
    "claimed_at": sa.DateTime(timezone=True),
    "sealed_grant": sa.LargeBinary(),
    "finished_at": sa.DateTime(timezone=True),
}


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.add_column("oauth_states", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("oauth_states", name)
