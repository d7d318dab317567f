"""What jobs are for, and jobs that a person paused"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("title", sa.Text(), server_default="", nullable=False))
    op.create_index("ix_jobs_connector", "jobs", ["connector_key", "id"])
    _replace_unique_index("state IN ('due', 'paused')")


def downgrade() -> None:
    op.execute("UPDATE jobs SET state = 'due', dispatched_at = NULL WHERE state = 'paused'")
    _replace_unique_index("state = 'due'")
    op.drop_index("ix_jobs_connector", table_name="jobs")
    op.drop_column("jobs", "title")


def _replace_unique_index(where: str) -> None:
    op.drop_index("uq_jobs_due", table_name="jobs")
    op.create_index("uq_jobs_due", "jobs", ["kind", "dedupe_key"], unique=True, postgresql_where=sa.text(where))
