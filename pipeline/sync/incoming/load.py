"""Load of an incoming batch: send new and changed records to Hull, then write the page in one transaction."""

from __future__ import annotations

from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import deletion as deletion_rows
from db import failure_closing, id_mapping, id_mapping_writer, identifier
from db import run as run_rows
from db import snapshot as snapshots
from db.batch import ClaimedBatch
from db.id_mapping import Known
from db.identifier import TakeResult
from db.page import PageContext, write_page
from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.domain.kinds import Direction, Entity, Outcome
from pipeline.errors import LostLease
from pipeline.load import incoming as load_incoming
from pipeline.load.incoming import NEW, SAME, PageDiff, count_once
from pipeline.settings import settings
from pipeline.sync import definitions
from pipeline.sync.changes import dispatch
from pipeline.sync.compiled import compiled_of
from pipeline.sync.event_recorder import new_event, record
from pipeline.sync.incoming import stale_reads
from pipeline.sync.incoming.deletions import deliver_waiting
from pipeline.sync.incoming.page_log import log_problems, log_troubles, page_context, store_rejected_fields
from pipeline.sync.runs import runs
from pipeline.sync.staging import unpack_bodies, unpack_transformed
from pipeline.tasks import canvases
from pipeline.telemetry import logger
from pipeline.wiring import Wired

SHOWN_AFTER_S = 60.0
"""How long after a delivery Hull's search shows its result."""


def load_batch(batch: ClaimedBatch) -> None:
    """Send what is new or changed to Hull, then write the page."""
    entity = batch.entity
    in_force = compiled_of(batch)
    link = in_force.settings.link_users_in_hull
    staged = unpack_transformed(bytes(batch.transformed or b""))
    with transaction() as session:
        if staged.settings_version != in_force.settings_version:
            _transform_again(session, batch)
            return
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
        fresh_from = stale_reads.fresh_from()
        ids = [record["pipedrive_id"] for record in staged.records]
        unchanged = load_incoming.unchanged_states(staged.records, fresh_from)
        known = id_mapping.known(session, wired.key, entity, ids, unchanged=unchanged)
        plan = load_incoming.plan_page(
            entity,
            staged.records,
            known,
            resend=batch.resends and not batch.is_stored,
            relink=batch.resends and batch.is_stored,
            fresh_from=fresh_from,
            shared=in_force.shared,
        )
        if batch.run_id is None and entity is Entity.PERSON:
            plan.mark_created(changes.created_ids(session, batch.id))
        batches.hold(session, batch)
        taken = identifier.take_values(session, wired.key, entity, plan.wanted_claims)
        named = load_incoming.organizations_of(plan)
        read = deletion_rows.find_read(session, wired.key, Entity.ORGANIZATION, named) if link and named else ()
        bodies = unpack_bodies(bytes(batch.extracted or b"")) if plan.sendings or plan.unchanged else {}
        compress = snapshots.compressor(session, wired.key, entity, bodies.values()) if bodies else bytes
        sent = _hull_ids(session, batch, known)
    messages, rows = load_incoming.compose(
        plan, bodies, wired.hull.writer(), taken.held, compress, link=link, read=read, hull_ids=sent
    )
    unchanged_rows = load_incoming.unchanged_rows(plan, bodies, compress)
    wired.hull.post_batches(messages, size=settings().firehose_batch)
    try:
        with transaction() as session:
            problems = {each["pipedrive_id"]: [one["reason"] for one in each["problems"]] for each in staged.records}
            outdated = definitions.find_outdated(session, batch, problems, staged.fields_read_at)
            batches.hold(session, batch)
            context = page_context(session, batch, staged)
            conflicts = write_page(session, context, [*rows, *unchanged_rows], known)
            count_once(plan, conflicts)
            _store_claims(session, batch, plan, taken, conflicts.stale)
            stale_reads.send_newest(session, batch, [row for row in rows if row.pipedrive_id in conflicts.stale])
            _add_shells(session, batch, plan, context, in_hull=link)
            log_troubles(session, batch, plan, staged, context)
            log_problems(session, batch, plan, taken.held, context)
            left_out = {*plan.stale, *conflicts.stale}
            store_rejected_fields(session, batch, plan, staged, left_out, outdated)
            _end(session, batch, plan, wired)
            stale_reads.read_again_later(session, batch, plan, known)
    except LostLease:
        stale_reads.resend_after_lost_lease(batch, rows)
        raise


def _store_claims(
    session: Session, batch: ClaimedBatch, plan: PageDiff, taken: TakeResult, moved_on: frozenset[int]
) -> None:
    """Store claims and aliases, and release the replaced ones; not of records that another worker has written since."""
    scope = (session, batch.connector_key, plan.entity)
    current = [each for each in plan.changed_ids if each not in moved_on]
    unchanged = [was.pipedrive_id for _, was in plan.unchanged if was.pipedrive_id not in moved_on]
    freed = identifier.release_replaced(*scope, plan.wanted_claims, changed=current)
    identifier.write_aliases(
        *scope, plan.aliases(taken.held), changed=[*current, *unchanged], kept=plan.unchanged_claims
    )
    deliver_waiting(*scope, freed)
    id_mapping_writer.query_hull_ids_again(*scope, taken.fresh.intersection(current), SHOWN_AFTER_S)


def _transform_again(session: Session, batch: ClaimedBatch) -> None:
    """Return the batch to transform: the settings have changed, and the old ones would undo the new ones."""
    batches.hold(session, batch)
    wakeup = batches.transform_again(session, batch)
    after_commit(session, lambda: canvases.wake([wakeup]))


def _hull_ids(session: Session, batch: ClaimedBatch, known: dict[int, Known]) -> dict[int, str]:
    """Return the Hull ids of a read-back: claims might lead to another User or Account."""
    if batch.run_id is not None or dispatch.cause_of(session, batch) != dispatch.READ_BACK:
        return {}
    return {pipedrive_id: each.hull_id for pipedrive_id, each in known.items() if each.hull_id is not None}


def _add_shells(session: Session, batch: ClaimedBatch, plan: PageDiff, context: PageContext, *, in_hull: bool) -> None:
    """Store a shell for every unknown Organization of the page's Persons."""
    if batch.entity is not Entity.PERSON:
        return
    organizations = load_incoming.organizations_of(plan)
    fresh = id_mapping_writer.add_shells(
        session, context.connector_key, Entity.ORGANIZATION, organizations, in_hull=in_hull
    )
    plan.counters["shells"] += len(fresh)
    created = [
        new_event(
            context.connector_key,
            Direction.INCOMING,
            Entity.ORGANIZATION,
            Outcome.SUCCESS,
            cause=context.cause,
            reason="shell_created",
            pipedrive_id=each,
            run_id=context.run_id,
            batch_id=context.batch_id,
            settings_version=context.settings_version,
        )
        for each in fresh
    ]
    record(session, created, level="debug")


def _end(session: Session, batch: ClaimedBatch, plan: PageDiff, wired: Wired) -> None:
    """End the batch: close earlier failures, count, and continue the run or the changes."""
    sent = [str(sending.record["pipedrive_id"]) for sending in plan.sendings]
    failure_closing.close_recovered(session, batch.connector_key, Direction.INCOMING, batch.entity, sent)
    batches.end(session, batch.id, load_call=wired.calls.last_as_json)
    if batch.run_id is None:
        dispatch.finish(session, batch, plan)
        return
    counters = {name: count for name, count in plan.counters.items() if name in run_rows.COUNTERS}
    if batch.revisits:  # the other records were read and counted before
        counters |= {"read": counters.get(NEW, 0), SAME: 0}
    if run_rows.count(session, batch.run_id, requests=wired.calls.requests, **counters) == "running":
        runs.advance(session, batch.run_id)
    logger().info("incoming.job.progress", type=batch.entity.hull, **counters)
