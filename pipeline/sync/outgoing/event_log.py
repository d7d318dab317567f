"""Events of an outgoing batch: one event and one log line for each effect; a repeated skip is only counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from db import failure as failures
from db import failure_closing
from db import sync_event as events
from db.batch import ClaimedBatch
from db.change import Change
from pipeline.clients.http_transport import Exchange
from pipeline.domain.json_text import write_lenient
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.domain.records import Act, Decision, FieldProblem
from pipeline.load.outgoing import Sent
from pipeline.sync.event_recorder import EventRecorder, say
from pipeline.telemetry import logger
from pipeline.transform.conflicts import unlike

FIRST = {"created": "created", "report": "matched: Hull names the record", "sync_key": "matched by its key"}
"""How a record was matched → the text in the event."""


HARMLESS = frozenset({"owned_by_pipedrive", "changed_in_pipedrive", "changed_by_pipedrive"})
"""Report a field that is correctly unchanged."""


class BatchRecorder:
    """Gathers what happened to the records of one batch, then writes it."""

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
        """Record that nothing had to be sent; reported if that, or a problem with its fields, is new."""
        self._skips[decision.hull_id] = decision
        if decision.write is not None:
            self._consider(decision, decision.problems)

    def failed(self, hull_id: str, reason: str, detail: str, exchange: Exchange | None = None) -> None:
        """Record a failure that only a person can resolve; the record is kept whole."""
        self._add(self._decisions[hull_id], Outcome.ERROR, reason=reason, detail=detail, exchange=exchange)
        change = self._changes.get(hull_id)
        if change is not None:
            kept = failure(self._batch, change, reason, detail, self._version)
            self._recorder.keep(replace(kept, exchange=json.loads(exchange.as_json()) if exchange else None))

    def sent(self, decision: Decision, sent: Sent) -> None:
        """Record a write that Pipedrive accepted."""
        self._sent.add(decision.hull_id)
        answer = sent.answer or {}
        pipedrive_id = answer.get("id") if isinstance(answer.get("id"), int) else None
        self._add(decision, Outcome.SUCCESS, detail=_how(decision), pipedrive_id=pipedrive_id, told=sent)
        self._problems(decision, (*decision.left, *decision.problems))
        self._consider(decision, decision.problems)
        for key in unlike(decision.write, answer) if decision.write else ():
            problem = FieldProblem(
                field=key, reason="changed_by_pipedrive", detail="it holds something else than was written"
            )
            self._problems(decision, (problem,))

    def waiting(self, decision: Decision, reason: str) -> None:
        """Record that the record is postponed."""
        self._counts[f"waiting_{reason}"] += 1
        name = event_name(Direction.OUTGOING, Entity(self._batch.entity), Outcome.PARK)
        say(name, reason, hull_id=decision.hull_id)

    def write(self, session: Session) -> None:
        """Store the events and write the log lines."""
        scope = (self._batch.connector_key, self._batch.entity)
        events.forget_skips(session, *scope, self._sent)
        news = events.note_skips(session, *scope, {each.hull_id: _gist(each) for each in self._skips.values()})
        for hull_id, decision in self._skips.items():
            if hull_id in news:
                self._add(decision, Outcome.SKIP, reason=decision.reason, detail=decision.detail)
                self._problems(decision, (*decision.left, *decision.problems))
            else:
                self._counts["skipped_again"] += 1
        if self._recorder.has_events:  # with the batch's first event: every record lacks these fields
            for problem in self._unusable:
                event = self._without_field(problem)
                self._recorder.add(event, detail=event.detail)
        for rejection in self._rejections():
            self._recorder.keep(rejection)
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
            logger().info("outgoing.job.progress", type=Entity(self._batch.entity).hull, **self._counts)

    def _consider(self, decision: Decision, problems: Iterable[FieldProblem]) -> None:
        self._considered.append(decision.hull_id)
        for problem in problems:
            if problem.reason not in HARMLESS:
                self._rejected[decision.hull_id, problem.field] = problem

    def _rejections(self) -> Iterator[failures.NewFailure]:
        """Rejected fields: replayed from the newest report, so they store no payload."""
        for (hull_id, field), problem in self._rejected.items():
            yield failures.NewFailure(
                connector_key=self._batch.connector_key,
                kind="field",
                subject=failures.field_subject(Direction.OUTGOING, self._batch.entity, hull_id, field),
                direction=Direction.OUTGOING,
                entity=self._batch.entity,
                record_id=hull_id,
                batch_id=self._batch.id,
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

    def _without_field(self, problem: FieldProblem) -> events.NewEvent:
        """A field that is mapped and cannot be written at all."""
        return events.NewEvent(
            connector_key=self._batch.connector_key,
            event=event_name(Direction.OUTGOING, Entity(self._batch.entity), Outcome.ERROR),
            entity=self._batch.entity,
            cause="settings",
            reason=problem.reason,
            detail=f"{problem.field}: {problem.detail}",
            field=problem.field,
            batch_id=self._batch.id,
            settings_version=self._version,
        )

    def _add(
        self,
        decision: Decision,
        outcome: Outcome,
        *,
        reason: str | None = None,
        detail: str | None = None,
        pipedrive_id: int | None = None,
        told: Sent | None = None,
        exchange: Exchange | None = None,
        field: str | None = None,
    ) -> None:
        write = decision.write if told else None
        call = told.exchange if told else exchange
        change = self._changes.get(decision.hull_id)
        event = events.NewEvent(
            connector_key=self._batch.connector_key,
            event=event_name(Direction.OUTGOING, Entity(self._batch.entity), outcome),
            entity=self._batch.entity,
            cause=change.cause if change else "notification",
            reason=reason,
            detail=detail or None,
            pipedrive_id=pipedrive_id or decision.candidate.pipedrive_id,
            hull_id=decision.hull_id,
            batch_id=self._batch.id,
            settings_version=self._version,
            before=write_lenient(write.before) if write else None,
            after=write_lenient(write.fields) if write else None,
            delivery_id=change.claimed_delivery_id if change else None,
            exchange=call.as_json() if call else None,
            field=field,
        )
        self._recorder.add(event, detail=event.detail)


def _gist(decision: Decision) -> str:
    """Return the content of a skip; an equal one is not reported again."""
    problems = sorted(f"{each.field}:{each.reason}" for each in (*decision.left, *decision.problems))
    return " ".join([decision.reason or "", *problems])


def _how(decision: Decision) -> str:
    """Return why it was sent, and how its record was found, for a newly matched record."""
    if decision.act is Act.CREATE:
        how = f"created; no record matches its {', '.join(claim for claim, _ in decision.claims) or 'name alone'}"
    else:
        by = decision.candidate.matched_by
        how = "" if by is None else FIRST.get(by, f"matched by {by}")
    return "; ".join(part for part in (decision.trigger, how) if part)


def failure(
    batch: ClaimedBatch, change: Change, reason: str, detail: str, settings_version: int
) -> failures.NewFailure:
    """A record that was not sent, kept whole."""
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
        settings_version=settings_version,
    )
