"""Preview the replay of one failed record: the kept record or report is decided again by today's settings, without a call.

An incoming record is compared with the id map; a report of Hull is decided as in transform, against the last reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy.orm import Session

from db import failure as failures
from db import id_mapping
from db.failure import Failure
from db.id_mapping import Known
from db.snapshot import read_snapshots, versions_of
from pipeline.domain.budget import LIST_TOKENS, WRITE_TOKENS
from pipeline.domain.deletions import DELETED_STATES
from pipeline.domain.fields import FieldDefinition
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Entity
from pipeline.domain.paging import MAX_IDS
from pipeline.domain.reasons import meaning_of
from pipeline.domain.records import Act, Candidate, Decision, FieldProblem, MatchStatus, OutgoingWrite
from pipeline.errors import Rejected
from pipeline.sync.compiled import Plan, plan_for
from pipeline.sync.incoming.preview import IncomingEffect, IncomingPreview, incoming_preview
from pipeline.sync.outgoing.preview import NO_SNAPSHOT, OutgoingEffect, OutgoingPreview, Reserved, outgoing_preview
from pipeline.transform.conflicts import is_stale
from pipeline.transform.hull_reports import hull_id_of

MEANINGS: Final[Mapping[str, str]] = {
    "changes": "would change",
    "creates": "would create",
    "looks_up": "would create or match",
    "matches": "would be matched",
    "runs": "would run again",
    "nothing": "already applied",
    "superseded": "superseded",
    "skipped": "would be left out",
    "fails_again": "would fail again",
    "refused": "cannot be replayed",
    "unknown": "unknown",
    "closed": "closed",
}


READ_TOKENS: Final = LIST_TOKENS / MAX_IDS
"""A list of up to a hundred ids takes 10."""
AS_IT_IS = "The record is read again from Pipedrive, so what it is by then counts."


Message = dict[str, Any]
UNCHANGED: Final = frozenset({"unchanged", "no_change", "no_relevant_change"})
"""Skip reasons that mean: it is already there."""
_ARTICLE: Final = {Entity.PERSON: "A", Entity.ORGANIZATION: "An"}
REFUSED_BEFORE: Final = "refused_by_pipedrive"


class ReplayEffect(StrEnum):
    """What a replay would come to."""

    CHANGES = "changes"
    """These fields would change."""
    CREATES = "creates"
    """A record would be made, unless the look-up before it finds one."""
    LOOKS_UP = "looks_up"
    """Pipedrive must be queried first: a record would be created, or matched with an existing one."""
    MATCHES = "matches"
    """It would be joined to a record that agrees with it already; nothing would be written."""
    RUNS = "runs"
    """A batch or a control task would run again; what its records come to is decided then."""
    NOTHING = "nothing"
    """Its content is already there."""
    SUPERSEDED = "superseded"
    """A newer state was synchronized, or is in flight."""
    SKIPPED = "skipped"
    """The settings leave the record where it is."""
    FAILS_AGAIN = "fails_again"
    """It would fail again, unless it is corrected first."""
    REFUSED = "refused"
    """It cannot be replayed as it is."""
    UNKNOWN = "unknown"
    """Stored data do not show it."""
    CLOSED = "closed"
    """It was closed."""

    @property
    def words(self) -> str:
        """Return its text."""
        return MEANINGS[self]

    @property
    def is_harmless(self) -> bool:
        """Whether nothing would be sent, so that a replay closes the failure instead."""
        return self in (ReplayEffect.NOTHING, ReplayEffect.SUPERSEDED, ReplayEffect.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field, by its code in Pipedrive or its attribute in Hull; the values are for the page alone. `name` is Pipedrive's."""

    field: str
    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPreview:
    """detail  the result in a sentence, without values of the record
    note    what may change the result
    reason  the code with which it would fail or be left out
    problems  fields that would be left out, each with its reason; the others are sent
    tokens  estimated cost of the replay in tokens of the daily budget
    """

    kind: ReplayEffect
    detail: str
    note: str = ""
    reason: str | None = None
    changes: tuple[FieldChange, ...] = ()
    problems: tuple[FieldProblem, ...] = ()
    tokens: float = 0.0

    @property
    def words(self) -> str:
        """Return the text of the kind."""
        return self.kind.words


def preview_incoming(
    session: Session, connector_key: int, entity: Entity, mine: Sequence[Failure]
) -> dict[int, ReplayPreview]:
    """Return failure → its preview, for records of one entity."""
    plan = plan_for(session, connector_key, entity)
    ids = [int(each.record_id) for each in mine if each.record_id is not None and each.record_id.isdigit()]
    known = id_mapping.known(session, connector_key, entity, ids)
    of_fields = [each.record_id for each in mine if each.kind == "field" and each.record_id is not None]
    kept = read_snapshots(session, connector_key, entity, "pipedrive", of_fields) if of_fields else {}
    return {each.id: _incoming(each, plan, known, kept) for each in mine}


def _incoming(failure: Failure, plan: Plan, known: Mapping[int, Known], kept: Mapping[str, bytes]) -> ReplayPreview:
    if failure.record_id is None or not failure.record_id.isdigit():
        return ReplayPreview(
            kind=ReplayEffect.REFUSED,
            detail="The record has no id: correct it in Pipedrive, and the next fetch brings it.",
        )
    now = known.get(int(failure.record_id))
    if now is not None and now.state in DELETED_STATES:
        detail = f"The record is {now.state} in Pipedrive since; a replay only asks for it once more."
        return ReplayPreview(kind=ReplayEffect.SUPERSEDED, detail=detail, tokens=READ_TOKENS)
    payload = kept.get(failure.record_id) if failure.kind == "field" else failures.payload_of(failure)
    if payload is None:
        return ReplayPreview(
            kind=ReplayEffect.UNKNOWN, detail="What came was not kept.", note=AS_IT_IS, tokens=READ_TOKENS
        )
    try:
        body = read_lenient(payload)
    except (ValueError, RecursionError):
        return _fails_again("not_a_record")
    return _preview_incoming(incoming_preview(body, plan, Entity(failure.entity), now), failure)


def _fails_again(reason: str) -> ReplayPreview:
    return _ask(
        ReplayEffect.FAILS_AGAIN,
        f"As it came it cannot be read: {meaning_of(reason)}",
        reason=reason,
        note="If it was corrected in Pipedrive since, it succeeds: it is read from there again.",
    )


def _ask(kind: ReplayEffect, detail: str, **more: Any) -> ReplayPreview:
    """Return the preview of a record that is read once more when it is replayed."""
    return ReplayPreview(kind=kind, detail=detail, tokens=READ_TOKENS, **more)


def _preview_incoming(preview: IncomingPreview, failure: Failure) -> ReplayPreview:
    if preview.effect is IncomingEffect.SKIP:
        return _ask(ReplayEffect.SKIPPED, meaning_of(preview.reason or ""), reason=preview.reason)
    if preview.effect is IncomingEffect.FAIL:
        return _fails_again(preview.reason or "")
    rejected = next((each for each in preview.problems if each.field == failure.field), None)
    if failure.kind == "field" and rejected is not None:  # whatever becomes of the record's other fields
        found = _ask(
            ReplayEffect.FAILS_AGAIN,
            f"{rejected.field}: {meaning_of(rejected.reason)}",
            reason=rejected.reason,
            note=AS_IT_IS,
        )
    else:
        found = _of_effect(preview)
    return replace(found, problems=preview.problems)


def _of_effect(preview: IncomingPreview) -> ReplayPreview:
    changes = tuple(
        FieldChange(field=each.name, name=each.name, before=each.before, after=each.after) for each in preview.changes
    )
    if preview.effect is IncomingEffect.CREATE:
        detail = "A User or an Account in Hull, unless Hull knows it by its claims."
        return _ask(ReplayEffect.CREATES, detail, note=AS_IT_IS, changes=changes)
    if preview.effect is IncomingEffect.OLDER:
        return _ask(ReplayEffect.SUPERSEDED, "A newer state of the record was delivered.")
    if preview.effect is IncomingEffect.SAME:
        return _ask(ReplayEffect.NOTHING, "Hull already has all of it.")
    detail = f"{len(changes)} attributes would change in Hull."
    if not changes:
        detail = "Its claims or its link would change in Hull."
    if preview.in_doubt:
        detail = "Hull receives the record once more: what it holds is uncertain."
    return _ask(ReplayEffect.CHANGES, detail, note=AS_IT_IS, changes=changes)


def preview_outgoing(
    session: Session,
    connector_key: int,
    entity: Entity,
    mine: Sequence[Failure],
    payloads: Mapping[int, bytes] | None = None,
) -> dict[int, ReplayPreview]:
    """Return failure → its preview, for records of one entity. `payloads`: failure → an edited payload to use instead."""
    plan = plan_for(session, connector_key, entity)
    ids = [each.record_id for each in mine if each.record_id]
    kept = read_snapshots(session, connector_key, entity, "hull", ids)
    sent_s = versions_of(session, connector_key, entity, "hull", ids)
    previews: dict[int, ReplayPreview] = {}
    messages: dict[str, Message] = {}
    asked: dict[str, Failure] = {}
    for failure in mine:
        given = (payloads or {}).get(failure.id) or failures.payload_of(failure) or kept.get(failure.record_id or "")
        message = read_report(given, entity)
        if message is None:
            previews[failure.id] = ReplayPreview(kind=ReplayEffect.UNKNOWN, detail="No report of the record is kept.")
        elif failure.record_id is None or hull_id_of(message[entity.hull]) != failure.record_id:
            previews[failure.id] = ReplayPreview(
                kind=ReplayEffect.REFUSED, detail="The payload is not a message about this record."
            )
        elif failure.record_id in asked:  # closed failures of the same record: each has its own preview
            previews |= preview_outgoing(session, connector_key, entity, [failure], payloads)
        else:
            messages[failure.record_id], asked[failure.record_id] = message, failure
    found = outgoing_preview(session, connector_key, entity, plan, messages, reserved=Reserved())
    for hull_id, failure in asked.items():
        is_corrected = failure.id in (payloads or {})
        is_older = not is_corrected and _is_older_report(
            failure, messages[hull_id], kept.get(hull_id), sent_s.get(hull_id, 0), entity
        )
        is_as_refused = not is_corrected and failure.settings_version == plan.settings_version
        preview = found[hull_id]
        decision = preview.decision
        outcome = _still_rejected(decision, failure) or _preview_outgoing(
            preview, plan, entity, failure, is_older=is_older, is_as_refused=is_as_refused
        )
        previews[failure.id] = replace(outcome, problems=(*decision.left, *decision.problems))
    return previews


def _is_older_report(failure: Failure, message: Message, kept: bytes | None, sent_s: int, entity: Entity) -> bool:
    """Return whether another report was sent after this failure first occurred.

    A later success has closed the failure; but one that is opened again, or was sent manually, ignoring all filters, would
    restore an old state.
    """
    other = read_report(kept, entity)
    is_later = sent_s > (failure.updated_at + timedelta(seconds=1)).timestamp()
    return is_later and other is not None and other[entity.hull] != message[entity.hull]


def _still_rejected(decision: Decision, failure: Failure) -> ReplayPreview | None:
    """Return whether the one rejected field would be rejected again, whatever happens to the others."""
    problem = next((each for each in decision.problems if each.field == failure.field), None)
    if failure.kind != "field" or problem is None:
        return None
    detail = f"{problem.field}: {meaning_of(problem.reason)}"
    return ReplayPreview(kind=ReplayEffect.FAILS_AGAIN, reason=problem.reason, detail=detail)


def _preview_outgoing(  # noqa: PLR0911 - one line for each effect
    preview: OutgoingPreview, plan: Plan, entity: Entity, failure: Failure, *, is_older: bool, is_as_refused: bool
) -> ReplayPreview:
    decision, effect, reason = preview.decision, preview.effect, preview.reason or ""
    if effect is OutgoingEffect.UNKNOWN and reason == NO_SNAPSHOT:
        return ReplayPreview(
            kind=ReplayEffect.UNKNOWN,
            detail="Its record in Pipedrive was never read; it is read first, and what differs is decided then.",
            tokens=WRITE_TOKENS + READ_TOKENS,
        )
    if effect is OutgoingEffect.UNKNOWN:
        return ReplayPreview(
            kind=ReplayEffect.UNKNOWN, reason=reason, detail=f"{meaning_of(reason)} {preview.detail or ''}".strip()
        )
    if effect is OutgoingEffect.FAIL and (decision.act is Act.HOLD or reason == "already_mapped"):
        detail = f"{meaning_of(reason)} {preview.detail or ''}".strip()
        return ReplayPreview(kind=ReplayEffect.FAILS_AGAIN, reason=reason, detail=detail)
    if effect in (OutgoingEffect.SAME, OutgoingEffect.SKIP, OutgoingEffect.FAIL):
        return _left(decision)
    candidate = decision.candidate
    if is_older or is_stale(candidate.message[entity.hull], candidate.memory):
        return ReplayPreview(kind=ReplayEffect.SUPERSEDED, detail="A newer report of the record has been sent since.")
    if effect is OutgoingEffect.MATCH:
        detail = f"It is joined to {entity.value.capitalize()} {candidate.pipedrive_id}, which agrees with it already."
        return ReplayPreview(kind=ReplayEffect.MATCHES, detail=detail)
    return _sent(preview, plan, entity, failure, is_as_refused=is_as_refused)


def _left(decision: Decision) -> ReplayPreview:
    reason = decision.reason or ""
    if reason in UNCHANGED:
        return ReplayPreview(kind=ReplayEffect.NOTHING, reason=reason, detail="Pipedrive holds all of it.")
    if reason == "older_report":
        return ReplayPreview(
            kind=ReplayEffect.SUPERSEDED,
            reason=reason,
            detail="A newer report of the record has been considered since.",
        )
    return ReplayPreview(kind=ReplayEffect.SKIPPED, reason=reason, detail=meaning_of(reason))


def _sent(
    preview: OutgoingPreview, plan: Plan, entity: Entity, failure: Failure, *, is_as_refused: bool
) -> ReplayPreview:
    decision = preview.decision
    changes = tuple(_changes(decision.write, plan)) if decision.write else ()
    if failure.reason == REFUSED_BEFORE and is_as_refused:
        return ReplayPreview(
            kind=ReplayEffect.FAILS_AGAIN,
            reason=REFUSED_BEFORE,
            detail="Pipedrive refused these values before; nothing of them has changed.",
            note="Correct the payload, or what Pipedrive's answer names, first.",
            changes=changes,
            tokens=WRITE_TOKENS,
        )
    note = "Pipedrive refused this before: look at its answer." if failure.reason == REFUSED_BEFORE else ""
    if preview.effect is OutgoingEffect.LOOK_UP:
        return ReplayPreview(
            kind=ReplayEffect.LOOKS_UP,
            reason=preview.reason,
            detail=f"Pipedrive is asked first: {_ARTICLE[entity].lower()} {entity.value.capitalize()} is created or matched.",
            note=note or _match_note(decision.candidate),
            changes=changes,
            tokens=WRITE_TOKENS + LIST_TOKENS,
        )
    if preview.effect is OutgoingEffect.CREATE:
        return ReplayPreview(
            kind=ReplayEffect.CREATES,
            detail=f"{_ARTICLE[entity]} {entity.value.capitalize()}, unless the look-up before it finds one.",
            note=note or _match_note(decision.candidate),
            changes=changes,
            tokens=WRITE_TOKENS + LIST_TOKENS,
        )
    plural = "field" if len(changes) == 1 else "fields"
    detail = f"{len(changes)} {plural} of {entity.value.capitalize()} {decision.candidate.pipedrive_id}."
    return ReplayPreview(kind=ReplayEffect.CHANGES, detail=detail, note=note, changes=changes, tokens=WRITE_TOKENS)


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


def _match_note(candidate: Candidate) -> str:
    if candidate.match_status is MatchStatus.DELETED:
        return "Its former record was deleted in Pipedrive."
    return ""


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
