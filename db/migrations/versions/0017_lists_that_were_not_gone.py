"""A page or a batch cannot be gone: what a list answered with 404 said so until now, and advised to look for a record

Only the word changes; these failures are still open, and their runs still stand, for a person to replay.
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE failures SET reason = 'remote_unavailable'"
        " WHERE state = 'open' AND kind IN ('batch', 'control') AND reason = 'gone'"
    )
    op.execute("UPDATE runs SET reason = 'remote_unavailable' WHERE state = 'stopped' AND reason = 'gone'")


def downgrade() -> None:
    """The words of before were wrong."""
