"""Claims that become free: the record that waited for one is delivered again, and takes it over with its User or Account.

A deleted record holds its claims until Pipedrive can no longer restore it, or until an operator releases them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from sqlalchemy.orm import Session

from db import change_writer, id_mapping_writer, identifier, identifier_search
from db import sync_event as events
from db.identifier import Released
from db.identifier_search import DeletedHolder
from db.session import transaction
from pipeline.domain.departures import RESTORABLE_DAYS
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.sync.event_recorder import record

AT_ONCE = 500
REASON = "claim_released"


def call_waiting(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """Records that were sent without a claim that is free now are read and delivered again, changed or not."""
    ids = sorted(set(pipedrive_ids))
    if not ids:
        return
    id_mapping_writer.doubt(session, connector_key, entity, dict.fromkeys(ids, b"{}"))
    change_writer.write_changes(session, connector_key, Direction.INCOMING, entity, map(str, ids), cause=REASON)


def release_all(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> list[Released]:
    """Release everything that these records hold, and deliver the records that waited for it."""
    released = identifier.release_all(session, connector_key, entity, pipedrive_ids)
    call_waiting(session, connector_key, entity, [each.wanted_by for each in released if each.wanted_by is not None])
    return released


def release(session: Session, connector_key: int, entity: Entity, pipedrive_id: int) -> list[Released] | None:
    """Release the claims of a deleted record that a person does not expect back; None when it is not deleted."""
    held = identifier_search.find_deleted_holders(session, connector_key, entity, [pipedrive_id])
    return _release(session, list(held.values()), "manual") if held else None


def release_overdue() -> int:
    """What Pipedrive has purged does not come back: its claims are free. Returns how many records held some.

    So are domains that several Organizations gave, and no longer do.
    """
    done = 0
    with transaction() as session:
        for (connector_key, entity), ids in identifier.unshare_domains(session).items():
            call_waiting(session, connector_key, entity, ids)
    while True:
        with transaction() as session:
            held = identifier_search.find_overdue_holders(session, RESTORABLE_DAYS, AT_ONCE)
            _release(session, held, "tidy")
        done += len(held)
        if len(held) < AT_ONCE:
            return done


def _release(session: Session, held: Sequence[DeletedHolder], cause: str) -> list[Released]:
    released = []
    for (connector_key, entity), some in groupby(held, key=lambda each: (each.connector_key, each.entity)):
        freed = release_all(session, connector_key, entity, [each.pipedrive_id for each in some])
        _tell(session, connector_key, Entity(entity), freed, cause)
        released += freed
    return released


def _tell(session: Session, connector_key: int, entity: Entity, released: Sequence[Released], cause: str) -> None:
    name = event_name(Direction.INCOMING, entity, Outcome.SUCCESS)
    told = [
        events.NewEvent(
            connector_key=connector_key,
            event=name,
            entity=entity,
            cause=cause,
            reason=REASON,
            detail=f"{each.claim}: {f'{entity} {each.wanted_by} waited for it' if each.wanted_by else 'nobody waited'}",
            pipedrive_id=each.holder,
        )
        for each in released
    ]
    record(session, told, cause=cause)
