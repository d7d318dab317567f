"""Incoming: Pipedrive → Hull. Extract a page or some changes, transform them, load them into Hull and our tables."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Task
from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import claim as claims
from db import connector as connectors
from db import failure as failures
from db import id_mapping
from db import run as run_rows
from db import snapshot as snapshots
from db import sync_event as events
from db.batch import ClaimedBatch
from db.id_mapping import Known
from db.page import PageContext, PageRow, write_page
from db.run import Run, Slice
from db.session import transaction
from pipeline import wiring
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.domain.lenient_json import write_lenient
from pipeline.domain.reasons import describe
from pipeline.errors import LostLease, Rejected, Skip
from pipeline.extract import pages
from pipeline.extract.pages import PageRead, PageWanted
from pipeline.load import incoming as load_incoming
from pipeline.load.incoming import PagePlan
from pipeline.settings import settings
from pipeline.tasks import live, runs
from pipeline.tasks.app import app
from pipeline.tasks.plans import Plan, plan_for
from pipeline.tasks.stage import run_stage
from pipeline.tasks.staging import Transformed, Trouble, pack_page, pack_transformed, unpack_page, unpack_transformed
from pipeline.telemetry import logger
from pipeline.wiring import Wired

FIELDS_STALE_AFTER = timedelta(minutes=5)
"""An option that is not known makes us read the field definitions again, but not more often than this."""


@app.task(name="incoming.extract", bind=True)
def extract(self: Task, batch_id: int) -> None:
    run_stage("extract", batch_id, self.request.id, extract_batch)


@app.task(name="incoming.transform", bind=True)
def transform(self: Task, batch_id: int) -> None:
    run_stage("transform", batch_id, self.request.id, transform_batch)


@app.task(name="incoming.load", bind=True)
def load(self: Task, batch_id: int) -> None:
    run_stage("load", batch_id, self.request.id, load_batch)


# --- extract -------------------------------------------------------------------------------------------------------------


def extract_batch(batch: ClaimedBatch) -> None:
    """Read what the batch stands for, and stage it."""
    if batch.slice_id is None:
        live.extract_changes(batch)
    else:
        extract_page(batch)


def extract_page(batch: ClaimedBatch) -> None:
    """Read the next page of the batch's slice; the cursor, the page and the successor are saved together."""
    entity = Entity(batch.entity)
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key)
        wanted = _page_wanted(session, batch, _plan_with_fields(session, wired, entity))
    page = pages.read_page(wired.pipedrive, entity, wanted)
    with transaction() as session:
        batches.hold(session, batch)
        run = run_rows.lock_run(session, batch.run_id or 0)
        part = session.get_one(Slice, batch.slice_id)
        other = run_rows.frontier_of_other(session, run.id, part.walk)
        batches.pass_to_transform(session, batch.id, _pack(page, part.walk, other), page.records)
        _move_on(session, run, part, page, met=pages.have_met(part.walk, page.frontier, other))
        run_rows.count(run, pages=1, read=page.records, requests=wired.calls.requests, tokens=wired.calls.tokens)
        runs.release(session, run)


def _plan_with_fields(session: Session, wired: Wired, entity: Entity) -> Plan:
    """The plan in force; the field definitions are read the first time anybody needs them."""
    plan = plan_for(session, wired.key, entity)
    if plan.fields_read_at is not None:
        return plan
    refresh_fields(session, wired, entity)
    return plan_for(session, wired.key, entity)


def refresh_fields(session: Session, wired: Wired, entity: Entity) -> None:
    """Read the field definitions of one entity again."""
    connectors.keep_fields(session, wired.key, entity, wired.pipedrive.fields(entity))


def _page_wanted(session: Session, batch: ClaimedBatch, plan: Plan) -> PageWanted:
    part = session.get_one(Slice, batch.slice_id)
    run = session.get_one(Run, batch.run_id)
    return PageWanted(
        walk=part.walk,
        cursor=part.cursor,
        frontier=part.frontier,
        since=runs.catch_up_since(run) if part.walk == "catch_up" else None,
        limit=settings().page_limit,
        include_fields=plan.incoming.include_fields,
    )


def _pack(page: PageRead, walk: str, other: int | None) -> bytes:
    """The page, and which of its ids are this walk's: those that the other one has not passed."""
    above = other if walk == "descending" else None
    below = other if walk == "ascending" else None
    return pack_page(page.body, above=above, below=below)


def _move_on(session: Session, run: Run, part: Slice, page: PageRead, *, met: bool) -> None:
    """Save where the walk stands; either its next page waits now, or it is done.

    A walk by id that came to its end, or met the other one, has seen to all ids, and so the other one is done too.
    """
    part.cursor, part.frontier, part.pages = page.next_cursor, page.frontier, part.pages + 1
    if part.state == "open" and not (met or page.ended):
        runs.add_page(session, run, part)
        return
    part.state = "done"
    for other in run_rows.slices_of(session, run.id):
        if other.state == "open" and part.walk != "catch_up":
            other.state = "done"
            batches.drop_waiting(session, other.id)
    session.flush()


# --- transform -----------------------------------------------------------------------------------------------------------


def transform_batch(batch: ClaimedBatch) -> None:
    """Say every record in Hull's words; a record that cannot be read leaves the batch, the others go on."""
    entity = Entity(batch.entity)
    with transaction() as session:
        plan = plan_for(session, batch.connector_key, entity)
        extracted, _ = batches.staged(session, batch.id)
    records, above, below = unpack_page(bytes(extracted or b""))
    mine = [record for record in records if _is_mine(record, above, below)]
    packed, unknown_option = _transform(mine, plan)
    if unknown_option and _fields_are_stale(plan):
        with transaction() as session:
            refresh_fields(session, wiring.open_connector(session, batch.connector_key), entity)
            plan = plan_for(session, batch.connector_key, entity)
        packed, _ = _transform(mine, plan)
    with transaction() as session:
        batches.hold(session, batch)
        batches.pass_to_load(session, batch.id, packed)


def _is_mine(record: Any, above: int | None, below: int | None) -> bool:
    record_id = pages.id_of(record)
    if record_id is None:
        return True
    return (above is None or record_id > above) and (below is None or record_id < below)


def _fields_are_stale(plan: Plan) -> bool:
    return plan.fields_read_at is None or datetime.now(UTC) - plan.fields_read_at > FIELDS_STALE_AFTER


def _transform(records: list[Any], plan: Plan) -> tuple[bytes, bool]:
    """(what is staged for load, whether an option was named that the field definitions do not know)."""
    read = plan.incoming.read
    done, troubles = [], []
    for record in records:
        try:
            done.append(read(record))
        except (Rejected, Skip) as refused:
            troubles.append(_trouble(record, refused))
    unknown_option = any(problem.reason == "option_unknown" for each in done for problem in each.problems)
    return pack_transformed(done, troubles, plan.settings_version), unknown_option


def _trouble(record: Any, refused: Rejected | Skip) -> Trouble:
    return Trouble(
        pipedrive_id=pages.id_of(record),
        outcome=Outcome.SKIP if isinstance(refused, Skip) else Outcome.ERROR,
        reason=refused.reason,
        detail=refused.detail,
        field=refused.field,
        payload=write_lenient(record).decode("utf-8"),
    )


# --- load ----------------------------------------------------------------------------------------------------------------


def load_batch(batch: ClaimedBatch) -> None:
    """Deliver what is new or changed to Hull, then write the page down."""
    entity = Entity(batch.entity)
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key)
        link = plan_for(session, batch.connector_key, entity).settings.link_users_in_hull
        extracted, transformed = batches.staged(session, batch.id)
        staged = unpack_transformed(bytes(transformed or b""))
        known = id_mapping.known(session, wired.key, entity, [record["pipedrive_id"] for record in staged.records])
        plan = load_incoming.plan_page(entity, staged.records, known, resend=_resends(session, batch))
        batches.hold(session, batch)
        held = claims.take_claims(session, wired.key, entity, plan.wanted_claims, changed=plan.changed_ids)
        raw = unpack_page(bytes(extracted or b""))[0] if plan.sendings else []
        compress = snapshots.compressor(session, wired.key, entity, raw)
    messages, rows = load_incoming.compose(plan, raw, wired.hull.writer(), held, compress, link=link)
    wired.hull.post_batches(messages, size=settings().firehose_batch)
    try:
        with transaction() as session:
            batches.hold(session, batch)
            context = _context(session, batch, staged)
            moved_on = set(write_page(session, context, rows))
            _send_newest(session, batch, [row for row in rows if row.pipedrive_id in moved_on])
            _add_shells(session, batch, plan, context, in_hull=link)
            _log_troubles(session, batch, plan, staged, context)
            _log_problems(session, plan, held, context)
            _end(session, batch, plan, wired)
    except LostLease:
        _said_too_late(batch, rows)
        raise


def _said_too_late(batch: ClaimedBatch, rows: list[PageRow]) -> None:
    """The lease was lost before Hull was told: what another worker has brought there since must be said again."""
    with transaction() as session:
        ids = [row.pipedrive_id for row in rows]
        known = id_mapping.known(session, batch.connector_key, batch.entity, ids)
        _send_newest(session, batch, [row for row in rows if _is_newer(known.get(row.pipedrive_id), row)])


def _is_newer(known: Known | None, row: PageRow) -> bool:
    return known is not None and known.version > row.version


def _resends(session: Session, batch: ClaimedBatch) -> bool:
    """Only the walk of a full fetch that was not asked for changes alone."""
    if batch.run_id is None:
        return False
    run = session.get_one(Run, batch.run_id)
    part = session.get_one(Slice, batch.slice_id)
    return not run.changed_only and part.walk != "catch_up"


def _context(session: Session, batch: ClaimedBatch, staged: Transformed) -> PageContext:
    entity = Entity(batch.entity)
    return PageContext(
        connector_key=batch.connector_key,
        entity=entity,
        event=event_name(Direction.INCOMING, entity, Outcome.SUCCESS),
        cause="fetch" if batch.run_id is not None else live.cause_of(session, batch),
        matched_by="fetched" if batch.run_id is not None else "webhook",
        run_id=batch.run_id,
        batch_id=batch.id,
        settings_version=staged.settings_version,
    )


def _send_newest(session: Session, batch: ClaimedBatch, moved_on: list[PageRow]) -> None:
    """Another writer was faster: Hull shows an older state until the newest is sent again."""
    if not moved_on:
        return
    said = {row.pipedrive_id: row.delivered for row in moved_on}
    id_mapping.doubt(session, batch.connector_key, batch.entity, said)
    for pipedrive_id in said:
        changes.fold(
            session, batch.connector_key, Direction.INCOMING, batch.entity, str(pipedrive_id), cause="stale_overwrite"
        )


def _add_shells(session: Session, batch: ClaimedBatch, plan: PagePlan, context: PageContext, *, in_hull: bool) -> None:
    """Organizations that Persons belong to and that nobody has seen yet are noted, once."""
    if batch.entity != Entity.PERSON:
        return
    organizations = load_incoming.organizations_of(plan)
    fresh = id_mapping.add_shells(session, context.connector_key, Entity.ORGANIZATION, organizations, in_hull=in_hull)
    plan.counters["shells"] += len(fresh)
    name = event_name(Direction.INCOMING, Entity.ORGANIZATION, Outcome.SUCCESS)
    events.log_events(
        session,
        [_event(context, name, Entity.ORGANIZATION, pipedrive_id, reason="shell_created") for pipedrive_id in fresh],
    )


def _event(
    context: PageContext,
    name: str,
    entity: Entity,
    pipedrive_id: int | None,
    *,
    reason: str,
    detail: str | None = None,
) -> events.NewEvent:
    return events.NewEvent(
        connector_key=context.connector_key,
        event=name,
        entity=entity,
        cause=context.cause,
        reason=reason,
        detail=detail,
        pipedrive_id=pipedrive_id,
        run_id=context.run_id,
        batch_id=context.batch_id,
        settings_version=context.settings_version,
    )


def _log_troubles(
    session: Session, batch: ClaimedBatch, plan: PagePlan, staged: Transformed, context: PageContext
) -> None:
    """Records that left the batch: an event each, and a Failure for those a person must look at."""
    entity = Entity(batch.entity)
    troubles = [Trouble(**trouble) for trouble in staged.troubles]
    logged = []
    for trouble in troubles:
        name = event_name(Direction.INCOMING, entity, Outcome(trouble.outcome))
        logged.append(_event(context, name, entity, trouble.pipedrive_id, reason=trouble.reason, detail=trouble.detail))
        _say(name, trouble.pipedrive_id, trouble.reason, trouble.field)
    events.log_events(session, logged)
    refused = [trouble for trouble in troubles if trouble.outcome == Outcome.ERROR]
    failures.keep_failures(session, [_failure(batch, trouble) for trouble in refused])
    plan.counters["failed"] += len(refused)
    plan.counters["skipped"] += len(troubles) - len(refused)


def _say(name: str, pipedrive_id: int | None, reason: str, field: str | None) -> None:
    say = logger().warning if name.endswith(".error") else logger().info
    say(name, pipedrive_id=pipedrive_id, reason=reason, field=field, advice=describe(reason))


def _failure(batch: ClaimedBatch, trouble: Trouble) -> failures.NewFailure:
    payload = trouble.payload.encode()
    record_id = str(trouble.pipedrive_id) if trouble.pipedrive_id is not None else None
    name = record_id or hashlib.blake2b(payload, digest_size=8).hexdigest()
    return failures.NewFailure(
        connector_key=batch.connector_key,
        kind="record",
        subject=failures.record_subject(Direction.INCOMING, batch.entity, name),
        direction=Direction.INCOMING,
        entity=batch.entity,
        record_id=record_id,
        batch_id=batch.id,
        run_id=batch.run_id,
        stage="transform",
        reason=trouble.reason,
        detail=trouble.detail,
        field=trouble.field,
        payload=payload,
    )


def _log_problems(session: Session, plan: PagePlan, held: dict[tuple[str, int], int], context: PageContext) -> None:
    """Fields and claims that stayed behind while their record went: told when the record is new or changed."""
    error = event_name(Direction.INCOMING, plan.entity, Outcome.ERROR)
    skip = event_name(Direction.INCOMING, plan.entity, Outcome.SKIP)
    logged = []
    for sending in plan.sendings:
        if sending.effect == load_incoming.SAME:
            continue
        pipedrive_id = sending.record["pipedrive_id"]
        for problem in sending.record["problems"]:
            detail = f"{problem['field']}: {problem['detail']}"
            logged.append(_event(context, error, plan.entity, pipedrive_id, reason=problem["reason"], detail=detail))
            _say(error, pipedrive_id, problem["reason"], problem["field"])
        for claim in sending.record["claims"]:
            if (holder := held.get((claim, pipedrive_id))) is not None:
                detail = f"{claim}: held by {plan.entity} {holder}"
                logged.append(_event(context, skip, plan.entity, pipedrive_id, reason="duplicate_claim", detail=detail))
                _say(skip, pipedrive_id, "duplicate_claim", claim)
    events.log_events(session, logged)
    plan.counters["failed"] += sum(1 for event in logged if event.event == error)


def _end(session: Session, batch: ClaimedBatch, plan: PagePlan, wired: Wired) -> None:
    """The page is written: heal what had failed before, count, and let the run or the changes go on."""
    sent = [str(sending.record["pipedrive_id"]) for sending in plan.sendings]
    failures.close_healed(session, batch.connector_key, Direction.INCOMING, batch.entity, sent)
    batches.end(session, batch.id)
    if batch.run_id is None:
        live.finish(session, batch, plan)
        return
    run = run_rows.lock_run(session, batch.run_id)
    counters = {name: count for name, count in plan.counters.items() if name in run_rows.COUNTERS}
    run_rows.count(run, requests=wired.calls.requests, **counters)
    runs.advance(session, run)
    logger().info("incoming.job.progress", type=Entity(batch.entity).hull, **counters)
