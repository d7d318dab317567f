"""Why a replay stopped; those whose errand gave up before say so as well

Expand only: the version before neither reads nor writes what is new, and shows the new state by its name.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = ("reason", "detail")
NOBODY_CARRIES_ON = """
    UPDATE replays r
       SET state = CASE r.state WHEN 'running' THEN 'stopped' ELSE r.state END, reason = e.reason, ended_at = e.ended_at
      FROM (SELECT DISTINCT ON (key) key, reason, ended_at FROM errands
             WHERE kind = 'replay' AND state = 'failed' ORDER BY key, id DESC) e
     WHERE e.key = r.id::text AND r.state IN ('running', 'aborted') AND r.ended_at IS NULL
       AND NOT EXISTS (SELECT 1 FROM errands d WHERE d.kind = 'replay' AND d.key = e.key AND d.state = 'due')"""


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("replays", sa.Column(name, sa.Text(), nullable=True))
    op.execute(NOBODY_CARRIES_ON)


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("replays", name)
