"""Record what went wrong in a page: records that left it, rejected fields, and claims that another record holds."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from db import change as changes
from db import change_writer, failure_closing
from db import failure as failures
from db.batch import ClaimedBatch
from db.change import Source
from db.failure import NewFailure
from db.identifier import SHARED
from db.identifier_search import DeletedHolder, find_deleted_holders
from db.page import PageContext
from db.sync_event import NewEvent
from pipeline.domain.deletions import RESTORABLE_DAYS
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.domain.records import UNIDENTIFYING, FieldProblem
from pipeline.load import incoming as load_incoming
from pipeline.load.incoming import PageDiff
from pipeline.sync import definitions
from pipeline.sync.changes import dispatch
from pipeline.sync.event_recorder import EventRecorder, batch_event, batch_failure, record
from pipeline.sync.incoming import deletions
from pipeline.sync.staging import LeftOut, Transformed


def page_context(session: Session, batch: ClaimedBatch, staged: Transformed) -> PageContext:
    """Return what the rows of a page have in common."""
    sources = {} if batch.run_id is not None else changes.sources_of(session, batch.id)
    return PageContext(
        connector_key=batch.connector_key,
        entity=batch.entity,
        event=event_name(Direction.INCOMING, batch.entity, Outcome.SUCCESS),
        cause=_cause(session, batch, sources),
        matched_by="fetched" if batch.run_id is not None else "webhook",
        run_id=batch.run_id,
        batch_id=batch.id,
        settings_version=staged.settings_version,
        sources=sources,
    )


def _cause(session: Session, batch: ClaimedBatch, sources: Mapping[int, Source]) -> str:
    """Return the batch's cause, for records without one of their own."""
    if batch.run_id is not None:
        return "fetch"
    return next(iter(sources.values())).cause if sources else dispatch.cause_of(session, batch)


def _page_event(
    batch: ClaimedBatch, context: PageContext, outcome: Outcome, pipedrive_id: int | None, **facts: str | None
) -> NewEvent:
    source = context.sources.get(pipedrive_id or 0)
    return batch_event(
        batch,
        outcome,
        cause=source.cause if source else context.cause,
        delivery_id=source.delivery_id if source else None,
        pipedrive_id=pipedrive_id,
        settings_version=context.settings_version,
        **facts,
    )


def log_troubles(
    session: Session, batch: ClaimedBatch, plan: PageDiff, staged: Transformed, context: PageContext
) -> None:
    """Record an event for each record that left the batch, and a failure if a person must check it; once per run."""
    troubles = [LeftOut(**trouble) for trouble in staged.troubles]
    failed = [_record_failure(batch, trouble, staged.settings_version) for trouble in troubles]
    known = failures.find_kept_in_run(
        session, batch.connector_key, batch.run_id, [failure.subject for failure in failed]
    )
    fresh = [each for each in zip(troubles, failed, strict=True) if (each[1].subject, each[1].reason) not in known]
    recorder = EventRecorder()
    for trouble, failure in fresh:
        outcome = Outcome(trouble.outcome)
        event = _page_event(batch, context, outcome, trouble.pipedrive_id, reason=trouble.reason, detail=trouble.detail)
        recorder.add(event, failure if outcome is Outcome.ERROR else None, field=trouble.field)
    recorder.write(session)
    count = sum(trouble.outcome == Outcome.ERROR for trouble, _ in fresh)
    plan.counters["failed"] += count
    plan.counters["skipped"] += len(fresh) - count
    hidden = [each.pipedrive_id for each in troubles if each.reason == "deleted_in_pipedrive" and each.pipedrive_id]
    deletions.recheck_deletions(session, batch.connector_key, batch.entity, shown=plan.stale, hidden=hidden)


def _record_failure(batch: ClaimedBatch, trouble: LeftOut, settings_version: int) -> NewFailure:
    payload = trouble.payload.encode()
    record_id = str(trouble.pipedrive_id) if trouble.pipedrive_id is not None else None
    name = record_id or hashlib.blake2b(payload, digest_size=8).hexdigest()
    return batch_failure(
        batch,
        "record",
        failures.record_subject(batch.direction, batch.entity, name),
        record_id=record_id,
        stage="transform",
        reason=trouble.reason,
        detail=trouble.detail,
        field=trouble.field,
        payload=payload,
        settings_version=settings_version,
    )


def log_problems(
    session: Session, batch: ClaimedBatch, plan: PageDiff, held: dict[tuple[str, int], int], context: PageContext
) -> None:
    """Record the fields and claims that were left out of new and changed records.

    held  (claim, Pipedrive id) → the other record that holds the value
    """
    recorder = EventRecorder()
    deleted = find_deleted_holders(session, context.connector_key, plan.entity, held.values()) if held else {}
    for sending in plan.sendings:
        if sending.effect == load_incoming.SAME:
            continue
        pipedrive_id = sending.record["pipedrive_id"]
        for reason, fields, why in _by_cause(sending.record["problems"]):
            outcome = Outcome.SKIP if reason in UNIDENTIFYING else Outcome.ERROR
            detail = f"{fields}: {why}"
            recorder.add(_page_event(batch, context, outcome, pipedrive_id, reason=reason, detail=detail, field=fields))
        for claim in sending.record["claims"]:
            if (holder := held.get((claim, pipedrive_id))) is not None:
                reason, detail = _held(claim, plan.entity, holder, deleted)
                event = _page_event(batch, context, Outcome.SKIP, pipedrive_id, reason=reason, detail=detail)
                recorder.add(event, field=claim)
    recorder.write(session)


def _by_cause(problems: Sequence[Mapping[str, str]]) -> list[tuple[str, str, str]]:
    """Return (reason, fields, detail): several fields of a record with one cause are one problem."""
    fields: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        fields.setdefault((problem["reason"], problem["detail"]), []).append(problem["field"])
    return [(reason, ", ".join(dict.fromkeys(named)), detail) for (reason, detail), named in fields.items()]


def _held(claim: str, entity: Entity, holder: int, deleted: Mapping[int, DeletedHolder]) -> tuple[str, str]:
    """Return (reason, detail) of a claim that another record holds."""
    if holder == SHARED:
        return "shared_domain", f"{claim}: several {entity.plural} have it, so it identifies none of them"
    return "duplicate_claim", f"{claim}: held by {entity} {holder}{_until(deleted.get(holder))}"


def _until(held: DeletedHolder | None) -> str:
    """Return since when a holder is deleted, and when it releases its claims."""
    if held is None:
        return ""
    free = held.since + timedelta(days=RESTORABLE_DAYS)
    return f", {held.state} since {held.since:%Y-%m-%d}, until {free:%Y-%m-%d} or until it is released"


def log_missing_fields(session: Session, batch: ClaimedBatch, problems: Sequence[FieldProblem], version: int) -> None:
    """Record the mapped fields that the company does not have, once per run."""
    missing = [
        batch_event(
            batch,
            Outcome.ERROR,
            cause="fetch" if batch.run_id is not None else "webhook",
            reason=problem.reason,
            detail=f"{problem.field}: {problem.detail}",
            field=problem.field,
            settings_version=version,
        )
        for problem in problems
    ]
    record(session, missing)


def store_rejected_fields(
    session: Session,
    batch: ClaimedBatch,
    plan: PageDiff,
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
    failed = [_field_failure(batch, record_id, problem, staged.settings_version) for record_id, problem in rejected]
    subjects = {(each.subject, each.reason) for each in failed}
    counted = failures.find_kept_in_run(
        session, batch.connector_key, batch.run_id, [subject for subject, _ in subjects]
    )
    record(session, failed=failed)
    scope = (batch.connector_key, batch.direction, batch.entity)
    failure_closing.close_fields(
        session,
        *scope,
        [str(record["pipedrive_id"]) for record in mine],
        refused=[(record_id, problem["field"]) for record_id, problem in rejected],
    )
    plan.counters["rejected_fields"] += len({subject for subject, _ in subjects - counted})
    change_writer.write_changes(session, *scope, map(str, outdated), cause=definitions.CAUSE, keeps_cause=True)


def _field_failure(
    batch: ClaimedBatch, record_id: str, problem: Mapping[str, str], settings_version: int
) -> NewFailure:
    return batch_failure(
        batch,
        "field",
        failures.field_subject(batch.direction, batch.entity, record_id, problem["field"]),
        record_id=record_id,
        stage="transform",
        reason=problem["reason"],
        detail=problem["detail"],
        field=problem["field"],
        settings_version=settings_version,
    )
