"""What an incoming record that failed would come to: the record as it came, read by the settings of now, against the id map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.orm import Session

from db import failure as failures
from db import id_mapping
from db.failure import Failure
from db.id_mapping import Known
from db.snapshot import read_snapshots
from pipeline.domain.departures import DEPARTED
from pipeline.domain.kinds import Entity
from pipeline.domain.lenient_json import read_lenient
from pipeline.domain.reasons import REASONS
from pipeline.jobs.replays.verdict import FieldChange, Kind, Verdict
from pipeline.sync.compiled import Plan, plan_for
from pipeline.sync.incoming.preview import IncomingEffect, IncomingPreview, incoming_preview

READ_TOKENS: Final = 0.1
"""A list of up to a hundred ids takes 10."""
AS_IT_IS = "The record is read again from Pipedrive, so what it is by then counts."


def foresee_incoming(
    session: Session, connector_key: int, entity: Entity, mine: Sequence[Failure]
) -> dict[int, Verdict]:
    """Return failure → its preview, for records of one entity."""
    plan = plan_for(session, connector_key, entity)
    ids = [int(each.record_id) for each in mine if each.record_id is not None and each.record_id.isdigit()]
    known = id_mapping.known(session, connector_key, entity, ids)
    of_fields = [each.record_id for each in mine if each.kind == "field" and each.record_id is not None]
    kept = read_snapshots(session, connector_key, entity, "pipedrive", of_fields) if of_fields else {}
    return {each.id: _foresee(each, plan, known, kept) for each in mine}


def _foresee(failure: Failure, plan: Plan, known: Mapping[int, Known], kept: Mapping[str, bytes]) -> Verdict:
    if failure.record_id is None or not failure.record_id.isdigit():
        return Verdict(
            kind=Kind.REFUSED, detail="The record has no id: correct it in Pipedrive, and the next fetch brings it."
        )
    now = known.get(int(failure.record_id))
    if now is not None and now.state in DEPARTED:
        detail = f"The record is {now.state} in Pipedrive since; a replay only asks for it once more."
        return Verdict(kind=Kind.SUPERSEDED, detail=detail, tokens=READ_TOKENS)
    payload = kept.get(failure.record_id) if failure.kind == "field" else failures.payload_of(failure)
    if payload is None:
        return Verdict(kind=Kind.UNKNOWN, detail="What came was not kept.", note=AS_IT_IS, tokens=READ_TOKENS)
    try:
        body = read_lenient(payload)
    except (ValueError, RecursionError):
        return _in_vain("not_a_record")
    return _verdict(incoming_preview(body, plan, Entity(failure.entity), now), failure)


def _verdict(preview: IncomingPreview, failure: Failure) -> Verdict:
    if preview.effect is IncomingEffect.SKIP:
        return _ask(Kind.SKIPPED, _meaning(preview.reason or ""), reason=preview.reason)
    if preview.effect is IncomingEffect.FAIL:
        return _in_vain(preview.reason or "")
    rejected = next((each for each in preview.problems if each.field == failure.field), None)
    if failure.kind == "field" and rejected is not None:  # whatever becomes of the record's other fields
        verdict = _ask(
            Kind.FAILS_AGAIN, f"{rejected.field}: {_meaning(rejected.reason)}", reason=rejected.reason, note=AS_IT_IS
        )
    else:
        verdict = _of_effect(preview)
    return replace(verdict, problems=preview.problems)


def _of_effect(preview: IncomingPreview) -> Verdict:
    changes = tuple(
        FieldChange(field=each.name, name=each.name, before=each.before, after=each.after) for each in preview.changes
    )
    if preview.effect is IncomingEffect.CREATE:
        detail = "A User or an Account in Hull, unless Hull knows it by its claims."
        return _ask(Kind.CREATES, detail, note=AS_IT_IS, changes=changes)
    if preview.effect is IncomingEffect.OLDER:
        return _ask(Kind.SUPERSEDED, "A newer state of the record was delivered.")
    if preview.effect is IncomingEffect.SAME:
        return _ask(Kind.NOTHING, "Hull already has all of it.")
    detail = f"{len(changes)} attributes would change in Hull."
    if not changes:
        detail = "Its claims or its link would change in Hull."
    if preview.in_doubt:
        detail = "Hull receives the record once more: what it holds is uncertain."
    return _ask(Kind.CHANGES, detail, note=AS_IT_IS, changes=changes)


def _in_vain(reason: str) -> Verdict:
    return _ask(
        Kind.FAILS_AGAIN,
        f"As it came it cannot be read: {_meaning(reason)}",
        reason=reason,
        note="If it was corrected in Pipedrive since, it succeeds: it is read from there again.",
    )


def _ask(kind: Kind, detail: str, **more: Any) -> Verdict:
    """A verdict; replaying it reads the record once more."""
    return Verdict(kind=kind, detail=detail, tokens=READ_TOKENS, **more)


def _meaning(reason: str) -> str:
    return REASONS[reason].meaning if reason in REASONS else reason
