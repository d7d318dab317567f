"""Deletions and merges in Pipedrive: interpret a reading without a record, inform Hull, store the deletion, release claims.

No webhook is trusted alone: extract has requested the record by its id, and the answer does not have it. Load informs Hull, then
writes, in the stage's first half. A deleted record keeps its claims until Pipedrive can no longer restore it, or until an operator
releases them; those of a merged record become the survivor's. The record that waited for a released claim is delivered again, and
takes it over with its User or Account.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import change_writer, failure_closing, id_mapping, id_mapping_writer, identifier, identifier_search, webhook
from db import deletion as deletion_rows
from db import sync_event as events
from db.batch import ClaimedBatch
from db.change import Change, Source
from db.deletion import DeletionTarget
from db.identifier import Released
from db.identifier_search import DeletedHolder
from db.session import transaction
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
from pipeline.domain.kinds import Claim, Direction, Entity, Outcome, event_name
from pipeline.load.departures import compose
from pipeline.settings import settings
from pipeline.sync.compiled import plan_for
from pipeline.sync.event_recorder import record
from pipeline.sync.incoming.stale_reads import ask_again, expects_living, is_outdated, may_ask_again
from pipeline.sync.staging import unpack_departures
from pipeline.transform.incoming import effect_of_deletion
from pipeline.transform.webhooks import deletion_notice

AT_ONCE = 500
REASON = "claim_released"
ASK_AGAIN_S = 60.0
ABSENCES = 2
"""Number of answers in a row without a record after which it counts as deleted without a notice. A record that a
webhook has just shown, but that is unknown or marked as deleted, is requested as long as a stale reading: see
`pipeline.sync.incoming.stale_reads`.
"""


def find_deleted(
    session: Session,
    batch: ClaimedBatch,
    mine: Sequence[Change],
    absent: Collection[int],
    shown_deleted: Collection[int],
) -> list[Deletion]:
    """Return which of the records missing in the answers are deleted. Doubtful ones leave the batch and are read again.

    shown_deleted  those that Pipedrive shows as deleted
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
    told = {
        each: end
        for each, end in deletion_notices(list(by_id.values())).items()
        if not is_outdated(newest, by_id[each])
    }
    now_ms = int(session.execute(text("SELECT extract(epoch FROM now()) * 1000")).scalar_one())
    departed, doubtful = [], []
    for pipedrive_id, change in by_id.items():
        is_sure = pipedrive_id in told or pipedrive_id in shown_deleted or change.cause == MISSING
        standing = known.get(pipedrive_id)
        if standing is not None and (is_sure or (standing.state in DELETED_STATES and pipedrive_id not in awaited)):
            departed.append(_departure(pipedrive_id, standing, told.get(pipedrive_id), now_ms))
        elif not is_sure:
            doubtful.append(pipedrive_id)
    ask_again(session, batch, list(by_id.values()), awaited.intersection(doubtful))
    gone = _confirm_without_notice(session, batch, by_id, known, [each for each in doubtful if each not in awaited])
    return departed + [Deletion(pipedrive_id=each, state=GONE, at_ms=now_ms) for each in gone]


def _departure(pipedrive_id: int, standing: DeletionTarget, told: DeletionNotice | None, now_ms: int) -> Deletion:
    """Return the new state; the known state stays, except if a merge follows what looked like a deletion."""
    merged_into = told.merged_into if told is not None and told.merged_into is not None else standing.merged_into
    at_ms = max(0, min(told.at_ms, now_ms)) if told is not None else now_ms
    if standing.deleted_at is not None:
        at_ms = int(standing.deleted_at.timestamp() * 1000)
    state = MERGED if merged_into is not None else standing.state if standing.state in DELETED_STATES else DELETED
    return Deletion(pipedrive_id=pipedrive_id, state=state, at_ms=at_ms, merged_into=merged_into)


def _confirm_without_notice(
    session: Session,
    batch: ClaimedBatch,
    by_id: dict[int, Change],
    known: Mapping[int, DeletionTarget],
    doubtful: list[int],
) -> list[int]:
    """Return which records without a notice are confirmed as deleted: a single answer without them is not trusted.

    A record that was never known becomes an event only.
    """
    counts = id_mapping_writer.count_absent(
        session, batch.connector_key, batch.entity, [each for each in doubtful if each in known]
    )
    answers = {each: counts.get(each, by_id[each].attempts) for each in doubtful}
    again = [by_id[each] for each in doubtful if answers[each] < ABSENCES]
    unmoved = [
        change.record_id for change in again if change.revision == change.claimed_revision
    ]  # others are due immediately
    if unmoved:
        change_writer.put_back(session, batch.id, unmoved, ASK_AGAIN_S, counted=unmoved)
    gone = [each for each in doubtful if answers[each] >= ABSENCES]
    name = event_name(Direction.INCOMING, Entity(batch.entity), Outcome.SKIP)
    record(session, [_event(batch, name, GONE, each, by_id[each].cause) for each in gone if each not in known])
    return [each for each in gone if each in known]


def _event(
    batch: ClaimedBatch,
    name: str,
    reason: str,
    pipedrive_id: int,
    cause: str,
    detail: str | None = None,
    farewell: DeletionEffect | None = None,
) -> events.NewEvent:
    told = farewell.attributes if farewell is not None else {}
    return events.NewEvent(
        connector_key=batch.connector_key,
        event=name,
        entity=batch.entity,
        cause=cause,
        reason=reason,
        detail=detail,
        pipedrive_id=pipedrive_id,
        batch_id=batch.id,
        before=write_lenient({each: farewell.before.get(each) for each in told}) if farewell and told else None,
        after=write_lenient(told) if told else None,
    )


def load_departures(batch: ClaimedBatch) -> None:
    """Send the batch's deletions to Hull, then store them. A repetition sends them to Hull again."""
    departures = unpack_departures(bytes(batch.extracted or b""))
    if not departures:
        return
    entity, key = Entity(batch.entity), batch.connector_key
    with transaction() as session:
        wired = wiring.open_connector(session, key, lane=batch.queue)
        supported = plan_for(session, key, entity).settings.supports_deletion(entity)
        seen = deletion_rows.find_targets(session, key, entity, [each.pipedrive_id for each in departures])
        apart = _kept_apart(session, batch, departures)
        batches.hold(session, batch)
    farewells = [
        effect_of_deletion(
            departure,
            state=seen[departure.pipedrive_id].state,
            held=seen[departure.pipedrive_id].delivered,
            in_hull=seen[departure.pipedrive_id].in_hull,
            supported=supported,
            joinable=departure.pipedrive_id not in apart,
        )
        for departure in departures
        if departure.pipedrive_id in seen
    ]
    farewells = [each for each in farewells if each.outcome is not None or each.joins or each.attributes]
    wired.hull.post_batches(compose(entity, farewells, wired.hull.writer()), size=settings().firehose_batch)
    with transaction() as session:
        batches.hold(session, batch)
        _write_down(session, batch, farewells, seen)


def _kept_apart(session: Session, batch: ClaimedBatch, departures: Sequence[Deletion]) -> set[int]:
    """Return merged records that Hull keeps apart from their survivor: both have an external id, and they differ."""
    pairs = {each.pipedrive_id: each.merged_into for each in departures if each.merged_into is not None}
    if not pairs:
        return set()
    ids = {*pairs, *pairs.values()}
    held = identifier_search.find_held_values(session, batch.connector_key, batch.entity, Claim.EXTERNAL_ID, ids)
    return {
        loser
        for loser, survivor in pairs.items()
        if loser in held and survivor in held and held[loser] != held[survivor]
    }


def _write_down(
    session: Session, batch: ClaimedBatch, farewells: Sequence[DeletionEffect], seen: dict[int, DeletionTarget]
) -> None:
    """Store the deletions; a record that another worker wrote since is requested once more instead."""
    scope = (batch.connector_key, batch.entity)
    moved_on = id_mapping_writer.mark_deleted(
        session, *scope, farewells, {each: seen[each].updated_at for each in seen}
    )
    _read(session, *scope, moved_on, cause=MISSING)
    done = [each for each in farewells if each.deletion.pipedrive_id not in moved_on]
    ids = [each.deletion.pipedrive_id for each in done]
    release_all(session, *scope, [each for each in ids if not seen[each].in_hull])
    names = [str(each) for each in ids]
    failure_closing.close_recovered(session, scope[0], Direction.INCOMING, scope[1], names)
    failure_closing.close_fields(session, scope[0], Direction.INCOMING, scope[1], names, refused=())
    id_mapping_writer.query_conflicts_again(session, *scope)
    _transfer(session, batch, done)
    sources = changes.sources_of(session, batch.id)
    record(session, [_deletion_event(batch, each, sources) for each in done if each.outcome is not None])


def _read(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int], *, cause: str) -> None:
    """Have these records read by their ids."""
    ids = map(str, pipedrive_ids)
    change_writer.write_changes(session, connector_key, Direction.INCOMING, entity, ids, cause=cause)


def _transfer(session: Session, batch: ClaimedBatch, farewells: Sequence[DeletionEffect]) -> None:
    """Transfer what merged records held, and Hull's values, to the survivors: these are read and delivered again."""
    merged = [(each, each.deletion.merged_into) for each in farewells if each.deletion.merged_into is not None]
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


def _deletion_event(batch: ClaimedBatch, farewell: DeletionEffect, sources: Mapping[int, Source]) -> events.NewEvent:
    departure = farewell.deletion
    name = event_name(Direction.INCOMING, Entity(batch.entity), farewell.outcome or Outcome.SKIP)
    into = f"merged into {batch.entity} {departure.merged_into}" if departure.merged_into is not None else None
    source = sources.get(departure.pipedrive_id, Source(MERGED, None))
    told = _event(batch, name, farewell.reason, departure.pipedrive_id, source.cause, into or departure.state, farewell)
    return replace(told, delivery_id=source.delivery_id)


def deliver_waiting(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """Read and deliver again records that were sent without a claim that is free now, changed or not."""
    ids = sorted(set(pipedrive_ids))
    if not ids:
        return
    id_mapping_writer.mark_uncertain(session, connector_key, entity, dict.fromkeys(ids, b"{}"))
    change_writer.write_changes(session, connector_key, Direction.INCOMING, entity, map(str, ids), cause=REASON)


def release_all(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> list[Released]:
    """Release everything that these records hold, and deliver the records that waited for it."""
    released = identifier.release_all(session, connector_key, entity, pipedrive_ids)
    deliver_waiting(session, connector_key, entity, [each.wanted_by for each in released if each.wanted_by is not None])
    return released


def release(session: Session, connector_key: int, entity: Entity, pipedrive_id: int) -> list[Released] | None:
    """Release the claims of a deleted record that a person does not expect back; None when it is not deleted."""
    held = identifier_search.find_deleted_holders(session, connector_key, entity, [pipedrive_id])
    return _release(session, list(held.values()), "manual") if held else None


def _release(session: Session, held: Sequence[DeletedHolder], cause: str) -> list[Released]:
    released = []
    for (connector_key, entity), some in groupby(held, key=lambda each: (each.connector_key, each.entity)):
        freed = release_all(session, connector_key, entity, [each.pipedrive_id for each in some])
        _log_released(session, connector_key, Entity(entity), freed, cause)
        released += freed
    return released


def _log_released(
    session: Session, connector_key: int, entity: Entity, released: Sequence[Released], cause: str
) -> None:
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


def release_overdue() -> int:
    """Release the claims of records that Pipedrive has purged: they do not come back. Return how many records held some.

    So are domains that several Organizations gave, and no longer do.
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
    """Return Pipedrive id → kind of deletion, for changes with a waiting webhook that says so."""
    read = {
        int(change.record_id): deletion_notice(read_lenient(bytes(change.payload)), int(change.record_id))
        for change in mine
        if change.payload is not None
    }
    return {pipedrive_id: told for pipedrive_id, told in read.items() if told is not None}


def recheck_deletions(
    session: Session, connector_key: int, entity: str, *, shown: Sequence[int], hidden: Sequence[int]
) -> None:
    """Read by id the deleted records that a page shows, and the known records that it shows as deleted."""
    known = deletion_rows.find_targets(session, connector_key, entity, [*shown, *hidden]) if shown or hidden else {}
    doubtful = [each for each in shown if each in known and known[each].state in DELETED_STATES]
    doubtful += [each for each in hidden if each in known and known[each].state not in DELETED_STATES]
    _read(session, connector_key, entity, doubtful, cause=MISSING)


def yield_to_living(session: Session, connector_key: int, entity: Entity, found: dict[int, str]) -> dict[int, str]:
    """Hull shows a deleted record and an existing one as one, as after a claim was released: the User or Account, and
    the claims, become the existing record's, without the deletion mark.

    found    Pipedrive id → Hull id, as Hull returned; returned without the deleted records that yielded
    """
    found, survivors = deletion_rows.release_to_existing(session, connector_key, entity, found)
    identifier.transfer(session, connector_key, entity, survivors)
    _read(session, connector_key, entity, survivors.values(), cause="made_anew")
    name = event_name(Direction.INCOMING, entity, Outcome.SKIP)
    record(
        session,
        [
            events.NewEvent(
                connector_key=connector_key,
                event=name,
                entity=entity,
                cause="resolve",
                reason="hull_id_reassigned",
                detail=f"to {entity} {survivor}",
                pipedrive_id=departed,
            )
            for departed, survivor in sorted(survivors.items())
        ],
    )
    return found
