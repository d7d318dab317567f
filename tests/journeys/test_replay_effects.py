"""The preview of a replay equals its effect, record by record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from db import connector as connectors
from db import failure as failures
from db import failure_filter
from db.failure import NewFailure
from db.session import transaction
from db.snapshot import read_snapshots
from pipeline.domain.kinds import Direction, Entity
from tests.journeys.hull_messages import work_until_idle
from tests.journeys.outgoing_effects import Effects, Record, effects_since, mark_moment
from tests.journeys.test_plan_effects import SITUATIONS, Document, known
from tests.journeys.test_replays import advance, begin
from tests.system import SyncSystem

__all__ = ["known"]

ACTS: dict[str, set[str]] = {
    "changes": {"update", "link"},
    "creates": {"create"},
    "looks_up": {"create", "update", "link", "match"},
    "matches": {"match"},
    "nothing": {"same"},
    "superseded": {"same"},
    "skipped": {"same"},
    "fails_again": {"error"},
}
"""Preview → possible effects on the record."""


def break_all(system: SyncSystem) -> dict[int, Record]:
    """Every report that is kept failed for a reason of ours. Returns failure → record."""
    with transaction() as session:
        for entity in Entity:
            ids = [
                row.record_id
                for row in system.rows(
                    "SELECT record_id FROM snapshots WHERE side = 'hull' AND entity = :e ORDER BY 1", e=entity
                )
            ]
            kept = read_snapshots(session, system.connector_key, entity, "hull", ids)
            failures.keep_failures(
                session,
                [
                    NewFailure(
                        connector_key=system.connector_key,
                        kind="record",
                        subject=failures.record_subject(Direction.OUTGOING, entity, hull_id),
                        direction=Direction.OUTGOING,
                        entity=entity,
                        record_id=hull_id,
                        stage="load",
                        reason="internal_error",
                        detail="",
                        payload=kept[hull_id],
                        attempts=1,
                        settings_version=1,
                    )
                    for hull_id in ids
                ],
            )
    rows = system.rows("SELECT id, entity, record_id FROM failures WHERE state = 'open' AND kind = 'record'")
    return {row.id: (row.entity, row.record_id) for row in rows}


def previews_of(system: SyncSystem, ids: list[int]) -> dict[int, Any]:
    with transaction() as session:
        found = list(failure_filter.failures_by_id(session, ids).values())
        return dict(system.module("jobs.replays.preview").preview_failures(session, found))


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.__name__)
def test_the_effect_on_every_record_is_as_previewed(
    known: SyncSystem, situation: Callable[[SyncSystem], Document]
) -> None:
    document = situation(known)
    with transaction() as session:
        connector = connectors.get_connector(session, known.connector_key)
    known.module("sync.connectors.settings_change").change_settings(connector, document, "ana", confirmed=True)
    known.work()
    broken = break_all(known)
    previews = {broken[key]: preview for key, preview in previews_of(known, sorted(broken)).items()}
    since = mark_moment(known)
    begin(known, kind="record", direction="outgoing")
    advance(known)
    work_until_idle(known)
    advance(known)
    seen = effects_since(known, since)
    unexpected = {
        record: (preview.kind, preview.detail, seen.get(record, Effects()).act)
        for record, preview in previews.items()
        if preview.kind != "unknown" and seen.get(record, Effects()).act not in ACTS[preview.kind]
    }
    assert unexpected == {}
    assert {record for record, each in seen.items() if each.created or each.updated} <= previews.keys()
