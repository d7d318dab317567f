"""Outgoing: Hull → Pipedrive, for records whose counterpart is known. Pipedrive's answers go back as the read-back batch.

Matching by claims, creating, segments and links belong to the same four steps and come on top of them.
"""

from __future__ import annotations

from typing import Any

from celery import Task
from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import failure as failures
from db import id_mapping
from db import sync_event as events
from db.batch import ClaimedBatch
from db.change import Change
from db.departure import find_living
from db.session import transaction
from db.snapshot import read_snapshots
from pipeline import wiring
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.domain.lenient_json import read_lenient, write_lenient
from pipeline.domain.reasons import describe
from pipeline.errors import Rejected, Retryable
from pipeline.load import outgoing as load_outgoing
from pipeline.load.outgoing import Sent, Wanted
from pipeline.tasks import live
from pipeline.tasks.app import app
from pipeline.tasks.plans import Plan, plan_for
from pipeline.tasks.stage import MAX_ATTEMPTS, UNCOUNTED, backoff_s, run_stage
from pipeline.tasks.staging import pack_page, unpack_page
from pipeline.telemetry import logger
from pipeline.transform.hull_reports import pipedrive_id_of
from pipeline.transform.segments import in_segments


@app.task(name="outgoing.extract", bind=True)
def extract(self: Task, batch_id: int) -> None:
    run_stage("extract", batch_id, self.request.id, extract_batch)


@app.task(name="outgoing.transform", bind=True)
def transform(self: Task, batch_id: int) -> None:
    run_stage("transform", batch_id, self.request.id, transform_batch)


@app.task(name="outgoing.load", bind=True)
def load(self: Task, batch_id: int) -> None:
    run_stage("load", batch_id, self.request.id, load_batch)


def extract_batch(batch: ClaimedBatch) -> None:
    """Bring together each report as delivered, the Pipedrive id it is joined to, and what was last read from there."""
    with transaction() as session:
        batches.hold(session, batch)
        messages = {
            change.record_id: read_lenient(bytes(change.payload or b"{}"))
            for change in changes.changes_of(session, batch.id)
        }
        joined, departed = _joined(session, batch, messages)
        ids = [str(pipedrive_id) for pipedrive_id in joined.values()]
        snapshots = read_snapshots(session, batch.connector_key, batch.entity, "pipedrive", ids)
        staged = [
            {
                "hull_id": hull_id,
                "message": message,
                "pipedrive_id": joined.get(hull_id),
                "departed": hull_id in departed,
                "snapshot": read_lenient(snapshots.get(str(joined.get(hull_id)), b"null")),
            }
            for hull_id, message in messages.items()
        ]
        batches.pass_to_transform(session, batch.id, pack_page(write_lenient({"data": staged})), len(staged))


def _joined(
    session: Session, batch: ClaimedBatch, messages: dict[str, dict[str, Any]]
) -> tuple[dict[str, int], set[str]]:
    """Hull id → Pipedrive id: by the id map first, then by what the report itself says; and whose record has departed."""
    entity = Entity(batch.entity)
    joined = id_mapping.find_by_hull_ids(session, batch.connector_key, entity, list(messages))
    said = {hull_id: pipedrive_id_of(message[entity.hull]) for hull_id, message in messages.items()}
    told = {hull_id: pipedrive_id for hull_id, pipedrive_id in said.items() if pipedrive_id and hull_id not in joined}
    living = find_living(session, batch.connector_key, entity, told.values())
    found = {hull_id: living[pipedrive_id] for hull_id, pipedrive_id in told.items() if pipedrive_id in living}
    departed = {hull_id for hull_id, pipedrive_id in found.items() if pipedrive_id is None}
    return joined | {hull_id: each for hull_id, each in found.items() if each is not None}, departed


def transform_batch(batch: ClaimedBatch) -> None:
    """Work out for each record what differs from Pipedrive; those with nothing to write are told apart, with a reason."""
    with transaction() as session:
        plan = plan_for(session, batch.connector_key, Entity(batch.entity))
    staged, _, _ = unpack_page(bytes(batch.extracted or b""))
    decisions = [_decide(each, plan, Entity(batch.entity)) for each in staged]
    with transaction() as session:
        batches.hold(session, batch)
        batches.pass_to_load(session, batch.id, pack_page(write_lenient({"data": decisions})))


def _decide(staged: dict[str, Any], plan: Plan, entity: Entity) -> dict[str, Any]:
    """{hull_id, pipedrive_id, reason} of a record that is not sent, or with `fields` and `before` of one that is."""
    decision = {"hull_id": staged["hull_id"], "pipedrive_id": staged["pipedrive_id"], "reason": None, "problems": []}
    message = staged["message"]
    if not in_segments(message, plan.settings, entity):
        return decision | {"reason": "not_in_segment"}
    if not plan.settings.outgoing(entity):
        return decision | {"reason": "no_outgoing_mapping"}
    if staged["departed"] and plan.settings.ignores_deleted(entity) and message.get("is_export") is not True:
        return decision | {"reason": "deleted_in_pipedrive"}
    if staged["pipedrive_id"] is None or staged["snapshot"] is None:
        return decision | {"reason": "outgoing_unknown_record"}
    report = {**message[entity.hull], "account": message.get("account") or {}}
    write = plan.outgoing.write(report, staged["snapshot"])
    if write.is_empty:
        return decision | {"reason": "unchanged", "problems": list(write.problems)}
    return decision | {"fields": write.fields, "before": write.before, "problems": list(write.problems)}


def load_batch(batch: ClaimedBatch) -> None:
    """Write to Pipedrive what differs, and stage its answers for the read-back."""
    entity = Entity(batch.entity)
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
    decisions, _, _ = unpack_page(bytes(batch.transformed or b""))
    to_send = [
        Wanted(hull_id=each["hull_id"], pipedrive_id=each["pipedrive_id"], fields=each["fields"])
        for each in decisions
        if each["reason"] is None
    ]
    sent: list[Sent] = []
    put_off: Retryable | None = None
    try:
        sent.extend(load_outgoing.send_updates(wired.pipedrive, entity, to_send))
    except Retryable as unwell:
        put_off = unwell
    with transaction() as session:
        batches.hold(session, batch)
        _put_off_rest(session, batch, to_send[len(sent) :], put_off)
        _log(session, batch, decisions, sent)
        _keep_refused(session, batch, sent)
        changes.clear_changes(session, batch.id)
        live.go_on(session)
        _hand_to_read_back(session, batch, [each.answer for each in sent if each.answer is not None])
        batches.end(session, batch.id)


def _put_off_rest(session: Session, batch: ClaimedBatch, rest: list[Wanted], why: Retryable | None) -> None:
    """What could not be sent is tried again later; what was sent stays sent.

    The first of the rest is the one that was tried. An attempt counts for it alone, and the last one makes it a Failure, so
    that it does not hold up those behind it for ever.
    """
    if why is None or not rest:
        return
    change = next(each for each in changes.changes_of(session, batch.id) if each.record_id == rest[0].hull_id)
    counted = why.reason not in UNCOUNTED
    if counted and change.attempts >= MAX_ATTEMPTS:
        failures.keep_failures(session, [_failure(batch, change, why.reason, why.detail)])
        put_back, wait_s = rest[1:], 0.0
    else:
        put_back, wait_s = rest, why.retry_after_s if why.retry_after_s is not None else backoff_s(change.attempts)
    tried = [rest[0].hull_id] if counted else []
    changes.put_back(session, batch.id, [each.hull_id for each in put_back], wait_s, counted=tried)
    logger().warning("outgoing.job.retry", reason=why.reason, records=len(put_back), wait_s=round(wait_s, 1))


def _log(session: Session, batch: ClaimedBatch, decisions: list[dict[str, Any]], sent: list[Sent]) -> None:
    """One event and one line for each record: sent, left out, or refused."""
    entity = Entity(batch.entity)
    by_id = {each["hull_id"]: each for each in decisions}
    logged = [_event(batch, each, Outcome.SKIP, each["reason"]) for each in decisions if each["reason"] is not None]
    for each in sent:
        decision = by_id[each.wanted.hull_id]
        outcome = Outcome.ERROR if each.refused else Outcome.SUCCESS
        logged.append(_event(batch, decision, outcome, "refused_by_pipedrive" if each.refused else None))
    for decision in decisions:
        logged += [
            _event(batch, decision, Outcome.ERROR, problem["reason"], problem) for problem in decision["problems"]
        ]
    events.log_events(session, logged)
    for event in logged:
        say = (
            logger().warning if event.event == event_name(Direction.OUTGOING, entity, Outcome.ERROR) else logger().info
        )
        advice = describe(event.reason) if event.reason else None
        say(event.event, hull_id=event.hull_id, pipedrive_id=event.pipedrive_id, reason=event.reason, advice=advice)


def _event(
    batch: ClaimedBatch,
    decision: dict[str, Any],
    outcome: Outcome,
    reason: str | None,
    problem: dict[str, Any] | None = None,
) -> events.NewEvent:
    told = "fields" in decision and problem is None
    return events.NewEvent(
        connector_key=batch.connector_key,
        event=event_name(Direction.OUTGOING, Entity(batch.entity), outcome),
        entity=batch.entity,
        cause="notification",
        reason=reason,
        detail=f"{problem['field']}: {problem['detail']}" if problem else None,
        pipedrive_id=decision["pipedrive_id"],
        hull_id=decision["hull_id"],
        batch_id=batch.id,
        before=write_lenient(decision["before"]) if told else None,
        after=write_lenient(decision["fields"]) if told else None,
    )


def _keep_refused(session: Session, batch: ClaimedBatch, sent: list[Sent]) -> None:
    """A refused record is loss until somebody looks at it: kept whole, with Pipedrive's words."""
    mine = {change.record_id: change for change in changes.changes_of(session, batch.id)}
    failures.keep_failures(
        session,
        [
            _failure(batch, mine[each.wanted.hull_id], _reason_of(each.refused), each.refused.detail)
            for each in sent
            if each.refused is not None
        ],
    )


def _reason_of(refused: Rejected) -> str:
    return "gone" if refused.reason == "gone" else "refused_by_pipedrive"


def _failure(batch: ClaimedBatch, change: Change, reason: str, detail: str) -> failures.NewFailure:
    return failures.NewFailure(
        connector_key=batch.connector_key,
        kind="record",
        subject=failures.record_subject(Direction.OUTGOING, batch.entity, change.record_id),
        direction=Direction.OUTGOING,
        entity=batch.entity,
        record_id=change.record_id,
        batch_id=batch.id,
        stage="load",
        reason=reason,
        detail=detail,
        payload=change.payload,
        attempts=change.attempts,
    )


def _hand_to_read_back(session: Session, batch: ClaimedBatch, answers: list[dict[str, Any]]) -> None:
    """Pipedrive's answers become what the read-back batch has extracted: its transform and load are those of any page."""
    if batch.read_back_id is not None:
        batches.fill_read_back(session, batch.read_back_id, pack_page(write_lenient({"data": answers})), len(answers))
