"""Load of an outgoing batch: look up before creating, write to Pipedrive, and store the outcomes in one transaction.

Pipedrive's answers are staged as the read-back batch. Records that could not be sent become changes again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import change_writer, failure_closing, id_mapping, id_mapping_writer, identifier, joining, snapshot
from db.batch import ClaimedBatch
from db.joining import Join
from db.session import transaction
from pipeline import wiring
from pipeline.domain.json_text import write_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.records import Act, Decision, FieldProblem, Memory
from pipeline.error_kinds import classify
from pipeline.load import outgoing as load_outgoing
from pipeline.load.outgoing import RecordWrite, Sent, WriteResults, answers
from pipeline.outages import current_work
from pipeline.settings import settings
from pipeline.sync import definitions
from pipeline.sync.changes import dispatch, outgoing_changes
from pipeline.sync.compiled import CompiledSettings, compiled_for
from pipeline.sync.outgoing import matching
from pipeline.sync.outgoing.event_log import BatchRecorder
from pipeline.sync.outgoing.matching import Postponement
from pipeline.sync.outgoing.requeue import Requeuer
from pipeline.sync.outgoing.transform import UPDATE_LOOP, decide, decisions_of
from pipeline.sync.outgoing.write_checks import decide_by_fresh_reads, leave_out_held_values
from pipeline.sync.stage import check_alone
from pipeline.sync.staging import pack_page
from pipeline.transform.conflicts import is_update_loop, remember, with_report
from pipeline.transform.hull_reports import REPORTED_VALUES
from pipeline.transform.identifiers import SYNC_KEY

WRITING_S = 150.0
"""How long after its begin a stage starts writes, so that the last ones are stored before the task's soft limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOutcome:
    """What load stores.

    unusable   mapped fields that cannot be written at all
    try_again  refused writes may succeed now, because the field definitions were outdated
    """

    decisions: Mapping[str, Decision]
    sending: WriteResults
    waiting: Mapping[str, Postponement]
    settings_version: int
    unusable: Sequence[FieldProblem]
    try_again: bool
    now_s: int


def load_batch(batch: ClaimedBatch) -> None:
    """Carry out the decisions of transform."""
    entity, ends_at = batch.entity, time.monotonic() + WRITING_S
    decisions = {each.hull_id: each for each in decisions_of(batch)}
    if (work := current_work()) is not None and any(_is_sent(each) for each in decisions.values()):
        work.enter("pipedrive")  # before any call: without a slot, the batch waits with its decisions
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
        plan = compiled_for(session, batch.connector_key, entity)
    now_s = int(time.time())
    decisions |= {
        each.hull_id: decide(each.candidate, plan, entity, now_s=now_s)
        for each in decisions.values()
        if _has_outdated_problem(each)  # another worker may have read newer definitions since
    }
    matched = matching.look_before_creating(batch, wired, plan, decisions.values(), now_s=now_s)
    decisions |= {each.hull_id: each for each in matched.decided}
    waiting = matching.wait_for_hull_outage(batch, matched.waiting | matching.unresolved_ones(decisions.values()))
    fresh_decisions = decide_by_fresh_reads(wired, plan, entity, decisions.values(), now_s=now_s)
    decisions |= {each.hull_id: each for each in fresh_decisions}
    not_waiting = [each for each in decisions.values() if each.hull_id not in waiting]
    mapped_by_others = matching.join_found(batch, plan, not_waiting, now_s=now_s)
    decisions |= {each.hull_id: each for each in mapped_by_others}
    reduced = leave_out_held_values(batch, plan, list(decisions.values()), matched.by_claim)
    decisions |= {each.hull_id: each for each in reduced}
    wanted = [_wanted(each) for each in decisions.values() if _is_sent(each) and each.hull_id not in waiting]
    sending = load_outgoing.send(
        wired.pipedrive,
        entity,
        wanted,
        at_once=settings().writes_at_once,
        check=lambda: _still_ours(batch),
        last_call=lambda: wired.calls.last_here,
        ends_at=ends_at,
    )
    if sending.stop is not None:
        check_alone(sending.stop, current_work())
    fresh = _of_newer_definitions(batch, plan, sending)
    unusable = (fresh or plan).outgoing.problems
    decisions |= {each.hull_id: each for each in _without_refused_fields(decisions, sending, plan, unusable)}
    sending.sent = [each for each in sending.sent if decisions[each.wanted.hull_id].act is not Act.SKIP]
    outcome = LoadOutcome(
        decisions=decisions,
        sending=sending,
        waiting=waiting,
        settings_version=plan.settings_version,
        unusable=unusable,
        try_again=fresh is not None,
        now_s=now_s,
    )
    with transaction() as session:
        problems = {each.hull_id: [one.reason for one in each.problems] for each in decisions.values()}
        outdated = definitions.find_outdated(session, batch, problems, plan.fields_read_at)
        batches.hold(session, batch)
        _store(session, batch, outcome)
        scope = (batch.connector_key, Direction.OUTGOING, batch.entity)
        change_writer.write_changes(session, *scope, outdated, cause=definitions.CAUSE, keeps_cause=True)


def _has_outdated_problem(decision: Decision) -> bool:
    """Return whether a field was rejected because a definition is missing."""
    return any(problem.reason in definitions.OUTDATED for problem in decision.problems)


def _of_newer_definitions(
    batch: ClaimedBatch, plan: CompiledSettings, sending: WriteResults
) -> CompiledSettings | None:
    """Return the plan of newer definitions under which refused writes may succeed; None without newer ones."""
    if all(each.refused is None and not each.left_out for each in sending.sent):
        return None
    fresh = definitions.compiled_for_unknown(batch, plan, [definitions.key_of("refused", batch.entity)])
    return fresh if fresh is not None and fresh.outgoing.problems != plan.outgoing.problems else None


def _without_refused_fields(
    decisions: Mapping[str, Decision], sending: WriteResults, plan: CompiledSettings, unusable: Sequence[FieldProblem]
) -> Iterator[Decision]:
    """Return the decisions without the fields that Pipedrive refused by name; these become problems.

    unusable  fields that the company no longer has: they are reported once for the batch
    """
    codes = {target.source.key: target.source.code for target in plan.outgoing.targets}
    codes |= {source.key: source.code for _, source in plan.outgoing.claims}
    gone = {problem.field for problem in unusable}
    for sent in sending.sent:
        decision = decisions[sent.wanted.hull_id]
        if not sent.left_out or decision.write is None:
            continue
        keys = {problem.field for problem in sent.left_out}
        refused = [replace(each, field=codes.get(each.field, each.field)) for each in sent.left_out]
        never_there = {each.field for each in refused}.difference(decision.candidate.memory.present or ())
        write = decision.write.without(keys)
        decision = replace(
            decision,
            write=replace(write, present=write.present - never_there),
            problems=(*decision.problems, *(each for each in refused if each.field not in gone)),
        )
        if sent.answer is None and sent.refused is None:
            first = refused[0]
            decision = replace(decision, act=Act.SKIP, reason=first.reason, detail=f"{first.field}: {first.detail}")
        yield decision


def _is_sent(decision: Decision) -> bool:
    return decision.act in (Act.UPDATE, Act.CREATE)


def _wanted(decision: Decision) -> RecordWrite:
    pipedrive_id = decision.candidate.pipedrive_id if decision.act is Act.UPDATE else None
    fields = decision.write.fields if decision.write else {}
    return RecordWrite(hull_id=decision.hull_id, pipedrive_id=pipedrive_id, fields=fields)


def _still_ours(batch: ClaimedBatch) -> None:
    """Raises: LostLease if another worker has the batch; Retryable if the database does not answer."""
    try:
        with transaction() as session:
            batches.hold(session, batch)
    except Exception as error:  # noqa: BLE001 - the outcomes so far must be stored
        raise classify(error) from None


def _store(session: Session, batch: ClaimedBatch, outcome: LoadOutcome) -> None:
    mine = {change.record_id: change for change in changes.changes_of(session, batch.id)}
    recorder = BatchRecorder(batch, mine, outcome.decisions, outcome.settings_version, outcome.unusable)
    done = [each for each in outcome.sending.sent if each.unsure is None]
    _join(session, batch, outcome, done, recorder)
    for each in outcome.decisions.values():
        if each.hull_id in outcome.waiting:
            recorder.waiting(each, outcome.waiting[each.hull_id].reason)
        elif each.act is Act.SKIP:
            recorder.skipped(each)
        elif each.act is Act.HOLD:
            recorder.failed(each.hull_id, each.reason or "", each.detail)
    for sent in done:
        if sent.answer is not None:
            decision = outcome.decisions[sent.wanted.hull_id]
            recorder.sent(decision, sent)
            if decision.update_loop:
                recorder.failed(decision.hull_id, UPDATE_LOOP, decision.update_loop)
    _store_memories(session, batch, outcome, done)
    requeuer = Requeuer(session, batch, mine, recorder)
    requeuer.postpone_waiting(outcome.waiting)
    requeuer.requeue_unsure(outcome.sending, refused_too=outcome.try_again)
    requeuer.requeue_rest(outcome.sending)
    recorder.write(session)
    change_writer.clear_changes(session, batch.id)
    failure_closing.close_emptied(session, batch.connector_key, batch.entity)
    dispatch.gather_after_commit(session)
    found = list(answers(outcome.sending))
    if batch.read_back_id is not None:
        batches.fill_read_back(session, batch.read_back_id, pack_page(write_lenient({"data": found})), len(found))
    batches.end(session, batch.id)


def _join(
    session: Session, batch: ClaimedBatch, outcome: LoadOutcome, done: Sequence[Sent], recorder: BatchRecorder
) -> None:
    """Map the created records, and cancel intents that created nothing. Matched records were mapped before."""
    scope = (batch.connector_key, batch.entity)
    created = {each.wanted.hull_id: _id_of(each) for each in done if each.wanted.pipedrive_id is None}
    joins = [
        Join(hull_id=hull_id, pipedrive_id=pipedrive_id, matched_by="created")
        for hull_id, pipedrive_id in created.items()
        if pipedrive_id is not None
    ]
    lost = joining.join(session, *scope, joins)
    for each in lost:
        recorder.failed(each.hull_id, "already_mapped", f"{batch.entity} {each.pipedrive_id} by {each.matched_by}")
    claims = [
        (name, value, each.pipedrive_id)
        for each in joins
        for name, value in outcome.decisions[each.hull_id].claims
        if name != SYNC_KEY
    ]
    identifier.take_values(session, *scope, claims)
    joining.cancel_intents(session, *scope, [each.wanted.hull_id for each in done if each.refused is not None])
    held = [each.hull_id for each in outcome.decisions.values() if each.act is Act.HOLD]
    joining.cancel_intents(session, *scope, held)
    unsure = [each.wanted.hull_id for each in outcome.sending.sent if each.unsure is not None]
    joining.mark_unknown(session, *scope, unsure)
    if batch.entity is Entity.ORGANIZATION:
        found = [each.hull_id for each in outcome.decisions.values() if matching.is_met(each)]
        outgoing_changes.send_waiting_users(session, batch.connector_key, [*(each.hull_id for each in joins), *found])


def _id_of(sent: Sent) -> int | None:
    found = (sent.answer or {}).get("id")
    return found if isinstance(found, int) else None


def _store_memories(session: Session, batch: ClaimedBatch, outcome: LoadOutcome, done: Sequence[Sent]) -> None:
    """Store the memories of the writes and the reports, and close the failures of the records that succeeded.

    Reports that were not sent are stored too: other settings may send them, and a plan must know them.
    """
    by_answer = {each.wanted.hull_id: each.answer for each in done if each.answer is not None}
    memories: dict[int, tuple[bytes, str | None]] = {}
    reports: dict[str, tuple[int, bytes]] = {}
    succeeded = set(by_answer)
    looping: dict[str, str] = {}
    for each in outcome.decisions.values():
        answer = by_answer.get(each.hull_id)
        record = answer if answer is not None else _unchanged(each)
        if record is None or each.write is None or not isinstance(record.get("id"), int):
            if each.act in (Act.SKIP, Act.HOLD) and each.reason != "older_report":
                reports[each.hull_id] = (outcome.now_s, write_lenient(_without_flags(each.candidate.message)))
            continue
        memory = remember(each.write, _earlier(each, batch.entity), record, outcome.now_s)
        memories[record["id"]] = (write_lenient(memory), each.candidate.awaits)
        succeeded.add(each.hull_id)
        reports[each.hull_id] = (outcome.now_s, write_lenient(_without_flags(each.candidate.message)))
        if is_update_loop(memory, outcome.now_s):  # the success of other fields does not close this failure
            looping[each.hull_id] = UPDATE_LOOP
    joining.remember(session, batch.connector_key, batch.entity, memories)
    held = {
        each.candidate.pipedrive_id: (each.candidate.delivered, each.held)
        for each in outcome.decisions.values()
        if each.held and each.candidate.pipedrive_id is not None and each.hull_id in by_answer
    }
    id_mapping_writer.note_held(session, batch.connector_key, batch.entity, held)
    snapshot.keep_reports(session, batch.connector_key, batch.entity, reports)
    _resend_overruled(session, batch, outcome)
    failure_closing.close_recovered(
        session, batch.connector_key, batch.direction, batch.entity, sorted(succeeded), unless=looping
    )


def _resend_overruled(session: Session, batch: ClaimedBatch, outcome: LoadOutcome) -> None:
    """Send Hull once more the values of the fields that Pipedrive owns; null for an empty field."""
    overruled = {
        each.candidate.pipedrive_id: write_lenient(dict(each.overruled))
        for each in outcome.decisions.values()
        if each.candidate.pipedrive_id is not None
        and any(problem.reason == "owned_by_pipedrive" for problem in each.left)
    }
    id_mapping_writer.mark_uncertain(
        session, batch.connector_key, batch.entity, overruled, digest=id_mapping.CONTRADICTED
    )
    scope = (batch.connector_key, Direction.INCOMING, batch.entity)
    change_writer.write_changes(session, *scope, map(str, overruled), cause="owned_by_pipedrive", keeps_cause=True)


def _unchanged(decision: Decision) -> dict[str, Any] | None:
    """Return the snapshot of a record that needs no write."""
    return decision.candidate.snapshot if decision.act is Act.SKIP and decision.write is not None else None


def _earlier(decision: Decision, entity: Entity) -> Memory:
    """Return the memory before this write, with what the report contains."""
    memory = decision.candidate.memory if decision.act is not Act.CREATE else Memory()
    return with_report(memory, decision.candidate.message[entity.hull], decision.reported)


def _without_flags(message: dict[str, Any]) -> dict[str, Any]:
    """Return the report to store: when it is resent later, it was not sent manually and has no changes."""
    left_out = ("is_export", "changes", "events", REPORTED_VALUES)
    return {name: value for name, value in message.items() if name not in left_out}
