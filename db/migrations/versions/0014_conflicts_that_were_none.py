"""Records that were in conflict only because their User was being made at that moment; what could not be sent goes again

Two who were joined afterwards are in no conflict. Whether the others still are, Hull is asked by the next round.
"""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

SEND_AGAIN = """
    INSERT INTO changes (connector_key, direction, entity, record_id, cause)
    SELECT DISTINCT m.connector_key, 'outgoing', m.entity, m.hull_id, 'conflict_settled'
      FROM id_mappings m
      JOIN failures f ON f.connector_key = m.connector_key AND f.entity = m.entity AND f.record_id = m.hull_id
     WHERE m.state = 'conflict' AND m.hull_id IS NOT NULL
       AND f.state = 'open' AND f.direction = 'outgoing' AND f.reason = 'several_ids'
    ON CONFLICT DO NOTHING"""
JOINED = """
    UPDATE id_mappings SET state = CASE WHEN digest IS NULL THEN 'shell' ELSE 'full' END, updated_at = now()
     WHERE state = 'conflict' AND hull_id IS NOT NULL"""
ASK_AGAIN = "UPDATE id_mappings SET resolve_at = now() WHERE state = 'conflict' AND hull_id IS NULL"


def upgrade() -> None:
    op.execute(SEND_AGAIN)
    op.execute(JOINED)
    op.execute(ASK_AGAIN)


def downgrade() -> None:
    """What is right stays right."""
