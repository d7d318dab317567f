"""Events of an outgoing batch: one event and one log line for each effect; a repeated skip is only counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from db import failure as failures
from db import failure_closing
from db import sync_event as events
from db.batch import ClaimedBatch
from db.change import Change
from pipeline.clients.http_transport import Exchange
from pipeline.domain.json_text import write_lenient
from pipeline.domain.kinds import Direction, Outcome, event_name
from pipeline.domain.records import Act, Decision, FieldProblem
from pipeline.load.outgoing import Sent
from pipeline.sync.event_recorder import EventRecorder, batch_event, batch_failure, log_line
from pipeline.telemetry import logger
from pipeline.transform.conflicts import unlike

FIRST = {"created": "created", "report": "matched: Hull names the record", "sync_key": "matched by its key"}
"""How a record was matched → the text in the event."""


HARMLESS = frozenset({"owned_by_pipedrive", "changed_in_pipedrive", "changed_by_pipedrive"})
"""Reasons of fields that were correctly left unchanged."""


class BatchRecorder:
    """Collects what happened to the records of one batch, then writes it."""

    def __init__(
        self,
        batch: ClaimedBatch,
        changes: Mapping[str, Change],
        decisions: Mapping[str, Decision],
        settings_version: int,
        unusable: Sequence[FieldProblem] = (),
    ) -> None:
        self._batch = batch
        self._unusable = unusable
        self._decisions = decisions
        self._changes = changes
        self._version = settings_version
        self._recorder = EventRecorder()
        self._rejected: dict[tuple[str, str], FieldProblem] = {}
        """(Hull id, field) → why the field was left out."""
        self._considered: list[str] = []
        """Hull ids of records with a decision about every field."""
        self._skips: dict[str, Decision] = {}
        self._sent: set[str] = set()
        self._counts: Counter[str] = Counter()

    def skipped(self, decision: Decision) -> None:
        """Record a skip. It becomes an event only if the skip, or a problem with its fields, is new."""
        self._skips[decision.hull_id] = decision
        if decision.write is not None:
            self._consider(decision, decision.problems)

    def failed(self, hull_id: str, reason: str, detail: str, exchange: Exchange | None = None) -> None:
        """Record a failure that only a person can resolve, with the whole record."""
        self._add(self._decisions[hull_id], Outcome.ERROR, reason=reason, detail=detail, exchange=exchange)
        change = self._changes.get(hull_id)
        if change is not None:
            stored = failure(self._batch, change, reason, detail, self._version)
            self._recorder.add_failure(replace(stored, exchange=json.loads(exchange.as_json()) if exchange else None))

    def sent(self, decision: Decision, sent: Sent) -> None:
        """Record a write that Pipedrive accepted."""
        self._sent.add(decision.hull_id)
        answer = sent.answer or {}
        pipedrive_id = answer.get("id") if isinstance(answer.get("id"), int) else None
        self._add(decision, Outcome.SUCCESS, detail=_how(decision), pipedrive_id=pipedrive_id, sent=sent)
        self._problems(decision, (*decision.left, *decision.problems))
        self._consider(decision, decision.problems)
        for key in unlike(decision.write, answer) if decision.write else ():
            problem = FieldProblem(
                field=key, reason="changed_by_pipedrive", detail="its value differs from what was written"
            )
            self._problems(decision, (problem,))

    def waiting(self, decision: Decision, reason: str) -> None:
        """Log that the record is postponed."""
        self._counts[f"waiting_{reason}"] += 1
        name = event_name(Direction.OUTGOING, self._batch.entity, Outcome.PARK)
        log_line(name, reason, hull_id=decision.hull_id)

    def write(self, session: Session) -> None:
        """Store the events and write the log lines."""
        scope = (self._batch.connector_key, self._batch.entity)
        events.forget_skips(session, *scope, self._sent)
        fresh = events.note_skips(session, *scope, {each.hull_id: _skip_key(each) for each in self._skips.values()})
        for hull_id, decision in self._skips.items():
            if hull_id in fresh:
                self._add(decision, Outcome.SKIP, reason=decision.reason, detail=decision.detail)
                self._problems(decision, (*decision.left, *decision.problems))
            else:
                self._counts["skipped_again"] += 1
        if self._recorder.has_events:  # with the batch's first event: every record lacks these fields
            for problem in self._unusable:
                event = batch_event(
                    self._batch,
                    Outcome.ERROR,
                    cause="settings",
                    reason=problem.reason,
                    detail=f"{problem.field}: {problem.detail}",
                    field=problem.field,
                    settings_version=self._version,
                )
                self._recorder.add(event, detail=event.detail)
        for (hull_id, field), problem in self._rejected.items():
            self._recorder.add_failure(self._field_failure(hull_id, field, problem))
        self._recorder.write(session)
        failure_closing.close_fields(
            session,
            self._batch.connector_key,
            Direction.OUTGOING,
            self._batch.entity,
            self._considered,
            refused=list(self._rejected),
        )
        if self._counts:
            logger().info("outgoing.job.progress", type=self._batch.entity.hull, **self._counts)

    def _consider(self, decision: Decision, problems: Iterable[FieldProblem]) -> None:
        self._considered.append(decision.hull_id)
        for problem in problems:
            if problem.reason not in HARMLESS:
                self._rejected[decision.hull_id, problem.field] = problem

    def _field_failure(self, hull_id: str, field: str, problem: FieldProblem) -> failures.NewFailure:
        """Return the failure of a rejected field: without a payload, because it is replayed from the newest report."""
        return batch_failure(
            self._batch,
            "field",
            failures.field_subject(Direction.OUTGOING, self._batch.entity, hull_id, field),
            record_id=hull_id,
            stage="transform",
            reason=problem.reason,
            detail=problem.detail,
            field=field,
            settings_version=self._version,
        )

    def _problems(self, decision: Decision, problems: Iterable[FieldProblem]) -> None:
        for problem in problems:
            outcome = Outcome.SKIP if problem.reason in HARMLESS else Outcome.ERROR
            detail = f"{problem.field}: {problem.detail}"
            self._add(decision, outcome, reason=problem.reason, detail=detail, field=problem.field)

    def _add(
        self,
        decision: Decision,
        outcome: Outcome,
        *,
        reason: str | None = None,
        detail: str | None = None,
        pipedrive_id: int | None = None,
        sent: Sent | None = None,
        exchange: Exchange | None = None,
        field: str | None = None,
    ) -> None:
        write = decision.write if sent else None
        call = sent.exchange if sent else exchange
        change = self._changes.get(decision.hull_id)
        event = batch_event(
            self._batch,
            outcome,
            cause=change.cause if change else "notification",
            reason=reason,
            detail=detail or None,
            pipedrive_id=pipedrive_id or decision.candidate.pipedrive_id,
            hull_id=decision.hull_id,
            settings_version=self._version,
            before=write_lenient(write.before) if write else None,
            after=write_lenient(write.fields) if write else None,
            delivery_id=change.claimed_delivery_id if change else None,
            exchange=call.as_json() if call else None,
            field=field,
        )
        self._recorder.add(event, detail=event.detail)


def _skip_key(decision: Decision) -> str:
    """Return the content of a skip: an equal one is not recorded again."""
    problems = sorted(f"{each.field}:{each.reason}" for each in (*decision.left, *decision.problems))
    return " ".join([decision.reason or "", *problems])


def _how(decision: Decision) -> str:
    """Return why the record was sent, and how it was found if it is newly matched."""
    if decision.act is Act.CREATE:
        how = f"created; no record matches its {', '.join(claim for claim, _ in decision.claims) or 'name alone'}"
    else:
        by = decision.candidate.matched_by
        how = "" if by is None else FIRST.get(by, f"matched by {by}")
    return "; ".join(part for part in (decision.trigger, how) if part)


def failure(
    batch: ClaimedBatch, change: Change, reason: str, detail: str, settings_version: int
) -> failures.NewFailure:
    """Return the failure of a record that was not sent, with its payload."""
    return batch_failure(
        batch,
        "record",
        failures.record_subject(Direction.OUTGOING, batch.entity, change.record_id),
        record_id=change.record_id,
        stage="load",
        reason=reason,
        detail=detail,
        payload=change.payload,
        attempts=change.attempts,
        settings_version=settings_version,
    )
