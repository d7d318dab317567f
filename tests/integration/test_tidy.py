"""What tidying forgets, and what it must not."""

from __future__ import annotations

from sqlalchemy import text

from db.session import transaction
from pipeline.tasks import control
from tests.world import World


def test_tidying_forgets_what_was_dealt_with_long_ago_and_nothing_else(world: World) -> None:
    with transaction() as session:
        for key, state, days in (("old", "folded", 40), ("old-new", "new", 40), ("fresh", "folded", 1)):
            session.execute(
                text(
                    "INSERT INTO deliveries (connector_key, source, key, body, state, received_at)"
                    " VALUES (:c, 'hull', :key, '', :state, now() - make_interval(days => :days))"
                ),
                {"c": world.connector_key, "key": key, "state": state, "days": days},
            )
        for state in ("done", "failed", "cancelled"):
            session.execute(
                text(
                    "INSERT INTO batches (connector_key, direction, entity, queue, state, created_at)"
                    " VALUES (:c, 'incoming', 'person', 'live', :state, now() - interval '40 days')"
                ),
                {"c": world.connector_key, "state": state},
            )

    control.tidy()

    assert {row.key for row in world.rows("SELECT key FROM deliveries")} == {"old-new", "fresh"}
    assert [row.state for row in world.rows("SELECT state FROM batches")] == ["failed"]
