"""Detect the one case in which a record can be created twice: Pipedrive has no idempotency key.

An answer is lost, the following look-up does not see the record yet, and it is created again. Such a pair is a record
created here, and another one with the same claim that appeared within the hour.
"""

from __future__ import annotations

from db import failure as failures
from db import identifier_search
from db import sync_event as events
from db.identifier_search import PossibleDuplicate
from db.session import transaction
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.sync.event_recorder import EventRecorder


def find(connector_key: int) -> bool:
    """Store possible duplicates as failures, for a person to merge. Return whether there were any."""
    with transaction() as session:
        found = [
            (entity, each)
            for entity in Entity
            for each in identifier_search.take_possible_duplicates(session, connector_key, entity)
        ]
        recorder = EventRecorder()
        for entity, each in found:
            recorder.add(_event(connector_key, entity, each), _failure(connector_key, entity, each), level="error")
        recorder.write(session)
    return bool(found)


def _event(connector_key: int, entity: Entity, pair: PossibleDuplicate) -> events.NewEvent:
    return events.NewEvent(
        connector_key=connector_key,
        event=event_name(Direction.OUTGOING, entity, Outcome.ERROR),
        entity=entity,
        cause="find_twins",
        reason="possible_duplicate",
        detail=_who(entity, pair),
        pipedrive_id=pair.pipedrive_id,
        hull_id=pair.hull_id,
    )


def _failure(connector_key: int, entity: Entity, pair: PossibleDuplicate) -> failures.NewFailure:
    return failures.NewFailure(
        connector_key=connector_key,
        kind="control",
        subject=failures.control_subject(f"twins:{entity}:{pair.pipedrive_id}"),
        direction=Direction.OUTGOING,
        entity=entity,
        record_id=pair.hull_id,
        stage="find_twins",
        reason="possible_duplicate",
        detail=_who(entity, pair),
    )


def _who(entity: Entity, pair: PossibleDuplicate) -> str:
    return f"{entity.plural} {pair.pipedrive_id} and {pair.other} by {pair.kind}"
