"""Ask Hull for the id of a record, by its anonymous id, and store the answer.

The firehose returns nothing, so Hull's search is queried afterwards: in rounds (`control.resolve_hull_ids`), and before
a User is matched with a record without a known Hull id (`outgoing.resolve`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy.orm import Session

from db import change_writer, id_mapping_writer, joining
from db import sync_event as events
from db.session import transaction
from pipeline import wiring
from pipeline.domain.kinds import Direction, Entity, Outcome, anonymous_id, event_name
from pipeline.sync.changes import outgoing_changes
from pipeline.sync.event_recorder import record
from pipeline.sync.incoming import deletions
from pipeline.transform.hull_reports import anonymous_pipedrive_ids
from pipeline.wiring import Wired

CHUNK = 50
"""Anonymous ids to one search: what Hull returns on a page."""
ROUND = 20
"""Searches to one task: enough to be quick, few enough that others get their turn."""


def resolve(connector_key: int) -> bool:
    """Ask Hull in one round for the ids of delivered records of a connector. Return whether there may be more to ask."""
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
    """Pipedrive id → the Hull id that carries it, for those that Hull shows.

    Raises: what the client raises.
    """
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
    """Store Hull's answer (Pipedrive id → Hull id), and its consequences."""
    found = deletions.yield_to_living(session, connector_key, entity, found)
    learnt = joining.store_hull_ids(session, connector_key, entity, found)
    _log_conflicts(session, connector_key, entity, {each: found[each] for each in learnt.conflicts})
    _send_settled(session, connector_key, entity, learnt.resolved.values())
    if entity is Entity.ORGANIZATION:
        outgoing_changes.send_waiting_users(session, connector_key, found.values())


def _send_settled(session: Session, connector_key: int, entity: Entity, settled: Iterable[str]) -> None:
    """Send these Users or Accounts again, as last reported: they could not be sent while two records shared them."""
    scope = (connector_key, Direction.OUTGOING, entity)
    change_writer.write_changes(session, *scope, settled, cause="conflict_settled", keeps_cause=True)


def _log_conflicts(session: Session, connector_key: int, entity: Entity, conflicts: dict[int, str]) -> None:
    """Log Users with two Pipedrive ids: Hull has merged what is still two records in Pipedrive."""
    name = event_name(Direction.INCOMING, entity, Outcome.ERROR)
    record(
        session,
        [
            events.NewEvent(
                connector_key=connector_key,
                event=name,
                entity=entity,
                cause="resolve",
                reason="two_records_one_hull_id",
                pipedrive_id=pipedrive_id,
                hull_id=hull_id,
            )
            for pipedrive_id, hull_id in conflicts.items()
        ],
        level="error",
    )
