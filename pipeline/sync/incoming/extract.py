"""Extract of an incoming batch: the next page of a fetch, or the newest state of every record in some changes.

A page, the cursor of its slice and the next page are saved in one transaction.

A webhook's payload is used if it is complete and newer than the last synchronized state. Otherwise the record is read, 100 ids
per request. A webhook alone never proves a deletion.

A sender of webhooks can name any number of ids. Unknown ids without a complete payload are therefore read in at most CALLS
requests per EVERY_S seconds, with tokens for fetches. The other ids wait. After MOST_WAITS waits they are left to the
incremental fetch, which finds every real change with one walk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, Final

from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import change_writer, id_mapping, id_mapping_writer, schedule, webhook
from db import run as run_rows
from db.batch import ClaimedBatch
from db.change import Change
from db.id_mapping import Known
from db.run import LockedWalk, Run, SliceProgress
from db.schedule import catch_up_soon
from db.session import transaction
from db.snapshot import page_of_snapshots, read_snapshots
from pipeline import extract, wiring
from pipeline.domain.budget import Lane
from pipeline.domain.deletions import DELETED_STATES, MERGED
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.paging import MAX_IDS
from pipeline.domain.times import version_of
from pipeline.errors import Rejected, Retryable, Skip
from pipeline.extract import PageRead, PageWanted, id_of, ids_of, read_by_ids, read_members
from pipeline.settings import settings
from pipeline.sync import definitions
from pipeline.sync.compiled import CompiledSettings, compiled_for, compiled_of
from pipeline.sync.incoming import deletions
from pipeline.sync.incoming.page_log import log_missing_fields
from pipeline.sync.incoming.stale_reads import ask_again, find_lagging, is_outdated, is_shown_deleted
from pipeline.sync.runs import runs
from pipeline.sync.staging import pack_changes, pack_page
from pipeline.telemetry import logger
from pipeline.transform.webhooks import complete_record, decode_webhook
from pipeline.wiring import Wired

CALLS: Final = 10
"""Each reads MAX_IDS, for 10 tokens."""
EVERY_S: Final = 60
MOST_WAITS: Final = 3
WEBHOOK: Final = "webhook"


def extract_page(batch: ClaimedBatch) -> None:
    """Read the next page of the batch's slice, and save it with the cursor and the slice's next page.

    A walk that has not begun is skipped when the opposite one has read everything.
    """
    entity = batch.entity
    plan = compiled_of(batch)
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
        progress = run_rows.get_slice_progress(session, batch.slice_id or 0, runs.CATCH_UP_OVERLAP.total_seconds())
        if progress.state == "done" and progress.cursor is None:
            _skip_walk(session, batch)
            return
        wanted = _page_wanted(progress, plan)
        stored = _stored_page(session, batch, wanted, progress.plan_id) if wanted.walk == "stored" else None
    if stored is None or plan.fields_read_at is None:
        begins = progress.started_at if progress.cursor is None and progress.walk != "catch_up" else None
        plan = definitions.current_compiled(wired, entity, plan, not_before=begins)
        wanted = replace(wanted, include_fields=plan.incoming.include_fields)
    page = stored or extract.read_page(wired.pipedrive, entity, wanted)
    with transaction() as session:
        batches.hold(session, batch)
        walk = run_rows.lock_walk(session, batch.run_id or 0, batch.slice_id or 0)
        batches.pass_to_transform(
            session, batch.id, _pack(page, walk), page.records, extract_call=wired.calls.last_as_json
        )
        _continue_walk(session, walk, page)
        run_rows.keep_page_ids(session, walk.run_id, batch.id, page.ids)
        if walk.read == 0:
            log_missing_fields(session, batch, plan.incoming.problems, plan.settings_version)
        run_rows.count(
            session,
            walk.run_id,
            pages=1,
            read=0 if batch.revisits else page.records - walk.passed(page.ids),
            requests=wired.calls.requests,
            tokens=wired.calls.tokens,
        )
        if walk.run_state == "running":  # the pages of a stopped run wait until it continues
            runs.release(session, walk.run_id)


def _skip_walk(session: Session, batch: ClaimedBatch) -> None:
    batches.hold(session, batch)
    run = run_rows.lock_run(session, batch.run_id or 0)
    batches.end(session, batch.id)
    if run.state == "running":
        runs.advance(session, run.id)


def _page_wanted(progress: SliceProgress, plan: CompiledSettings) -> PageWanted:
    return PageWanted(
        walk=progress.walk,
        cursor=progress.cursor,
        frontier=progress.frontier,
        anchor=progress.anchor,
        empty=progress.empty_pages,
        since=progress.since if progress.walk == "catch_up" else None,
        limit=settings().page_limit,
        include_fields=plan.incoming.include_fields,
    )


def _stored_page(session: Session, batch: ClaimedBatch, wanted: PageWanted, plan_id: int | None) -> PageRead:
    """Return the next page of a backfill, from the snapshots: it costs no tokens."""
    where = (session, batch.connector_key, batch.entity)
    found = page_of_snapshots(*where, after=wanted.cursor, limit=wanted.limit, planned_by=plan_id)
    body = b'{"data":[%b]}' % b",".join(found.values())
    ids = [int(record_id) for record_id in found]
    cursor = list(found)[-1] if len(found) == wanted.limit else None
    return PageRead(body=body, records=len(ids), ids=ids, next_cursor=cursor, frontier=None, ended=cursor is None)


def _pack(page: PageRead, walk: LockedWalk) -> bytes:
    """Pack the page with the interval of ids that the other walk has not read."""
    above = walk.other_end if walk.walk == "descending" else None
    below = walk.other_end if walk.walk == "ascending" else None
    return pack_page(page.body, above=above, below=below)


def _continue_walk(session: Session, walk: LockedWalk, page: PageRead) -> None:
    """Save the walk's cursor, and add its next page unless it is done.

    A walk that began alone gets its opposite walk when a second page follows.
    When a walk by id reaches its end or meets the other one, all ids were read: the other one is done too.
    """
    met = extract.have_met(walk.walk, page.frontier, walk.other_end)
    is_open = walk.state == "open" and not (met or page.ended)
    run_rows.move_slice(session, walk.slice_id, page.next_cursor, page.frontier, records=page.records, done=not is_open)
    if is_open:
        batches.add_page(session, walk.connector_key, walk.entity, walk.run_id, walk.slice_id)
        if walk.is_alone:
            runs.open_slice(session, session.get_one(Run, walk.run_id), "descending")
        return
    for other in run_rows.slices_of(session, walk.run_id):
        if other.state == "open" and walk.walk != "catch_up":
            other.state = "done"
            batches.drop_waiting(session, other.id)
    session.flush()


def extract_changes(batch: ClaimedBatch) -> None:
    """Stage the newest state of every record in the batch's changes, from their payloads or by reading it."""
    entity = batch.entity
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
        plan = compiled_for(session, batch.connector_key, entity)
    plan = definitions.current_compiled(wired, entity, plan)
    with transaction() as session:
        mine = changes.changes_of(session, batch.id)
        from_webhooks = _usable_payloads(session, batch, plan, mine)
        ids = [int(change.record_id) for change in mine if int(change.record_id) not in from_webhooks]
        found = sort_ids(session, batch, mine, ids)
    read = read_by_ids(wired.pipedrive, entity, found.known, plan.incoming.include_fields)
    unknown = read_unknown(batch, plan, found.unknown) if found.unknown else []
    requested = found.known if unknown is None else [*found.known, *found.unknown]
    read = [*read, *(unknown or [])]
    with transaction() as session:
        lagging = find_lagging(session, batch, plan, mine, read) if read else set()
    read = [record for record in read if id_of(record) not in lagging]
    shown_deleted = set(ids_of([record for record in read if is_shown_deleted(record)]))
    living = [record for record in read if not is_shown_deleted(record)]
    absent = set(requested) - set(ids_of(living)) - lagging
    members = _members(wired, entity, mine, absent)
    with transaction() as session:
        batches.hold(session, batch)
        id_mapping_writer.note_present(session, batch.connector_key, entity, [*from_webhooks, *ids_of(living)])
        mine = changes.changes_of(session, batch.id)
        deleted = deletions.find_deleted(session, batch, mine, absent, shown_deleted)
        ask_again(session, batch, mine, lagging)
        _relink(session, batch, members)
        staged = pack_changes([*from_webhooks.values(), *living], deleted)
        batches.pass_to_transform(session, batch.id, staged, len(mine), extract_call=wired.calls.last_as_json)


def _usable_payloads(
    session: Session, batch: ClaimedBatch, plan: CompiledSettings, mine: list[Change]
) -> dict[int, dict[str, Any]]:
    """Return Pipedrive id → record, for the newest webhooks that are complete and newer than the last synchronized state."""
    ids = [int(change.record_id) for change in mine if change.payload is not None]
    newest = webhook.find_newest(session, batch.connector_key, batch.entity, ids) if ids else {}
    payloads = {
        change.record_id: bytes(change.payload)
        for change in mine
        if change.payload is not None and not is_outdated(newest, change)
    }
    known = id_mapping.known(session, batch.connector_key, batch.entity, [int(record_id) for record_id in payloads])
    snapshots = read_snapshots(session, batch.connector_key, batch.entity, "pipedrive", list(payloads))
    usable = {}
    for record_id, payload in payloads.items():
        snapshot = snapshots.get(record_id)
        record = _whole(payload, int(record_id), read_lenient(snapshot) if snapshot else None, plan)
        if record is not None and _is_newest(record, known.get(int(record_id)), plan):
            usable[int(record_id)] = record
    return usable


def _whole(
    payload: bytes, record_id: int, snapshot: dict[str, Any] | None, plan: CompiledSettings
) -> dict[str, Any] | None:
    """Return the record in a webhook, or None if it must be read: the webhook of a merge has only the survivor's record."""
    try:
        decoded = decode_webhook(read_lenient(payload), plan.catalog)
    except (Rejected, Skip):
        return None
    if decoded.record is None or decoded.head.pipedrive_id != record_id:
        return None
    record, unsure = complete_record(decoded, snapshot, plan.incoming.custom_fields)
    return None if unsure or not plan.incoming.system_fields <= record.keys() else record


def _is_newest(record: dict[str, Any], known: Known | None, plan: CompiledSettings) -> bool:
    """Return whether the record is newer than the last synchronized state, or equal to it, as an echo of our own write is."""
    version = version_of(record)
    if version is None or (known is not None and known.state in DELETED_STATES):
        return False
    if known is None or known.version != version:
        return known is None or known.version < version
    try:
        return plan.incoming.read(record).digest == known.digest
    except (Rejected, Skip):
        return False


def _members(wired: Wired, entity: Entity, mine: Sequence[Change], absent: Collection[int]) -> dict[int, list[int]]:
    """Return the survivor of each merge of Organizations → the ids of its Persons."""
    if entity is not Entity.ORGANIZATION:
        return {}
    notices = deletions.deletion_notices(mine)
    survivors = {notices[each].merged_into for each in absent if each in notices}
    return {each: read_members(wired.pipedrive, each) for each in sorted(filter(None, survivors))}


def _relink(session: Session, batch: ClaimedBatch, members: dict[int, list[int]]) -> None:
    """Request a read of the Persons that we do not know as members of the surviving Organization."""
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


@dataclass(slots=True)
class Sorted:
    """Pipedrive ids that a batch has to read.

    known    ids of known records
    unknown  unknown ids that may be read now
    later    unknown ids that left the batch and are due later
    """

    known: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    later: list[int] = field(default_factory=list)


def sort_ids(session: Session, batch: ClaimedBatch, mine: Sequence[Change], ids: Sequence[int]) -> Sorted:
    """Return which ids of a batch may be read now, and postpone or drop the others.

    Only ids from webhooks are limited; the pipeline itself chose those of a replay, a repair or a recheck.
    """
    known = id_mapping.known(session, batch.connector_key, batch.entity, list(ids))
    named = {int(change.record_id) for change in mine if change.cause == WEBHOOK}
    found = Sorted(known=[each for each in ids if each in known or each not in named])
    unknown = [each for each in ids if each not in known and each in named]
    if not unknown:
        return found
    calls = schedule.take_share(
        session, f"unknown ids of {batch.connector_key}", ceil(len(unknown) / MAX_IDS), most=CALLS, every_s=EVERY_S
    )
    found.unknown, unknown = unknown[: calls * MAX_IDS], unknown[calls * MAX_IDS :]
    attempts = {int(change.record_id): change.attempts for change in mine}
    found.later = [each for each in unknown if attempts.get(each, 0) < MOST_WAITS]
    if found.later:
        names = [str(each) for each in found.later]
        change_writer.put_back(session, batch.id, names, EVERY_S, counted=names)
    if len(found.later) < len(unknown):
        leave_to_fetch(session, batch, len(unknown) - len(found.later))
    return found


def read_unknown(batch: ClaimedBatch, plan: CompiledSettings, ids: Sequence[int]) -> list[Any] | None:
    """Read ids that are not known; return None if fetches may spend no more tokens today. Raises: as `read_by_ids`."""
    wired = wiring.connect(batch.connector_key, lane=Lane.BULK)
    try:
        return read_by_ids(wired.pipedrive, batch.entity, ids, plan.incoming.include_fields)
    except Retryable as spent:
        if spent.reason != "daily_budget_spent":
            raise
    with transaction() as session:
        leave_to_fetch(session, batch, len(ids))
    return None


def leave_to_fetch(session: Session, batch: ClaimedBatch, count: int) -> None:
    """Leave ids that are not read to the next incremental fetch."""
    logger().warning("incoming.unknown_ids.not_read", records=count)
    catch_up_soon(session, batch.connector_key)
