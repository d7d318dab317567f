"""Detect the one case in which a record can be created twice: Pipedrive has no idempotency key.

An answer is lost, the following look-up does not see the record yet, and it is created again. Such a pair is a record
created here, and another one with the same claim that appeared within the hour.
"""

from __future__ import annotations

from db import failure as failures
from db import known_as
from db import sync_event as events
from db.known_as import Twins
from db.session import transaction
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.sync.event_recorder import EventRecorder


def find(connector_key: int) -> bool:
    """Keep what was perhaps made twice as failures, for a person to merge; whether there was any."""
    with transaction() as session:
        found = [(entity, twins) for entity in Entity for twins in known_as.take_twins(session, connector_key, entity)]
        recorder = EventRecorder()
        for entity, twins in found:
            recorder.add(_event(connector_key, entity, twins), _failure(connector_key, entity, twins), level="error")
        recorder.write(session)
    return bool(found)


def _event(connector_key: int, entity: Entity, twins: Twins) -> events.NewEvent:
    return events.NewEvent(
        connector_key=connector_key,
        event=event_name(Direction.OUTGOING, entity, Outcome.ERROR),
        entity=entity,
        cause="find_twins",
        reason="created_twice",
        detail=_who(entity, twins),
        pipedrive_id=twins.pipedrive_id,
        hull_id=twins.hull_id,
    )


def _failure(connector_key: int, entity: Entity, twins: Twins) -> failures.NewFailure:
    return failures.NewFailure(
        connector_key=connector_key,
        kind="control",
        subject=failures.control_subject(f"twins:{entity}:{twins.pipedrive_id}"),
        direction=Direction.OUTGOING,
        entity=entity,
        record_id=twins.hull_id,
        stage="find_twins",
        reason="created_twice",
        detail=_who(entity, twins),
    )


def _who(entity: Entity, twins: Twins) -> str:
    return f"{entity.plural} {twins.pipedrive_id} and {twins.other} by {twins.claim}"
