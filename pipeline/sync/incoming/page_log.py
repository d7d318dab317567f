"""Events of a page besides its successes: records that left it, and rejected fields and claims."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from db import change as changes
from db import change_writer, failure_closing
from db import failure as failures
from db import sync_event as events
from db.batch import ClaimedBatch
from db.change import Source
from db.identifier import NOBODY
from db.identifier_search import DeletedHolder, find_deleted_holders
from db.page import PageContext
from pipeline.domain.deletions import RESTORABLE_DAYS
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.domain.records import UNIDENTIFYING, FieldProblem
from pipeline.load import incoming as load_incoming
from pipeline.load.incoming import PagePlan
from pipeline.sync import definitions
from pipeline.sync.changes import dispatch
from pipeline.sync.event_recorder import EventRecorder, record
from pipeline.sync.incoming import deletions
from pipeline.sync.staging import LeftOut, Transformed


def page_context(session: Session, batch: ClaimedBatch, staged: Transformed) -> PageContext:
    entity = Entity(batch.entity)
    sources = {} if batch.run_id is not None else changes.sources_of(session, batch.id)
    return PageContext(
        connector_key=batch.connector_key,
        entity=entity,
        event=event_name(Direction.INCOMING, entity, Outcome.SUCCESS),
        cause=_cause(session, batch, sources),
        matched_by="fetched" if batch.run_id is not None else "webhook",
        run_id=batch.run_id,
        batch_id=batch.id,
        settings_version=staged.settings_version,
        sources=sources,
    )


def _cause(session: Session, batch: ClaimedBatch, sources: Mapping[int, Source]) -> str:
    """The batch's cause, for records without their own."""
    if batch.run_id is not None:
        return "fetch"
    return next(iter(sources.values())).cause if sources else dispatch.cause_of(session, batch)


def page_event(
    context: PageContext,
    name: str,
    entity: Entity,
    pipedrive_id: int | None,
    *,
    reason: str,
    detail: str | None = None,
    field: str | None = None,
) -> events.NewEvent:
    source = context.sources.get(pipedrive_id or 0) if entity == context.entity else None
    return events.NewEvent(
        connector_key=context.connector_key,
        event=name,
        entity=entity,
        cause=source.cause if source else context.cause,
        delivery_id=source.delivery_id if source else None,
        reason=reason,
        detail=detail,
        pipedrive_id=pipedrive_id,
        run_id=context.run_id,
        batch_id=context.batch_id,
        settings_version=context.settings_version,
        field=field,
    )


def log_troubles(
    session: Session, batch: ClaimedBatch, plan: PagePlan, staged: Transformed, context: PageContext
) -> None:
    """Records that left the batch: an event each, and a Failure for those that a person must check; once per run."""
    entity = Entity(batch.entity)
    troubles = [LeftOut(**trouble) for trouble in staged.troubles]
    kept = [_failure(batch, trouble, staged.settings_version) for trouble in troubles]
    told = failures.find_kept_in_run(session, batch.connector_key, batch.run_id, [failure.subject for failure in kept])
    news = [each for each in zip(troubles, kept, strict=True) if (each[1].subject, each[1].reason) not in told]
    recorder = EventRecorder()
    for trouble, failure in news:
        name = event_name(Direction.INCOMING, entity, Outcome(trouble.outcome))
        event = page_event(context, name, entity, trouble.pipedrive_id, reason=trouble.reason, detail=trouble.detail)
        recorder.add(event, failure if trouble.outcome == Outcome.ERROR else None, field=trouble.field)
    recorder.write(session)
    failed = sum(trouble.outcome == Outcome.ERROR for trouble, _ in news)
    plan.counters["failed"] += failed
    plan.counters["skipped"] += len(news) - failed
    hidden = [each.pipedrive_id for each in troubles if each.reason == "deleted_in_pipedrive" and each.pipedrive_id]
    deletions.recheck_deletions(session, batch.connector_key, entity, shown=plan.stale, hidden=hidden)


def _failure(batch: ClaimedBatch, trouble: LeftOut, settings_version: int) -> failures.NewFailure:
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
        settings_version=settings_version,
    )


def log_problems(session: Session, plan: PagePlan, held: dict[tuple[str, int], int], context: PageContext) -> None:
    """Fields and claims that were left out of a synchronized record: reported if the record is new or changed."""
    error = event_name(Direction.INCOMING, plan.entity, Outcome.ERROR)
    skip = event_name(Direction.INCOMING, plan.entity, Outcome.SKIP)
    recorder = EventRecorder()
    departed = find_deleted_holders(session, context.connector_key, plan.entity, held.values()) if held else {}
    for sending in plan.sendings:
        if sending.effect == load_incoming.SAME:
            continue
        pipedrive_id = sending.record["pipedrive_id"]
        for reason, fields, words in _by_cause(sending.record["problems"]):
            name = skip if reason in UNIDENTIFYING else error
            detail = f"{fields}: {words}"
            recorder.add(
                page_event(context, name, plan.entity, pipedrive_id, reason=reason, detail=detail, field=fields)
            )
        for claim in sending.record["claims"]:
            if (holder := held.get((claim, pipedrive_id))) is not None:
                reason, detail = _held(claim, plan.entity, holder, departed)
                event = page_event(context, skip, plan.entity, pipedrive_id, reason=reason, detail=detail)
                recorder.add(event, field=claim)
    recorder.write(session)


def _by_cause(problems: Sequence[Mapping[str, str]]) -> list[tuple[str, str, str]]:
    """(reason, the fields it is about, detail): what one cause does to several fields of a record is one problem."""
    fields: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        fields.setdefault((problem["reason"], problem["detail"]), []).append(problem["field"])
    return [(reason, ", ".join(dict.fromkeys(named)), detail) for (reason, detail), named in fields.items()]


def _held(claim: str, entity: Entity, holder: int, departed: Mapping[int, DeletedHolder]) -> tuple[str, str]:
    """(reason, detail) of a claim under which a record cannot travel."""
    if holder == NOBODY:
        return "shared_domain", f"{claim}: several {entity.plural} give it, so it identifies none of them"
    return "duplicate_claim", f"{claim}: held by {entity} {holder}{_until(departed.get(holder))}"


def _until(held: DeletedHolder | None) -> str:
    """About a deleted holder: since when, and when it releases its claims automatically."""
    if held is None:
        return ""
    free = held.since + timedelta(days=RESTORABLE_DAYS)
    return f", {held.state} since {held.since:%Y-%m-%d}, until {free:%Y-%m-%d} or until it is released"


def log_missing_fields(session: Session, batch: ClaimedBatch, problems: Sequence[FieldProblem], version: int) -> None:
    """Mapped fields that the company does not have: reported once per run, because every record lacks them."""
    entity = Entity(batch.entity)
    name = event_name(Direction.INCOMING, entity, Outcome.ERROR)
    record(
        session,
        [
            events.NewEvent(
                connector_key=batch.connector_key,
                event=name,
                entity=entity,
                cause="fetch" if batch.run_id is not None else "webhook",
                reason=problem.reason,
                detail=f"{problem.field}: {problem.detail}",
                field=problem.field,
                run_id=batch.run_id,
                batch_id=batch.id,
                settings_version=version,
            )
            for problem in problems
        ],
    )


def outdated(session: Session, batch: ClaimedBatch, staged: Transformed) -> list[int]:
    """Records with a field rejected because of missing definitions that another worker has read since."""
    unknown = [
        record["pipedrive_id"]
        for record in staged.records
        if record["problems"] and any(problem["reason"] in definitions.OUTDATED for problem in record["problems"])
    ]
    entity = Entity(batch.entity)
    if unknown and definitions.has_newer(session, batch.connector_key, entity, staged.fields_read_at):
        return unknown
    return []


def keep(
    session: Session,
    batch: ClaimedBatch,
    plan: PagePlan,
    staged: Transformed,
    left_out: Container[int],
    outdated: Iterable[int],
) -> None:
    """Store every rejected field as a separate failure, and close those that succeeded since.

    left_out  records with an older state in this page
    outdated  records that newer definitions may synchronize completely: they are read again
    """
    mine = [each for each in staged.records if each["pipedrive_id"] not in left_out]
    rejected = [
        (str(record["pipedrive_id"]), problem)
        for record in mine
        for problem in record["problems"]
        if problem["reason"] not in UNIDENTIFYING
    ]
    kept = [_rejected(batch, record_id, problem, staged.settings_version) for record_id, problem in rejected]
    subjects = {(each.subject, each.reason) for each in kept}
    counted = failures.find_kept_in_run(
        session, batch.connector_key, batch.run_id, [subject for subject, _ in subjects]
    )
    record(session, kept=kept)
    failure_closing.close_fields(
        session,
        batch.connector_key,
        Direction.INCOMING,
        batch.entity,
        [str(record["pipedrive_id"]) for record in mine],
        refused=[(record_id, problem["field"]) for record_id, problem in rejected],
    )
    plan.counters["rejected_fields"] += len({subject for subject, _ in subjects - counted})
    again = [str(pipedrive_id) for pipedrive_id in outdated]
    scope = (batch.connector_key, Direction.INCOMING, batch.entity)
    change_writer.write_changes(session, *scope, again, cause=definitions.CAUSE, keeps_cause=True)


def _rejected(
    batch: ClaimedBatch, record_id: str, problem: Mapping[str, str], settings_version: int
) -> failures.NewFailure:
    return failures.NewFailure(
        connector_key=batch.connector_key,
        kind="field",
        subject=failures.field_subject(Direction.INCOMING, batch.entity, record_id, problem["field"]),
        direction=Direction.INCOMING,
        entity=batch.entity,
        record_id=record_id,
        batch_id=batch.id,
        run_id=batch.run_id,
        stage="transform",
        reason=problem["reason"],
        detail=problem["detail"],
        field=problem["field"],
        settings_version=settings_version,
    )
