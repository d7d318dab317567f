"""Preview the replay of failed records, by today's settings and from stored data, without a call.

An incoming record is compared with the id map; a report of Hull with Pipedrive's record as last read.
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
from pipeline.domain.records import Act, Decision, FieldProblem, MatchStatus, OutgoingWrite
from pipeline.errors import Rejected
from pipeline.sync.compiled import CompiledSettings, compiled_for
from pipeline.sync.incoming.preview import IncomingEffect, IncomingPreview, incoming_preview
from pipeline.sync.outgoing.preview import NO_SNAPSHOT, OutgoingEffect, OutgoingPreview, Reserved, outgoing_preview
from pipeline.transform.conflicts import is_stale
from pipeline.transform.hull_reports import hull_id_of

READ_TOKENS: Final = LIST_TOKENS / MAX_IDS
"""A list of up to a hundred ids takes 10."""
READ_AGAIN: Final = "The record is read again from Pipedrive, and its values at that time count."
UNCHANGED: Final = frozenset({"unchanged", "no_change", "no_relevant_change"})
"""Skip reasons of values that are there already."""
REFUSED_BEFORE: Final = "refused_by_pipedrive"
_ARTICLE: Final = {Entity.PERSON: "A", Entity.ORGANIZATION: "An"}
Message = dict[str, Any]


class ReplayEffect(StrEnum):
    """What a replay would do now. `words` is its text."""

    CHANGES = "changes"
    CREATES = "creates"
    LOOKS_UP = "looks_up"
    """Pipedrive must be queried first."""
    MATCHES = "matches"
    """Nothing would be written."""
    RUNS = "runs"
    """A batch or a control task: the result for its records is not known before."""
    NOTHING = "nothing"
    SUPERSEDED = "superseded"
    """A newer state was synchronized, or is in flight."""
    SKIPPED = "skipped"
    """The settings exclude the record."""
    FAILS_AGAIN = "fails_again"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The stored data do not show it."""
    CLOSED = "closed"

    @property
    def words(self) -> str:
        """Return its text."""
        return MEANINGS[self]

    @property
    def is_harmless(self) -> bool:
        """Return whether nothing would be sent, so that a replay closes the failure instead."""
        return self in (ReplayEffect.NOTHING, ReplayEffect.SUPERSEDED, ReplayEffect.SKIPPED)


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


@dataclass(frozen=True, slots=True)
class FieldChange:
    """The change of one field: its code in Pipedrive or its attribute in Hull, and its name in Pipedrive."""

    field: str
    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
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
    session: Session, connector_key: int, entity: Entity, failed: Sequence[Failure]
) -> dict[int, ReplayPreview]:
    """Return failure → its preview, for records of one entity. Every replay of them reads the record again."""
    plan = compiled_for(session, connector_key, entity)
    ids = [int(each.record_id) for each in failed if each.record_id is not None and each.record_id.isdigit()]
    known = id_mapping.known(session, connector_key, entity, ids)
    of_fields = [each.record_id for each in failed if each.kind == "field" and each.record_id is not None]
    kept = read_snapshots(session, connector_key, entity, "pipedrive", of_fields) if of_fields else {}
    return {each.id: _incoming(each, plan, known, kept) for each in failed}


def _incoming(
    failure: Failure, plan: CompiledSettings, known: Mapping[int, Known], kept: Mapping[str, bytes]
) -> ReplayPreview:
    if failure.record_id is None or not failure.record_id.isdigit():
        detail = "The record has no id: correct it in Pipedrive, and the next fetch brings it."
        return ReplayPreview(ReplayEffect.REFUSED, detail)
    now = known.get(int(failure.record_id))
    if now is not None and now.state in DELETED_STATES:
        detail = f"The record is {now.state} in Pipedrive now; a replay only reads it once more."
        return _read_again(ReplayEffect.SUPERSEDED, detail)
    payload = kept.get(failure.record_id) if failure.kind == "field" else failures.payload_of(failure)
    if payload is None:
        return _read_again(ReplayEffect.UNKNOWN, "The received record was not kept.", note=READ_AGAIN)
    try:
        body = read_lenient(payload)
    except (ValueError, RecursionError):
        return _unreadable("not_a_record")
    return _incoming_effect(incoming_preview(body, plan, Entity(failure.entity), now), failure)


def _incoming_effect(preview: IncomingPreview, failure: Failure) -> ReplayPreview:
    if preview.effect is IncomingEffect.SKIP:
        return _read_again(ReplayEffect.SKIPPED, meaning_of(preview.reason or ""), reason=preview.reason)
    if preview.effect is IncomingEffect.FAIL:
        return _unreadable(preview.reason or "")
    rejected = next((each for each in preview.problems if each.field == failure.field), None)
    if failure.kind == "field" and rejected is not None:  # the result for the record's other fields does not matter
        detail = f"{rejected.field}: {meaning_of(rejected.reason)}"
        found = _read_again(ReplayEffect.FAILS_AGAIN, detail, reason=rejected.reason, note=READ_AGAIN)
    else:
        found = _delivered(preview)
    return replace(found, problems=preview.problems)


def _unreadable(reason: str) -> ReplayPreview:
    return _read_again(
        ReplayEffect.FAILS_AGAIN,
        f"The received record cannot be read: {meaning_of(reason)}",
        reason=reason,
        note="If it was corrected in Pipedrive since, the replay succeeds, because it reads the record again.",
    )


def _read_again(kind: ReplayEffect, detail: str, **more: Any) -> ReplayPreview:
    return ReplayPreview(kind, detail, tokens=READ_TOKENS, **more)


def _delivered(preview: IncomingPreview) -> ReplayPreview:
    changes = tuple(FieldChange(each.name, each.name, each.before, each.after) for each in preview.changes)
    if preview.effect is IncomingEffect.CREATE:
        detail = "A User or an Account in Hull, unless Hull finds one by its claims."
        return _read_again(ReplayEffect.CREATES, detail, note=READ_AGAIN, changes=changes)
    if preview.effect is IncomingEffect.OLDER:
        return _read_again(ReplayEffect.SUPERSEDED, "A newer state of the record was delivered.")
    if preview.effect is IncomingEffect.SAME:
        return _read_again(ReplayEffect.NOTHING, "Hull already has all of its values.")
    detail = f"{len(changes)} attributes would change in Hull."
    if not changes:
        detail = "Its claims or its link would change in Hull."
    if preview.in_doubt:
        detail = "Hull receives the record once more, because it is uncertain what Hull has."
    return _read_again(ReplayEffect.CHANGES, detail, note=READ_AGAIN, changes=changes)


def preview_outgoing(
    session: Session,
    connector_key: int,
    entity: Entity,
    failed: Sequence[Failure],
    payloads: Mapping[int, bytes] | None = None,
) -> dict[int, ReplayPreview]:
    """Return failure → its preview, for records of one entity. `payloads`: failure → an edited payload to use instead."""
    plan = compiled_for(session, connector_key, entity)
    ids = [each.record_id for each in failed if each.record_id]
    kept = read_snapshots(session, connector_key, entity, "hull", ids)
    sent_s = versions_of(session, connector_key, entity, "hull", ids)
    previews: dict[int, ReplayPreview] = {}
    messages: dict[str, Message] = {}
    by_record: dict[str, Failure] = {}
    for failure in failed:
        given = (payloads or {}).get(failure.id) or failures.payload_of(failure) or kept.get(failure.record_id or "")
        message = read_report(given, entity)
        if message is None:
            previews[failure.id] = ReplayPreview(ReplayEffect.UNKNOWN, "No report of the record is kept.")
        elif failure.record_id is None or hull_id_of(message[entity.hull]) != failure.record_id:
            detail = "The payload is not a message about this record."
            previews[failure.id] = ReplayPreview(ReplayEffect.REFUSED, detail)
        elif failure.record_id in by_record:  # another failure of the same record has its own preview
            previews |= preview_outgoing(session, connector_key, entity, [failure], payloads)
        else:
            messages[failure.record_id], by_record[failure.record_id] = message, failure
    found = outgoing_preview(session, connector_key, entity, plan, messages, reserved=Reserved())
    for hull_id, failure in by_record.items():
        is_corrected = failure.id in (payloads or {})
        is_older = not is_corrected and _is_older_report(
            failure, messages[hull_id], kept.get(hull_id), sent_s.get(hull_id, 0), entity
        )
        is_as_refused = not is_corrected and failure.settings_version == plan.settings_version
        decision = found[hull_id].decision
        outcome = _still_rejected(decision, failure) or _outgoing(
            found[hull_id], plan, entity, failure, is_older=is_older, is_as_refused=is_as_refused
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
    """Return the preview of a rejected field that would be rejected again, whatever happens to the others."""
    problem = next((each for each in decision.problems if each.field == failure.field), None)
    if failure.kind != "field" or problem is None:
        return None
    return ReplayPreview(
        ReplayEffect.FAILS_AGAIN, f"{problem.field}: {meaning_of(problem.reason)}", reason=problem.reason
    )


def _outgoing(  # noqa: PLR0911 - one line for each effect
    preview: OutgoingPreview,
    plan: CompiledSettings,
    entity: Entity,
    failure: Failure,
    *,
    is_older: bool,
    is_as_refused: bool,
) -> ReplayPreview:
    decision, effect, reason = preview.decision, preview.effect, preview.reason or ""
    meaning = f"{meaning_of(reason)} {preview.detail or ''}".strip()
    if effect is OutgoingEffect.UNKNOWN and reason == NO_SNAPSHOT:
        detail = "Its record in Pipedrive was never read; it is read first, and what differs is decided then."
        return ReplayPreview(ReplayEffect.UNKNOWN, detail, tokens=WRITE_TOKENS + READ_TOKENS)
    if effect is OutgoingEffect.UNKNOWN:
        return ReplayPreview(ReplayEffect.UNKNOWN, meaning, reason=reason)
    if effect is OutgoingEffect.FAIL and (decision.act is Act.HOLD or reason == "already_mapped"):
        return ReplayPreview(ReplayEffect.FAILS_AGAIN, meaning, reason=reason)
    if effect in (OutgoingEffect.SAME, OutgoingEffect.SKIP, OutgoingEffect.FAIL):
        return _not_sent(decision.reason or "")
    candidate = decision.candidate
    if is_older or is_stale(candidate.message[entity.hull], candidate.memory):
        return ReplayPreview(ReplayEffect.SUPERSEDED, "A newer report of the record has been sent since.")
    if effect is OutgoingEffect.MATCH:
        detail = f"It is joined to {entity.value.capitalize()} {candidate.pipedrive_id}, which has the same values."
        return ReplayPreview(ReplayEffect.MATCHES, detail)
    return _sent(preview, plan, entity, failure, is_as_refused=is_as_refused)


def _not_sent(reason: str) -> ReplayPreview:
    if reason in UNCHANGED:
        return ReplayPreview(ReplayEffect.NOTHING, "Pipedrive already has all of its values.", reason=reason)
    if reason == "older_report":
        detail = "A newer report of the record has been processed since."
        return ReplayPreview(ReplayEffect.SUPERSEDED, detail, reason=reason)
    return ReplayPreview(ReplayEffect.SKIPPED, meaning_of(reason), reason=reason)


def _sent(
    preview: OutgoingPreview, plan: CompiledSettings, entity: Entity, failure: Failure, *, is_as_refused: bool
) -> ReplayPreview:
    decision, name = preview.decision, entity.value.capitalize()
    changes = tuple(_changes(decision.write, plan)) if decision.write else ()
    was_refused = failure.reason == REFUSED_BEFORE
    if was_refused and is_as_refused:
        return ReplayPreview(
            ReplayEffect.FAILS_AGAIN,
            "Pipedrive refused these values before; none of them has changed.",
            note="Correct the payload, or what Pipedrive's answer names, first.",
            reason=REFUSED_BEFORE,
            changes=changes,
            tokens=WRITE_TOKENS,
        )
    note = "Pipedrive refused this before: look at its answer." if was_refused else ""
    if preview.effect not in (OutgoingEffect.LOOK_UP, OutgoingEffect.CREATE):
        plural = "field" if len(changes) == 1 else "fields"
        detail = f"{len(changes)} {plural} of {name} {decision.candidate.pipedrive_id}."
        return ReplayPreview(ReplayEffect.CHANGES, detail, note=note, changes=changes, tokens=WRITE_TOKENS)
    if not note and decision.candidate.match_status is MatchStatus.DELETED:
        note = "Its former record was deleted in Pipedrive."
    kind, reason = ReplayEffect.CREATES, None
    detail = f"{_ARTICLE[entity]} {name}, unless the look-up before it finds one."
    if preview.effect is OutgoingEffect.LOOK_UP:
        kind, reason = ReplayEffect.LOOKS_UP, preview.reason
        detail = f"Pipedrive is queried first: {_ARTICLE[entity].lower()} {name} is created or matched."
    return ReplayPreview(kind, detail, note=note, reason=reason, changes=changes, tokens=WRITE_TOKENS + LIST_TOKENS)


def _changes(write: OutgoingWrite, plan: CompiledSettings) -> Iterator[FieldChange]:
    flat = {name: value for name, value in write.fields.items() if name != "custom_fields"}
    for code, value in (flat | write.fields.get("custom_fields", {})).items():
        field = plan.catalog.find(code)
        before = _labelled(write.before.get(code), field)
        yield FieldChange(code, field.name if field is not None else code, before, _labelled(value, field))


def _labelled(value: Any, field: FieldDefinition | None) -> Any:
    """Replace the ids of options by their labels."""
    if field is None or not field.options:
        return value
    if isinstance(value, list):
        return [_labelled(each, field) for each in value]
    return field.options.get(value, value) if isinstance(value, int | str) else value


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
