"""Request the Hull ids of records by their anonymous ids, and store the answers.

The firehose returns nothing, so Hull's search is queried afterwards: in rounds (`control.resolve_hull_ids`), and before a User is
matched with a record without a known Hull id (`outgoing.resolve`).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from db import change_writer, id_mapping_writer, joining
from db.session import transaction
from pipeline import wiring
from pipeline.domain.kinds import Direction, Entity, Outcome, anonymous_id
from pipeline.sync.changes import outgoing_changes
from pipeline.sync.event_recorder import new_event, record
from pipeline.sync.incoming import deletions
from pipeline.transform.hull_reports import anonymous_pipedrive_ids
from pipeline.wiring import Wired

CHUNK = 50
"""Anonymous ids in one search: a page of Hull's answer."""
ROUND = 20
"""Searches in one task, so that other tasks are not delayed."""


def resolve(connector_key: int) -> bool:
    """Request the Hull ids of delivered records of a connector in one round. Return whether there may be more."""
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key)
        taken = id_mapping_writer.take_unresolved(session, connector_key, CHUNK * ROUND)
    for entity in Entity:
        ids = sorted(pipedrive_id for name, pipedrive_id in taken if name == entity)
        for at in range(0, len(ids), CHUNK):
            chunk = ids[at : at + CHUNK]
            found = find_hull_ids(wired, entity, chunk)
            with transaction() as session:
                store_hull_ids(session, connector_key, entity, found)
                id_mapping_writer.note_unresolved(session, connector_key, entity, set(chunk) - set(found))
    return len(taken) == CHUNK * ROUND


def find_hull_ids(wired: Wired, entity: Entity, pipedrive_ids: Sequence[int]) -> dict[int, str]:
    """Return Pipedrive id → Hull id, for the records that Hull shows. Raises: the client's errors."""
    found: dict[int, str] = {}
    for at in range(0, len(pipedrive_ids), CHUNK):
        chunk = pipedrive_ids[at : at + CHUNK]
        reports = wired.hull.search_reports(entity, [anonymous_id(pipedrive_id) for pipedrive_id in chunk])
        found |= {
            pipedrive_id: str(report["id"])
            for report in reports
            for pipedrive_id in anonymous_pipedrive_ids(report)
            if pipedrive_id in set(chunk)
        }
    return found


def store_hull_ids(session: Session, connector_key: int, entity: Entity, found: dict[int, str]) -> None:
    """Store Hull's answer (Pipedrive id → Hull id), record conflicts, and send what waited for it."""
    found = deletions.yield_to_living(session, connector_key, entity, found)
    learnt = joining.store_hull_ids(session, connector_key, entity, found)
    conflicts = [  # Hull has merged what Pipedrive has as two records
        new_event(
            connector_key,
            Direction.INCOMING,
            entity,
            Outcome.ERROR,
            cause="resolve",
            reason="two_records_one_hull_id",
            pipedrive_id=each,
            hull_id=found[each],
        )
        for each in learnt.conflicts
    ]
    record(session, conflicts, level="error")
    # These could not be sent while two records shared them.
    scope = (connector_key, Direction.OUTGOING, entity)
    change_writer.write_changes(session, *scope, learnt.resolved.values(), cause="conflict_resolved", keeps_cause=True)
    if entity is Entity.ORGANIZATION:
        outgoing_changes.send_waiting_users(session, connector_key, found.values())
