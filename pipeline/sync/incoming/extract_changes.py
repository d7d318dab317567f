"""Extract of a live batch: the newest state of every record in its changes, and the records that no longer exist.

A webhook's payload is used if it is complete and newer than the last synchronized state; otherwise the record is read again,
100 ids per request. A deletion is never taken from a webhook alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import change_writer, id_mapping, id_mapping_writer, newest_webhook
from db.batch import ClaimedBatch
from db.change import Change
from db.id_mapping import Known
from db.session import transaction
from db.snapshot import read_snapshots
from pipeline import wiring
from pipeline.domain.departures import DEPARTED, MERGED
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.times import version_of
from pipeline.errors import Rejected, Skip
from pipeline.extract import id_of, ids_of, read_by_ids, read_members
from pipeline.sync import definitions
from pipeline.sync.compiled import Plan, plan_for
from pipeline.sync.incoming import deletions, unknown_ids
from pipeline.sync.incoming.stale_reads import ask_again, find_lagging, is_outdated, is_shown_deleted
from pipeline.sync.staging import pack_changes
from pipeline.transform.webhooks import complete_record, decode_webhook
from pipeline.wiring import Wired


def extract_changes(batch: ClaimedBatch) -> None:
    """Bring in the newest state of every record the batch's changes name, from their payloads or by reading them."""
    entity = Entity(batch.entity)
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
        plan = plan_for(session, batch.connector_key, entity)
    plan = definitions.current(wired, entity, plan)
    with transaction() as session:
        mine = changes.changes_of(session, batch.id)
        told = _told(session, batch, plan, mine)
        ids = [int(change.record_id) for change in mine if int(change.record_id) not in told]
        found = unknown_ids.sort_ids(session, batch, mine, ids)
    read = read_by_ids(wired.pipedrive, entity, found.known, plan.incoming.include_fields)
    strange = unknown_ids.read_unknown(batch, plan, found.unknown) if found.unknown else []
    to_read = found.known if strange is None else [*found.known, *found.unknown]
    read = [*read, *(strange or [])]
    with transaction() as session:
        lagging = find_lagging(session, batch, plan, mine, read) if read else set()
    read = [record for record in read if id_of(record) not in lagging]
    deleted = {record_id for record in read if is_shown_deleted(record) and (record_id := id_of(record)) is not None}
    living = [record for record in read if not is_shown_deleted(record)]
    absent = set(to_read) - set(ids_of(living)) - lagging
    members = _members(wired, entity, mine, absent)
    with transaction() as session:
        batches.hold(session, batch)
        id_mapping_writer.note_present(session, batch.connector_key, entity, [*told, *ids_of(living)])
        mine = changes.changes_of(session, batch.id)
        departed = deletions.judge(session, batch, mine, absent, deleted)
        ask_again(session, batch, mine, lagging)
        _relink(session, batch, members)
        staged = pack_changes([*told.values(), *living], departed)
        batches.pass_to_transform(session, batch.id, staged, len(mine), asked=wired.calls.last_as_json)


def _told(session: Session, batch: ClaimedBatch, plan: Plan, mine: list[Change]) -> dict[int, dict[str, Any]]:
    """Return Pipedrive id → record, for webhooks with a complete body that is newer than the last synchronized state,
    and the newest."""
    entity = Entity(batch.entity)
    told_of = [int(change.record_id) for change in mine if change.payload is not None]
    newest = newest_webhook.find_newest(session, batch.connector_key, entity, told_of) if told_of else {}
    spoken = {
        change.record_id: bytes(change.payload)
        for change in mine
        if change.payload is not None and not is_outdated(newest, change)
    }
    known = id_mapping.known(session, batch.connector_key, entity, [int(record_id) for record_id in spoken])
    kept = read_snapshots(session, batch.connector_key, entity, "pipedrive", list(spoken))
    told = {}
    for record_id, payload in spoken.items():
        snapshot = kept.get(record_id)
        record = _whole(payload, int(record_id), read_lenient(snapshot) if snapshot else None, plan)
        if record is not None and _is_newest(record, known.get(int(record_id)), plan):
            told[int(record_id)] = record
    return told


def _whole(payload: bytes, record_id: int, snapshot: dict[str, Any] | None, plan: Plan) -> dict[str, Any] | None:
    """Return the record in a webhook, or None if it must be read.

    The webhook of a merge's survivor is also that of the merged record, and says nothing else about it.
    """
    try:
        webhook = decode_webhook(read_lenient(payload), plan.catalog)
    except (Rejected, Skip):  # its head named a record when it was coalesced: it is only a hint
        return None
    if webhook.record is None or webhook.head.pipedrive_id != record_id:
        return None
    record, unsure = complete_record(webhook, snapshot, plan.incoming.custom_fields)
    return None if unsure or not plan.incoming.system_fields <= record.keys() else record


def _is_newest(record: dict[str, Any], known: Known | None, plan: Plan) -> bool:
    """Newer than the last synchronized state, or equal: the echo of our own write, for example, needs no reading."""
    version = version_of(record)
    if version is None or (known is not None and known.state in DEPARTED):
        return False
    if known is None or known.version != version:
        return known is None or known.version < version
    try:
        return plan.incoming.read(record).digest == known.digest
    except (Rejected, Skip):
        return False


def _members(wired: Wired, entity: Entity, mine: Sequence[Change], absent: Collection[int]) -> dict[int, list[int]]:
    """Organization that another was merged into → the ids of its Persons, the other one's former ones among them."""
    if entity is not Entity.ORGANIZATION:
        return {}
    told = deletions.told_of(mine)
    survivors = {told[each].merged_into for each in absent if each in told}
    return {each: read_members(wired.pipedrive, each) for each in sorted(filter(None, survivors))}


def _relink(session: Session, batch: ClaimedBatch, members: dict[int, list[int]]) -> None:
    """Persons that we still know in the Organization that went, or not at all, are read again."""
    moved = []
    for organization_id, person_ids in members.items():
        ids = list(map(str, person_ids))
        kept = read_snapshots(session, batch.connector_key, Entity.PERSON, "pipedrive", ids)
        for person_id in sorted(ids):
            snapshot = read_lenient(kept[person_id]) if person_id in kept else {}
            if snapshot.get("org_id") != organization_id:
                moved.append(person_id)
    scope = (batch.connector_key, Direction.INCOMING, Entity.PERSON)
    change_writer.write_changes(session, *scope, moved, cause=MERGED)
