"""What an incoming record that failed would come to: the record as it came, read by the settings of now, against the id map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.orm import Session

from db import failure as failures
from db import id_mapping
from db.failure import Failure
from db.id_mapping import CONTRADICTED, IN_DOUBT, Known
from db.snapshot import read_snapshots
from pipeline.domain.departures import DEPARTED
from pipeline.domain.incoming import IncomingRecord
from pipeline.domain.kinds import Entity
from pipeline.domain.lenient_json import read_lenient
from pipeline.domain.reasons import REASONS
from pipeline.errors import Rejected, Skip
from pipeline.jobs.replays.verdict import FieldChange, Kind, Verdict
from pipeline.sync.compiled import Plan, plan_for

READ_TOKENS: Final = 0.1
"""A list of up to a hundred ids takes 10."""
AS_IT_IS = "The record is read again from Pipedrive, so what it is by then counts."


def foresee_incoming(
    session: Session, connector_key: int, entity: Entity, mine: Sequence[Failure]
) -> dict[int, Verdict]:
    """Failure → its verdict, for records of one entity."""
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
        record = plan.incoming.read(read_lenient(payload))
    except Skip as skip:
        return Verdict(
            kind=Kind.SKIPPED, detail=_meaning(skip.reason), reason=skip.reason, note=AS_IT_IS, tokens=READ_TOKENS
        )
    except (Rejected, ValueError, RecursionError) as refused:
        return _in_vain(refused)
    return replace(_still_rejected(record, failure) or _compare(record, now), problems=record.problems)


def _still_rejected(record: IncomingRecord, failure: Failure) -> Verdict | None:
    """Whether the one field that was rejected would be rejected again, whatever becomes of the others."""
    problem = next((each for each in record.problems if each.field == failure.field), None)
    if failure.kind != "field" or problem is None:
        return None
    return Verdict(
        kind=Kind.FAILS_AGAIN,
        reason=problem.reason,
        detail=f"{problem.field}: {_meaning(problem.reason)}",
        note=AS_IT_IS,
        tokens=READ_TOKENS,
    )


def _in_vain(refused: Exception) -> Verdict:
    reason = refused.reason if isinstance(refused, Rejected) else "not_a_record"
    return Verdict(
        kind=Kind.FAILS_AGAIN,
        reason=reason,
        detail=f"As it came it cannot be read: {_meaning(reason)}",
        note="If it was corrected in Pipedrive meanwhile it comes through: it is read again from there.",
        tokens=READ_TOKENS,
    )


def _compare(record: IncomingRecord, now: Known | None) -> Verdict:
    if now is None or now.digest is None:
        changes = tuple(_change(name, None, value) for name, value in record.attributes.items() if value is not None)
        detail = "A User or an Account in Hull, unless Hull knows it by its claims."
        return Verdict(kind=Kind.CREATES, detail=detail, note=AS_IT_IS, changes=changes, tokens=READ_TOKENS)
    if now.version > record.version:
        detail = "A newer state of the record has been carried over since."
        return Verdict(kind=Kind.SUPERSEDED, detail=detail, tokens=READ_TOKENS)
    if now.digest == record.digest:
        return Verdict(kind=Kind.NOTHING, detail="Hull has been told all of it.", tokens=READ_TOKENS)
    before: dict[str, Any] = read_lenient(now.delivered) if now.delivered else {}
    changes = tuple(
        _change(name, before.get(name), value) for name, value in record.attributes.items() if before.get(name) != value
    )
    in_doubt = now.digest in (IN_DOUBT, CONTRADICTED)
    detail = (
        f"{len(changes)} attributes would change in Hull."
        if changes
        else "Its claims or its link would change in Hull."
    )
    if in_doubt:
        detail = "Hull is told the record once more: it is not known what it holds."
    return Verdict(kind=Kind.CHANGES, detail=detail, note=AS_IT_IS, changes=changes, tokens=READ_TOKENS)


def _of(attributes: int) -> str:
    if not attributes:
        return "Its claims or its link in Hull."
    return "1 attribute in Hull." if attributes == 1 else f"{attributes} attributes in Hull."


def _change(name: str, before: Any, after: Any) -> FieldChange:
    return FieldChange(field=name, name=name, before=before, after=after)


def _meaning(reason: str) -> str:
    return REASONS[reason].meaning if reason in REASONS else reason
