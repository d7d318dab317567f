"""Extract of an outgoing batch: each report as delivered, with the Pipedrive record that it is mapped to.

Our tables cost nothing. What they do not know is requested before any decision: from Pipedrive, records that Hull names
and we have never seen; from Hull, the id of a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from db import batch as batches
from db import change_writer, joining
from db.batch import ClaimedBatch
from db.id_mapping_writer import note_never_seen
from db.joining import Join
from db.session import transaction
from pipeline import wiring
from pipeline.domain.json_text import write_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.outgoing import Candidate, MatchStatus
from pipeline.extract import id_of, read_by_ids
from pipeline.sync.changes import outgoing_changes
from pipeline.sync.compiled import Plan, plan_for
from pipeline.sync.incoming.stale_reads import is_shown_deleted
from pipeline.sync.outgoing.hull_owner import in_doubt, settle_with_hull
from pipeline.sync.outgoing.resolve import Gathered, Message, Resolution, Shown, gather, messages_of
from pipeline.sync.staging import pack_page, unpack_page
from pipeline.wiring import Wired

NAMED_BY_HULL = "named_by_hull"
"""Cause of a change that brings in a record which Hull names and we have never seen."""


def extract_batch(batch: ClaimedBatch) -> None:
    """Bring together what is known of every record the batch's changes name."""
    candidates = find_candidates(batch)
    with transaction() as session:
        batches.hold(session, batch)
        data = write_lenient({"data": candidates})
        batches.pass_to_transform(session, batch.id, pack_page(data), len(candidates))


def candidates_of(batch: ClaimedBatch) -> list[Candidate]:
    """Return what extract staged, or what is known now where that may be old."""
    if batch.extracted is None or batch.is_outdated:
        return find_candidates(batch)
    return [Candidate.of(row) for row in unpack_page(bytes(batch.extracted))[0]]


def find_candidates(batch: ClaimedBatch) -> list[Candidate]:
    """Return what is known of every record that the batch's changes name, by their newest reports."""
    entity = Entity(batch.entity)
    with transaction() as session:
        plan = plan_for(session, batch.connector_key, entity)
        messages = messages_of(session, batch)
        gathered = gather(session, batch.connector_key, entity, plan, messages)
    gathered = _ask(batch, plan, messages, gathered)
    _join_told(batch, gathered.found)
    return gathered.candidates()


def _ask(batch: ClaimedBatch, plan: Plan, messages: Mapping[str, Message], gathered: Gathered) -> Gathered:
    """Request what our tables do not know; make no call if they know everything."""
    is_strange = bool(gathered.strange or gathered.strange_organizations)
    if not (is_strange or in_doubt(gathered.found) or gathered.missing):
        return gathered
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
    if is_strange:
        gathered = _read_strange(batch, wired, plan, messages, gathered)
    settle_with_hull(batch, wired, gathered.found)
    missing = gathered.missing
    read = read_by_ids(wired.pipedrive, Entity(batch.entity), missing, plan.incoming.include_fields) if missing else []
    gathered.snapshots |= _by_id(read)
    return gathered


def _read_strange(
    batch: ClaimedBatch, wired: Wired, plan: Plan, messages: Mapping[str, Message], gathered: Gathered
) -> Gathered:
    """Read the records that Hull names and we have never seen, and gather again. Those that are not there are deleted; the
    others are brought in like any change."""
    entity, mine, beside = Entity(batch.entity), sorted(gathered.strange), sorted(gathered.strange_organizations)
    records = _by_id(read_by_ids(wired.pipedrive, entity, mine, plan.incoming.include_fields)) if mine else {}
    others = _by_id(read_by_ids(wired.pipedrive, Entity.ORGANIZATION, beside, ())) if beside else {}
    shown = Shown(
        records={each: record for each, record in records.items() if not is_shown_deleted(record)},
        organizations={each for each, record in others.items() if not is_shown_deleted(record)},
    )
    with transaction() as session:
        batches.hold(session, batch)
        _note(session, batch, entity, set(mine), set(shown.records))
        _note(session, batch, Entity.ORGANIZATION, set(beside), set(shown.organizations))
        return gather(session, batch.connector_key, entity, plan, messages, shown)


def _note(session: Session, batch: ClaimedBatch, entity: Entity, asked: set[int], shown: set[int]) -> None:
    note_never_seen(session, batch.connector_key, entity, asked - shown)
    scope = (batch.connector_key, Direction.INCOMING, entity)
    change_writer.write_changes(session, *scope, map(str, shown), cause=NAMED_BY_HULL, keeps_cause=True)


def _by_id(records: list[Any]) -> dict[int, dict[str, Any]]:
    return {record_id: record for record in records if (record_id := id_of(record)) is not None}


def _join_told(batch: ClaimedBatch, found: Mapping[str, Resolution]) -> None:
    """That Hull names the record is knowledge for the id map, whether anything is sent or not."""
    told = [
        Join(hull_id=hull_id, pipedrive_id=each.pipedrive_id, matched_by="report")
        for hull_id, each in found.items()
        if each.matched_by == "report" and each.standing is MatchStatus.KNOWN and each.pipedrive_id is not None
    ]
    if not told:
        return
    with transaction() as session:
        batches.hold(session, batch)
        joining.join(session, batch.connector_key, batch.entity, told)
        if batch.entity == Entity.ORGANIZATION:
            outgoing_changes.organization_found(session, batch.connector_key, [each.hull_id for each in told])
