"""One slice of what is stored of Pipedrive's records: what Hull would be told of each under the settings of a plan.

Records are read by the transform, and decided about by the page plan of load, as in the backfill that would carry them over.
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
from pipeline.load import incoming as load_incoming
from pipeline.load.incoming import CHANGED, LINKED, NEW, FirehoseRecord, PagePlan
from pipeline.sync.incoming.transform import read_records
from pipeline.sync.staging import LeftOut, pack_transformed, unpack_transformed

NOT_READ: Final = "field_not_read"
ACCOUNT: Final = "account"
"""What a link is called among the fields of an item."""
CLAIM: Final = "claim {}"

Change = dict[str, Any]


def look_at_records(session: Session, scope: PlanScope, entity: Entity, bodies: Mapping[str, bytes]) -> list[NewItem]:
    """An item for every record (Pipedrive id → the record as JSON)."""
    plan = scope.compiled(session, entity)
    records = [read_lenient(body) for body in bodies.values()]
    done, troubles = read_records(records, plan)
    staged = unpack_transformed(pack_transformed(done, [], plan.settings_version)).records
    ids = [int(record_id) for record_id in bodies]
    known = id_mapping.known(session, scope.plan.connector_key, entity, ids)
    page = load_incoming.plan_page(entity, staged, known, resend=False, relink=scope.links_anew, shared=plan.shared)
    said = _claims_said(session, scope, entity, page)
    asked = {record["id"]: _not_read(record, plan.incoming.include_fields) for record in records if "id" in record}
    problems = {one.pipedrive_id: one.problems for one in done}
    items = [
        _item(entity, each, known, problems.get(each.record["pipedrive_id"], ()), said, asked, scope)
        for each in page.sendings
    ]
    items += [_trouble(entity, each, known) for each in troubles]
    seen = {item.record_id for item in items}
    return items + [_rest(entity, each, known) for each in ids if str(each) not in seen]


def _item(
    entity: Entity,
    sending: FirehoseRecord,
    known: Mapping[int, Known],
    problems: Sequence[FieldProblem],
    claims_said: Mapping[int, list[Change]],
    not_read: Mapping[int, tuple[str, ...]],
    scope: PlanScope,
) -> NewItem:
    record = sending.record
    pipedrive_id = record["pipedrive_id"]
    changes = [*_differences(sending), *claims_said.get(pipedrive_id, ())]
    linked = scope.links_anew and record["organization_id"] is not None
    if linked:
        changes.append({"field": ACCOUNT, "before": None, "after": f"Organization {record['organization_id']}"})
    unread = not_read.get(pipedrive_id, ())
    changes += [{"field": key, "before": None, "after": None, "problem": NOT_READ} for key in unread]
    faults = [problem for problem in problems if not _is_of(problem, unread)]
    changes += [
        {"field": each.field, "before": None, "after": None, "problem": each.reason, "detail": each.detail}
        for each in faults
    ]
    act, reason = _act(sending, changes, linked=linked, unread=bool(unread))
    return _of_known(entity, pipedrive_id, known, act=act, reason=reason, fields=tuple(changes))


def _act(sending: FirehoseRecord, changes: Sequence[Change], *, linked: bool, unread: bool) -> tuple[str, str | None]:
    problem = next((each["problem"] for each in changes if "problem" in each), None)
    if unread:
        return "unknown", NOT_READ
    if sending.effect == NEW:
        return "create", None
    if any("problem" not in each and each["field"] != ACCOUNT for each in changes):
        return "update", problem
    if linked:
        return "link", problem
    return ("resend" if sending.effect == CHANGED else "same"), problem


def _differences(sending: FirehoseRecord) -> list[Change]:
    """What Hull holds of ours, before and after."""
    if sending.effect == LINKED:
        return []
    old = dict(sending.before or {})
    new, names = load_incoming.held_after(sending.record["attributes"], old)
    return [{"field": name, "before": old.get(name), "after": new.get(name)} for name in names]


def _not_read(record: Mapping[str, Any], wanted: Sequence[str]) -> tuple[str, ...]:
    """Fields that Pipedrive gives on request only, and was not asked for when the record was read."""
    return tuple(key for key in wanted if key not in record)


def _is_of(problem: FieldProblem, unread: Sequence[str]) -> bool:
    return problem.reason == "field_missing" and problem.field.split(".")[0] in unread


def _claims_said(session: Session, scope: PlanScope, entity: Entity, page: PagePlan) -> dict[int, list[Change]]:
    """Pipedrive id → the claims under which Hull would know it anew, or cannot, where the plan changes what identifies."""
    if scope.before.claims(entity) == scope.after.claims(entity):
        return {}
    where = (session, scope.plan.connector_key, entity)
    ids = [sending.record["pipedrive_id"] for sending in page.sendings]
    held = {(claim, pipedrive_id): value for claim, value, pipedrive_id in claims.claims_of(*where, ids)}
    fresh = [each for each in page.wanted_claims if held.get((each[0], each[2])) != each[1]]
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


def _trouble(entity: Entity, trouble: LeftOut, known: Mapping[int, Known]) -> NewItem:
    act = "skip" if trouble.outcome == "skip" else "error"
    return _of_known(entity, trouble.pipedrive_id or 0, known, act=act, reason=trouble.reason, detail=trouble.detail)


def _rest(entity: Entity, pipedrive_id: int, known: Mapping[int, Known]) -> NewItem:
    """Hull holds already what it would be told."""
    return _of_known(entity, pipedrive_id, known, act="same")


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
