"""Deletions and merges in Pipedrive: confirm them, update Hull, store them, release claims.

No webhook is trusted alone: extract requests the record by its id. Load sends deletions to Hull before the other records, then
stores them. A deleted record keeps its claims until Pipedrive can no longer restore it, or until an operator releases them. The
claims of a merged record become the survivor's. The record that waited for a released claim is delivered again with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import change_writer, failure_closing, id_mapping, id_mapping_writer, identifier, identifier_search, webhook
from db import deletion as deletion_rows
from db.batch import ClaimedBatch
from db.change import Change, Source
from db.deletion import DeletionTarget
from db.identifier import Released
from db.identifier_search import DeletedHolder
from db.session import transaction
from db.sync_event import NewEvent
from pipeline import wiring
from pipeline.domain.deletions import (
    DELETED,
    DELETED_STATES,
    GONE,
    MERGED,
    MISSING,
    RESTORABLE_DAYS,
    Deletion,
    DeletionEffect,
    DeletionNotice,
)
from pipeline.domain.json_text import read_lenient, write_lenient
from pipeline.domain.kinds import Claim, Direction, Entity, Outcome
from pipeline.load.incoming import compose_deletions
from pipeline.settings import settings
from pipeline.sync.compiled import compiled_for
from pipeline.sync.event_recorder import batch_event, new_event, record
from pipeline.sync.incoming.stale_reads import ask_again, expects_living, is_outdated, may_ask_again
from pipeline.sync.staging import unpack_deletions
from pipeline.transform.incoming import effect_of_deletion
from pipeline.transform.webhooks import deletion_notice

AT_ONCE = 500
REASON = "claim_released"
ASK_AGAIN_S = 60.0
ABSENCES = 2
"""Answers in a row without a record after which it counts as deleted without a notice. A record that a webhook has just
shown, but that is unknown or marked as deleted, is requested as often as a stale reading (`pipeline.sync.incoming.stale_reads`).
"""


def find_deleted(
    session: Session,
    batch: ClaimedBatch,
    mine: Sequence[Change],
    absent: Collection[int],
    shown_deleted: Collection[int],
) -> list[Deletion]:
    """Return the deleted ones of the records that Pipedrive did not return. Doubtful ones leave the batch and are read again.

    shown_deleted  those that Pipedrive returned as deleted
    """
    by_id = {int(change.record_id): change for change in mine if int(change.record_id) in absent}
    known = deletion_rows.find_targets(session, batch.connector_key, batch.entity, by_id)
    newest = webhook.find_newest(session, batch.connector_key, batch.entity, by_id) if by_id else {}
    awaited = {
        each
        for each, change in by_id.items()
        if expects_living(newest.get(each), change)
        and (each not in known or known[each].state in DELETED_STATES)
        and may_ask_again(change.attempts)
    }
    notices = {
        each: notice
        for each, notice in deletion_notices(list(by_id.values())).items()
        if not is_outdated(newest, by_id[each])
    }
    now_ms = int(session.execute(text("SELECT extract(epoch FROM now()) * 1000")).scalar_one())
    deleted, doubtful = [], []
    for pipedrive_id, change in by_id.items():
        is_sure = pipedrive_id in notices or pipedrive_id in shown_deleted or change.cause == MISSING
        target = known.get(pipedrive_id)
        if target is not None and (is_sure or (target.state in DELETED_STATES and pipedrive_id not in awaited)):
            deleted.append(_deleted_record(pipedrive_id, target, notices.get(pipedrive_id), now_ms))
        elif not is_sure:
            doubtful.append(pipedrive_id)
    ask_again(session, batch, list(by_id.values()), awaited.intersection(doubtful))
    gone = _confirm_without_notice(session, batch, by_id, known, [each for each in doubtful if each not in awaited])
    return deleted + [Deletion(pipedrive_id=each, state=GONE, at_ms=now_ms) for each in gone]


def _deleted_record(pipedrive_id: int, target: DeletionTarget, notice: DeletionNotice | None, now_ms: int) -> Deletion:
    """Return the new state; the known state stays, except if a merge follows what looked like a deletion."""
    merged_into = notice.merged_into if notice is not None and notice.merged_into is not None else target.merged_into
    at_ms = max(0, min(notice.at_ms, now_ms)) if notice is not None else now_ms
    if target.deleted_at is not None:
        at_ms = int(target.deleted_at.timestamp() * 1000)
    state = MERGED if merged_into is not None else target.state if target.state in DELETED_STATES else DELETED
    return Deletion(pipedrive_id=pipedrive_id, state=state, at_ms=at_ms, merged_into=merged_into)


def _confirm_without_notice(
    session: Session,
    batch: ClaimedBatch,
    by_id: dict[int, Change],
    known: Mapping[int, DeletionTarget],
    doubtful: list[int],
) -> list[int]:
    """Return the records without a notice that are confirmed as deleted: one answer without them is not trusted.

    A record that was never known becomes an event only.
    """
    counts = id_mapping_writer.count_absent(
        session, batch.connector_key, batch.entity, [each for each in doubtful if each in known]
    )
    answers = {each: counts.get(each, by_id[each].attempts) for each in doubtful}
    again = [by_id[each] for each in doubtful if answers[each] < ABSENCES]
    unchanged = [each.record_id for each in again if each.revision == each.claimed_revision]
    if unchanged:  # the others are due immediately
        change_writer.put_back(session, batch.id, unchanged, ASK_AGAIN_S, counted=unchanged)
    gone = [each for each in doubtful if answers[each] >= ABSENCES]
    unknown = [each for each in gone if each not in known]
    record(
        session,
        [batch_event(batch, Outcome.SKIP, cause=by_id[each].cause, reason=GONE, pipedrive_id=each) for each in unknown],
    )
    return [each for each in gone if each in known]


def load_deletions(batch: ClaimedBatch) -> None:
    """Send the batch's deletions to Hull, then store them. A repeated stage sends them again."""
    deleted_records = unpack_deletions(bytes(batch.extracted or b""))
    if not deleted_records:
        return
    entity, key = batch.entity, batch.connector_key
    with transaction() as session:
        wired = wiring.open_connector(session, key, lane=batch.queue)
        supported = compiled_for(session, key, entity).settings.supports_deletion(entity)
        seen = deletion_rows.find_targets(session, key, entity, [each.pipedrive_id for each in deleted_records])
        apart = _kept_apart(session, batch, deleted_records)
        batches.hold(session, batch)
    effects = [
        effect_of_deletion(
            deleted,
            state=seen[deleted.pipedrive_id].state,
            held=seen[deleted.pipedrive_id].delivered,
            in_hull=seen[deleted.pipedrive_id].in_hull,
            supported=supported,
            joinable=deleted.pipedrive_id not in apart,
        )
        for deleted in deleted_records
        if deleted.pipedrive_id in seen
    ]
    effects = [each for each in effects if each.outcome is not None or each.joins or each.attributes]
    wired.hull.post_batches(compose_deletions(entity, effects, wired.hull.writer()), size=settings().firehose_batch)
    with transaction() as session:
        batches.hold(session, batch)
        _store(session, batch, effects, seen)


def _kept_apart(session: Session, batch: ClaimedBatch, deleted_records: Sequence[Deletion]) -> set[int]:
    """Return merged records that Hull does not merge with their survivor: they have different external ids."""
    pairs = {each.pipedrive_id: each.merged_into for each in deleted_records if each.merged_into is not None}
    if not pairs:
        return set()
    ids = {*pairs, *pairs.values()}
    held = identifier_search.find_held_values(session, batch.connector_key, batch.entity, Claim.EXTERNAL_ID, ids)
    return {
        loser
        for loser, survivor in pairs.items()
        if loser in held and survivor in held and held[loser] != held[survivor]
    }


def _store(
    session: Session, batch: ClaimedBatch, effects: Sequence[DeletionEffect], seen: dict[int, DeletionTarget]
) -> None:
    """Store the deletions. A record that another worker has written since is requested once more instead."""
    scope = (batch.connector_key, batch.entity)
    moved_on = id_mapping_writer.mark_deleted(session, *scope, effects, {each: seen[each].updated_at for each in seen})
    _read(session, *scope, moved_on, cause=MISSING)
    done = [each for each in effects if each.deletion.pipedrive_id not in moved_on]
    ids = [each.deletion.pipedrive_id for each in done]
    release_all(session, *scope, [each for each in ids if not seen[each].in_hull])
    names = [str(each) for each in ids]
    failure_closing.close_recovered(session, scope[0], Direction.INCOMING, scope[1], names)
    failure_closing.close_fields(session, scope[0], Direction.INCOMING, scope[1], names, refused=())
    id_mapping_writer.query_conflicts_again(session, *scope)
    _transfer(session, batch, done)
    sources = changes.sources_of(session, batch.id)
    record(session, [_event(batch, each, sources) for each in done if each.outcome is not None])


def _read(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int], *, cause: str) -> None:
    """Request a read of these records by their ids."""
    ids = map(str, pipedrive_ids)
    change_writer.write_changes(session, connector_key, Direction.INCOMING, entity, ids, cause=cause)


def _transfer(session: Session, batch: ClaimedBatch, effects: Sequence[DeletionEffect]) -> None:
    """Transfer the claims and Hull's values of merged records to the survivors, which are read and delivered again."""
    merged = [(each, each.deletion.merged_into) for each in effects if each.deletion.merged_into is not None]
    if not merged:
        return
    scope = (batch.connector_key, batch.entity)
    id_mapping_writer.add_shells(session, *scope, [into for each, into in merged if each.joins], in_hull=True)
    became = id_mapping.follow_merges(session, *scope, [into for _, into in merged])
    identifier.transfer(
        session, *scope, {each.deletion.pipedrive_id: became[into] for each, into in merged if each.joins}
    )
    left: dict[int, dict[str, Any]] = {}
    for each, into in merged:
        left[became[into]] = left.get(became[into], {}) | (each.before if each.joins else {})
    id_mapping_writer.transfer_attributes(session, *scope, left)
    _read(session, *scope, left, cause=MERGED)


def _event(batch: ClaimedBatch, effect: DeletionEffect, sources: Mapping[int, Source]) -> NewEvent:
    deleted, sent = effect.deletion, effect.attributes
    into = f"merged into {batch.entity} {deleted.merged_into}" if deleted.merged_into is not None else None
    source = sources.get(deleted.pipedrive_id, Source(MERGED, None))
    return batch_event(
        batch,
        effect.outcome or Outcome.SKIP,
        cause=source.cause,
        reason=effect.reason,
        detail=into or deleted.state,
        pipedrive_id=deleted.pipedrive_id,
        delivery_id=source.delivery_id,
        before=write_lenient({name: effect.before.get(name) for name in sent}) if sent else None,
        after=write_lenient(sent) if sent else None,
    )


def deliver_waiting(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """Read and deliver again, changed or not, records that were sent without a claim that is free now."""
    ids = sorted(set(pipedrive_ids))
    if not ids:
        return
    id_mapping_writer.mark_uncertain(session, connector_key, entity, dict.fromkeys(ids, b"{}"))
    change_writer.write_changes(session, connector_key, Direction.INCOMING, entity, map(str, ids), cause=REASON)


def release_all(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> list[Released]:
    """Release all claims of these records, and deliver the records that waited for them."""
    released = identifier.release_all(session, connector_key, entity, pipedrive_ids)
    deliver_waiting(session, connector_key, entity, [each.wanted_by for each in released if each.wanted_by is not None])
    return released


def release(session: Session, connector_key: int, entity: Entity, pipedrive_id: int) -> list[Released] | None:
    """Release the claims of a deleted record on behalf of an operator; return None if it is not deleted."""
    held = identifier_search.find_deleted_holders(session, connector_key, entity, [pipedrive_id])
    return _release(session, list(held.values()), "manual") if held else None


def _release(session: Session, held: Sequence[DeletedHolder], cause: str) -> list[Released]:
    """Release the claims of these records, with an event for each claim."""
    released: list[Released] = []
    for (connector_key, entity), some in groupby(held, key=lambda each: (each.connector_key, Entity(each.entity))):
        freed = release_all(session, connector_key, entity, [each.pipedrive_id for each in some])
        happened = [
            new_event(
                connector_key,
                Direction.INCOMING,
                entity,
                Outcome.SUCCESS,
                cause=cause,
                reason=REASON,
                detail=f"{each.claim}: "
                + (f"{entity} {each.wanted_by} waited for it" if each.wanted_by else "no record waited for it"),
                pipedrive_id=each.holder,
            )
            for each in freed
        ]
        record(session, happened, cause=cause)
        released += freed
    return released


def release_overdue() -> int:
    """Release the claims of records that Pipedrive cannot restore any more; return how many records held some.

    Also release domains that several Organizations had and now fewer have.
    """
    done = 0
    with transaction() as session:
        for (connector_key, entity), ids in identifier.unshare_domains(session).items():
            deliver_waiting(session, connector_key, entity, ids)
    while True:
        with transaction() as session:
            held = identifier_search.find_overdue_holders(session, RESTORABLE_DAYS, AT_ONCE)
            _release(session, held, "tidy")
        done += len(held)
        if len(held) < AT_ONCE:
            return done


def deletion_notices(mine: Sequence[Change]) -> dict[int, DeletionNotice]:
    """Return Pipedrive id → deletion notice, for changes by a webhook that has one."""
    read = {
        int(change.record_id): deletion_notice(read_lenient(bytes(change.payload)), int(change.record_id))
        for change in mine
        if change.payload is not None
    }
    return {pipedrive_id: notice for pipedrive_id, notice in read.items() if notice is not None}


def recheck_deletions(
    session: Session, connector_key: int, entity: str, *, shown: Sequence[int], hidden: Sequence[int]
) -> None:
    """Read by id the deleted records that a page contains, and the known records that it contains as deleted."""
    known = deletion_rows.find_targets(session, connector_key, entity, [*shown, *hidden]) if shown or hidden else {}
    doubtful = [each for each in shown if each in known and known[each].state in DELETED_STATES]
    doubtful += [each for each in hidden if each in known and known[each].state not in DELETED_STATES]
    _read(session, connector_key, entity, doubtful, cause=MISSING)


def yield_to_living(session: Session, connector_key: int, entity: Entity, found: dict[int, str]) -> dict[int, str]:
    """Resolve a deleted and an existing record with one Hull id: the existing one gets the User or Account and the claims.

    This happens after a claim was released. The survivor is delivered again without the deletion mark.

    found    Pipedrive id → Hull id, as Hull returned; returned without the deleted records that yielded
    """
    found, survivors = deletion_rows.release_to_existing(session, connector_key, entity, found)
    identifier.transfer(session, connector_key, entity, survivors)
    _read(session, connector_key, entity, survivors.values(), cause="made_anew")
    yielded = [
        new_event(
            connector_key,
            Direction.INCOMING,
            entity,
            Outcome.SKIP,
            cause="resolve",
            reason="hull_id_reassigned",
            detail=f"to {entity} {survivor}",
            pipedrive_id=deleted,
        )
        for deleted, survivor in sorted(survivors.items())
    ]
    record(session, yielded)
    return found
