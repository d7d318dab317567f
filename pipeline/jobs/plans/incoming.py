"""One slice of the stored Pipedrive records: what Hull would receive under the settings of a plan.

The incoming preview says it, as in the backfill that would carry them over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy.orm import Session

from db import claim as claims
from db import id_mapping
from db.id_mapping import Known
from db.plan import NewItem
from pipeline.domain.incoming import FieldProblem
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.lenient_json import read_lenient
from pipeline.jobs.plans.scope import PlanScope
from pipeline.sync.incoming.preview import IncomingEffect, IncomingPreview, incoming_preview

NOT_READ: Final = "field_not_read"
ACCOUNT: Final = "account"
"""What a link is called among the fields of an item."""
CLAIM: Final = "claim {}"

SENT: Final = frozenset({IncomingEffect.CREATE, IncomingEffect.UPDATE, IncomingEffect.RESEND, IncomingEffect.LINK})

Change = dict[str, Any]


def look_at_records(session: Session, scope: PlanScope, entity: Entity, bodies: Mapping[str, bytes]) -> list[NewItem]:
    """An item for every record (Pipedrive id → the record as JSON)."""
    plan = scope.compiled(session, entity)
    records = {int(record_id): read_lenient(body) for record_id, body in bodies.items()}
    known = id_mapping.known(session, scope.plan.connector_key, entity, list(records))
    previews = {
        record_id: incoming_preview(record, plan, entity, known.get(record_id), relink=scope.links_anew)
        for record_id, record in records.items()
    }
    said = _claims_said(session, scope, entity, previews)
    return [
        _item(
            entity,
            record_id,
            preview,
            known,
            claims_said=said.get(record_id, ()),
            not_read=_not_read(records[record_id], plan.incoming.include_fields),
            links=scope.links_anew,
        )
        for record_id, preview in previews.items()
    ]


def _item(
    entity: Entity,
    pipedrive_id: int,
    preview: IncomingPreview,
    known: Mapping[int, Known],
    *,
    claims_said: Sequence[Change],
    not_read: Sequence[str],
    links: bool,
) -> NewItem:
    if preview.effect not in SENT:
        act = str(preview.effect) if preview.reason else "same"
        return _of_known(entity, pipedrive_id, known, act=act, reason=preview.reason, detail=preview.detail)
    changes = [{"field": each.name, "before": each.before, "after": each.after} for each in preview.changes]
    changes += claims_said
    organization_id = preview.record.organization_id if preview.record else None
    linked = links and organization_id is not None
    if linked:
        changes.append({"field": ACCOUNT, "before": None, "after": f"Organization {organization_id}"})
    changes += [{"field": key, "before": None, "after": None, "problem": NOT_READ} for key in not_read]
    changes += [
        {"field": each.field, "before": None, "after": None, "problem": each.reason, "detail": each.detail}
        for each in preview.problems
        if not _is_of(each, not_read)
    ]
    act, reason = _act(preview.effect, changes, linked=linked, unread=bool(not_read))
    return _of_known(entity, pipedrive_id, known, act=act, reason=reason, fields=tuple(changes))


def _act(effect: IncomingEffect, changes: Sequence[Change], *, linked: bool, unread: bool) -> tuple[str, str | None]:
    problem = next((each["problem"] for each in changes if "problem" in each), None)
    if unread:
        return "unknown", NOT_READ
    if effect is IncomingEffect.CREATE:
        return "create", None
    if any("problem" not in each and each["field"] != ACCOUNT for each in changes):
        return "update", problem
    return ("link" if linked else "resend"), problem


def _not_read(record: Mapping[str, Any], wanted: Sequence[str]) -> tuple[str, ...]:
    """Fields that Pipedrive returns on request only, and that were not requested when the record was read."""
    return tuple(key for key in wanted if key not in record)


def _is_of(problem: FieldProblem, unread: Sequence[str]) -> bool:
    return problem.reason == "field_missing" and problem.field.split(".")[0] in unread


def _claims_said(
    session: Session, scope: PlanScope, entity: Entity, previews: Mapping[int, IncomingPreview]
) -> dict[int, list[Change]]:
    """Pipedrive id → the claims under which Hull would know it anew, or cannot, where the plan changes what identifies."""
    if scope.before.claims(entity) == scope.after.claims(entity):
        return {}
    where = (session, scope.plan.connector_key, entity)
    sent = {record_id: each.record for record_id, each in previews.items() if each.record and each.effect in SENT}
    wanted = [(*claim, record_id) for record_id, record in sent.items() for claim in record.claims.items()]
    held = {(claim, pipedrive_id): value for claim, value, pipedrive_id in claims.claims_of(*where, list(sent))}
    fresh = [each for each in wanted if held.get((each[0], each[2])) != each[1]]
    others = claims.holders(*where, fresh)
    said: dict[int, list[Change]] = {}
    for claim, value, pipedrive_id in fresh:
        change = {"field": CLAIM.format(claim), "before": held.get((claim, pipedrive_id)), "after": value}
        if (claim, pipedrive_id) in others:
            holder = others[claim, pipedrive_id]
            shared = holder == claims.NOBODY
            detail = f"several {entity.plural} give it" if shared else f"{entity} {holder} holds it"
            change |= {"problem": "shared_domain" if shared else "duplicate_claim", "detail": detail}
        said.setdefault(pipedrive_id, []).append(change)
    return said


def _of_known(
    entity: Entity,
    pipedrive_id: int,
    known: Mapping[int, Known],
    *,
    act: str,
    reason: str | None = None,
    detail: str | None = None,
    fields: tuple[Change, ...] = (),
) -> NewItem:
    was = known.get(pipedrive_id)
    return NewItem(
        direction=Direction.INCOMING,
        entity=entity,
        record_id=str(pipedrive_id),
        pipedrive_id=pipedrive_id,
        act=act,
        reason=reason,
        detail=detail,
        version=was.version if was else None,
        digest=was.digest if was else None,
        fields=fields,
    )
