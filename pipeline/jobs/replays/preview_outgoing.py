"""What an outgoing record that failed would come to: its report, decided about as transform does, against the last reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from db import failure as failures
from db.failure import Failure
from db.snapshot import read_snapshots, versions_of
from pipeline.domain.fields import FieldDefinition
from pipeline.domain.kinds import Entity
from pipeline.domain.lenient_json import read_lenient
from pipeline.domain.outgoing import Act, Candidate, Decision, MatchStatus, OutgoingWrite
from pipeline.domain.reasons import REASONS
from pipeline.errors import Rejected
from pipeline.jobs.replays.verdict import FieldChange, Kind, Verdict
from pipeline.sync.compiled import Plan, plan_for
from pipeline.sync.outgoing.preview import NO_SNAPSHOT, Effect, Preview, Reserved, outgoing_preview
from pipeline.transform.conflicts import is_overtaken
from pipeline.transform.hull_reports import hull_id_of

Message = dict[str, Any]

WRITE_TOKENS: Final = 5.0
LOOK_UP_TOKENS: Final = 10.0
UNCHANGED: Final = frozenset({"unchanged", "no_change", "no_relevant_change"})
"""Skip reasons that mean: it is already there."""
_ARTICLE: Final = {Entity.PERSON: "A", Entity.ORGANIZATION: "An"}
REFUSED_BEFORE: Final = "refused_by_pipedrive"


def foresee_outgoing(
    session: Session,
    connector_key: int,
    entity: Entity,
    mine: Sequence[Failure],
    payloads: Mapping[int, bytes] | None = None,
) -> dict[int, Verdict]:
    """Return failure → its preview, for records of one entity. `payloads`: failure → an edited payload to use instead."""
    plan = plan_for(session, connector_key, entity)
    ids = [each.record_id for each in mine if each.record_id]
    kept = read_snapshots(session, connector_key, entity, "hull", ids)
    sent_s = versions_of(session, connector_key, entity, "hull", ids)
    verdicts: dict[int, Verdict] = {}
    messages: dict[str, Message] = {}
    asked: dict[str, Failure] = {}
    for failure in mine:
        given = (payloads or {}).get(failure.id) or failures.payload_of(failure) or kept.get(failure.record_id or "")
        message = read_report(given, entity)
        if message is None:
            verdicts[failure.id] = Verdict(kind=Kind.UNKNOWN, detail="No report of the record is kept.")
        elif failure.record_id is None or hull_id_of(message[entity.hull]) != failure.record_id:
            verdicts[failure.id] = Verdict(kind=Kind.REFUSED, detail="The payload is not a message about this record.")
        elif failure.record_id in asked:  # closed failures of the same record: each has its own preview
            verdicts |= foresee_outgoing(session, connector_key, entity, [failure], payloads)
        else:
            messages[failure.record_id], asked[failure.record_id] = message, failure
    found = outgoing_preview(session, connector_key, entity, plan, messages, reserved=Reserved())
    for hull_id, failure in asked.items():
        is_corrected = failure.id in (payloads or {})
        is_older = not is_corrected and _was_overtaken(
            failure, messages[hull_id], kept.get(hull_id), sent_s.get(hull_id, 0), entity
        )
        is_as_refused = not is_corrected and failure.settings_version == plan.settings_version
        preview = found[hull_id]
        decision = preview.decision
        verdict = _still_rejected(decision, failure) or _verdict(
            preview, plan, entity, failure, is_older=is_older, is_as_refused=is_as_refused
        )
        verdicts[failure.id] = replace(verdict, problems=(*decision.left, *decision.problems))
    return verdicts


def read_report(payload: bytes | None, entity: Entity) -> Message | None:
    """Return the message in a payload, None if it is not one."""
    try:
        message = read_lenient(payload) if payload is not None else None
        if not isinstance(message, dict) or not isinstance(message.get(entity.hull), dict):
            return None
        hull_id_of(message[entity.hull])
    except (ValueError, RecursionError, Rejected):
        return None
    return message


def _was_overtaken(failure: Failure, message: Message, kept: bytes | None, sent_s: int, entity: Entity) -> bool:
    """Return whether another report was sent after this failure first occurred. A later success has closed it; but one
    that is opened
    again, or was sent manually, ignoring all filters, would restore an old state.
    """
    other = read_report(kept, entity)
    is_later = sent_s > (failure.updated_at + timedelta(seconds=1)).timestamp()
    return is_later and other is not None and other[entity.hull] != message[entity.hull]


def _unread() -> Verdict:
    return Verdict(
        kind=Kind.UNKNOWN,
        detail="Its record in Pipedrive was never read; it is read first, and what differs is decided then.",
        tokens=WRITE_TOKENS + 0.1,
    )


def _still_rejected(decision: Decision, failure: Failure) -> Verdict | None:
    """Return whether the one rejected field would be rejected again, whatever happens to the others."""
    problem = next((each for each in decision.problems if each.field == failure.field), None)
    if failure.kind != "field" or problem is None:
        return None
    detail = f"{problem.field}: {_meaning(problem.reason)}"
    return Verdict(kind=Kind.FAILS_AGAIN, reason=problem.reason, detail=detail)


def _verdict(  # noqa: PLR0911 - one line for each effect
    preview: Preview, plan: Plan, entity: Entity, failure: Failure, *, is_older: bool, is_as_refused: bool
) -> Verdict:
    decision, effect, reason = preview.decision, preview.effect, preview.reason or ""
    if effect is Effect.UNKNOWN and reason == NO_SNAPSHOT:
        return _unread()
    if effect is Effect.UNKNOWN:
        return Verdict(kind=Kind.UNKNOWN, reason=reason, detail=f"{_meaning(reason)} {preview.detail or ''}".strip())
    if effect is Effect.FAIL and (decision.act is Act.HOLD or reason == "already_joined"):
        detail = f"{_meaning(reason)} {preview.detail or ''}".strip()
        return Verdict(kind=Kind.FAILS_AGAIN, reason=reason, detail=detail)
    if effect in (Effect.SAME, Effect.SKIP, Effect.FAIL):
        return _left(decision)
    candidate = decision.candidate
    if is_older or is_overtaken(candidate.message[entity.hull], candidate.memory):
        return Verdict(kind=Kind.SUPERSEDED, detail="A newer report of the record has been sent since.")
    if effect is Effect.MATCH:
        detail = f"It is joined to {entity.value.capitalize()} {candidate.pipedrive_id}, which agrees with it already."
        return Verdict(kind=Kind.MATCHES, detail=detail)
    return _sent(preview, plan, entity, failure, is_as_refused=is_as_refused)


def _left(decision: Decision) -> Verdict:
    reason = decision.reason or ""
    if reason in UNCHANGED:
        return Verdict(kind=Kind.NOTHING, reason=reason, detail="Pipedrive holds all of it.")
    if reason == "older_report":
        return Verdict(
            kind=Kind.SUPERSEDED, reason=reason, detail="A newer report of the record has been considered since."
        )
    return Verdict(kind=Kind.SKIPPED, reason=reason, detail=_meaning(reason))


def _sent(preview: Preview, plan: Plan, entity: Entity, failure: Failure, *, is_as_refused: bool) -> Verdict:
    decision = preview.decision
    changes = tuple(_changes(decision.write, plan)) if decision.write else ()
    if failure.reason == REFUSED_BEFORE and is_as_refused:
        return Verdict(
            kind=Kind.FAILS_AGAIN,
            reason=REFUSED_BEFORE,
            detail="Pipedrive refused these values before; nothing of them has changed.",
            note="Correct the payload, or what Pipedrive's answer names, first.",
            changes=changes,
            tokens=WRITE_TOKENS,
        )
    note = "Pipedrive refused this before: look at its answer." if failure.reason == REFUSED_BEFORE else ""
    if preview.effect is Effect.LOOK_UP:
        return Verdict(
            kind=Kind.LOOKS_UP,
            reason=preview.reason,
            detail=f"Pipedrive is asked first: {_ARTICLE[entity].lower()} {entity.value.capitalize()} is created or matched.",
            note=note or _standing_note(decision.candidate),
            changes=changes,
            tokens=WRITE_TOKENS + LOOK_UP_TOKENS,
        )
    if preview.effect is Effect.CREATE:
        return Verdict(
            kind=Kind.CREATES,
            detail=f"{_ARTICLE[entity]} {entity.value.capitalize()}, unless the look-up before it finds one.",
            note=note or _standing_note(decision.candidate),
            changes=changes,
            tokens=WRITE_TOKENS + LOOK_UP_TOKENS,
        )
    plural = "field" if len(changes) == 1 else "fields"
    detail = f"{len(changes)} {plural} of {entity.value.capitalize()} {decision.candidate.pipedrive_id}."
    return Verdict(kind=Kind.CHANGES, detail=detail, note=note, changes=changes, tokens=WRITE_TOKENS)


def _standing_note(candidate: Candidate) -> str:
    if candidate.standing is MatchStatus.DEPARTED:
        return "Its former record was deleted in Pipedrive."
    return ""


def _changes(write: OutgoingWrite, plan: Plan) -> Iterator[FieldChange]:
    flat = {name: value for name, value in write.fields.items() if name != "custom_fields"}
    for name, value in (flat | write.fields.get("custom_fields", {})).items():
        field = plan.catalog.find(name)
        yield FieldChange(
            field=name,
            name=field.name if field is not None else name,
            before=_labelled(write.before.get(name), field),
            after=_labelled(value, field),
        )


def _labelled(value: Any, field: FieldDefinition | None) -> Any:
    """An option by its label, as people know it."""
    if field is None or not field.options:
        return value
    if isinstance(value, list):
        return [_labelled(each, field) for each in value]
    return field.options.get(value, value) if isinstance(value, int | str) else value


def _meaning(reason: str) -> str:
    return REASONS[reason].meaning if reason in REASONS else reason
