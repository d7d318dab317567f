"""Find records that were created twice, which is possible because Pipedrive has no idempotency key.

When an answer is lost and the next look-up does not show the new record yet, it is created again. A possible duplicate is a record
created here, and another one with the same claim that appeared within an hour.
"""

from __future__ import annotations

from db import failure as failures
from db import identifier_search
from db.failure import NewFailure
from db.identifier_search import PossibleDuplicate
from db.session import transaction
from pipeline.domain.kinds import Direction, Entity, Outcome
from pipeline.sync.event_recorder import EventRecorder, new_event

STAGE = "find_duplicates"
REASON = "possible_duplicate"


def find(connector_key: int) -> bool:
    """Store possible duplicates as failures, for a person to merge. Return whether there were any."""
    with transaction() as session:
        recorder = EventRecorder()
        for entity in Entity:
            for pair in identifier_search.take_possible_duplicates(session, connector_key, entity):
                _add(recorder, connector_key, entity, pair)
        recorder.write(session)
    return recorder.has_events


def _add(recorder: EventRecorder, connector_key: int, entity: Entity, pair: PossibleDuplicate) -> None:
    detail = f"{entity.plural} {pair.pipedrive_id} and {pair.other} by {pair.kind}"
    event = new_event(
        connector_key,
        Direction.OUTGOING,
        entity,
        Outcome.ERROR,
        cause=STAGE,
        reason=REASON,
        detail=detail,
        pipedrive_id=pair.pipedrive_id,
        hull_id=pair.hull_id,
    )
    failure = NewFailure(
        connector_key=connector_key,
        kind="control",
        subject=failures.control_subject(f"duplicates:{entity}:{pair.pipedrive_id}"),
        direction=Direction.OUTGOING,
        entity=entity,
        record_id=pair.hull_id,
        stage=STAGE,
        reason=REASON,
        detail=detail,
    )
    recorder.add(event, failure, level="error")
