"""The browser in which an authorisation was begun, and the invitation it was begun by

Expand only: the version before writes neither. What it began cannot be finished by this version, and is begun again.

Revision ID: 0035
Revises: 0034
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("oauth_states", sa.Column("browser", sa.Text(), nullable=True))
    op.add_column("oauth_states", sa.Column("invitation", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("uq_oauth_states_invitation"), "oauth_states", ["invitation"])


def downgrade() -> None:
    op.drop_constraint(op.f("uq_oauth_states_invitation"), "oauth_states", type_="unique")
    op.drop_column("oauth_states", "invitation")
    op.drop_column("oauth_states", "browser")
