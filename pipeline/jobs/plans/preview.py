"""Preview one slice of stored records under the settings of a plan: of Pipedrive's records, or of Hull's last reports.

The previews of `pipeline.sync` decide, so a plan shows what the stages will do. A plan additionally knows the Accounts for which
it creates or finds an Organization, and the first records of its earlier slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.orm import Session

from db import id_mapping, identifier
from db import plan as plans
from db.id_mapping import Known
from db.plan import NewItem
from db.snapshot import read_snapshots
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.records import FieldProblem, MatchStatus, OutgoingWrite
from pipeline.errors import Rejected
from pipeline.jobs.plans.create import PlanScope
from pipeline.sync.changes.outgoing_changes import LINKED_USER, HullMessage, accounts_of, read_message
from pipeline.sync.incoming.preview import IncomingEffect, IncomingPreview, incoming_preview
from pipeline.sync.outgoing.preview import ORGANIZATION, OutgoingEffect, OutgoingPreview, Reserved, outgoing_preview
from pipeline.sync.outgoing.resolve import Pair

NOT_READ: Final = "field_not_read"
ACCOUNT: Final = "account"
"""What a link is called among the fields of an item."""
CLAIM: Final = "claim {}"
SENT: Final = frozenset({IncomingEffect.CREATE, IncomingEffect.UPDATE, IncomingEffect.RESEND, IncomingEffect.LINK})


Change = dict[str, Any]


Message = dict[str, Any]


Reports = Mapping[str, tuple[int, bytes]]
_LINKABLE: Final = (OutgoingEffect.SAME, OutgoingEffect.MATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContext:
    """Additional data of a decision.

    organizations  Accounts for which the plan creates or finds an Organization → its label
    reported       Hull id → the version of the report; absent if Hull has never sent one
    """

    organizations: Mapping[str, str]
    known: Mapping[int, Known]
    reported: Mapping[str, int]


class ReservedInPlan(Reserved):
    """Return the first records under each claim, from the plan's earlier slices."""

    def __init__(self, session: Session, plan_id: int, entity: Entity) -> None:
        super().__init__()
        self._where = (session, plan_id, entity)

    def look(self, pairs: Iterable[Pair]) -> None:
        self.by |= plans.reserved(*self._where, [pair for pair in pairs if pair not in self.by])

    def keep(self) -> None:
        """Write down what was reserved, for the slices that follow."""
        plans.reserve(*self._where, self.news)


def preview_records(session: Session, scope: PlanScope, entity: Entity, bodies: Mapping[str, bytes]) -> list[NewItem]:
    """An item for every record (Pipedrive id → the record as JSON)."""
    plan = scope.compiled(session, entity)
    records = {int(record_id): read_lenient(body) for record_id, body in bodies.items()}
    known = id_mapping.known(session, scope.plan.connector_key, entity, list(records))
    previews = {
        record_id: incoming_preview(record, plan, entity, known.get(record_id), relink=scope.needs_relink)
        for record_id, record in records.items()
    }
    said = _claims_said(session, scope, entity, previews)
    return [
        _incoming_item(
            entity,
            record_id,
            preview,
            known,
            claims_said=said.get(record_id, ()),
            not_read=_not_read(records[record_id], plan.incoming.include_fields),
            links=scope.needs_relink,
        )
        for record_id, preview in previews.items()
    ]


def _claims_said(
    session: Session, scope: PlanScope, entity: Entity, previews: Mapping[int, IncomingPreview]
) -> dict[int, list[Change]]:
    """Return Pipedrive id → new claims, and claims that another record holds, if the plan changes what identifies a record."""
    if scope.before.claims(entity) == scope.after.claims(entity):
        return {}
    where = (session, scope.plan.connector_key, entity)
    sent = {record_id: each.record for record_id, each in previews.items() if each.record and each.effect in SENT}
    wanted = [(*claim, record_id) for record_id, record in sent.items() for claim in record.claims.items()]
    held = {(claim, pipedrive_id): value for claim, value, pipedrive_id in identifier.list_held(*where, list(sent))}
    fresh = [each for each in wanted if held.get((each[0], each[2])) != each[1]]
    others = identifier.find_other_holders(*where, fresh)
    said: dict[int, list[Change]] = {}
    for claim, value, pipedrive_id in fresh:
        change = {"field": CLAIM.format(claim), "before": held.get((claim, pipedrive_id)), "after": value}
        if (claim, pipedrive_id) in others:
            holder = others[claim, pipedrive_id]
            shared = holder == identifier.NOBODY
            detail = f"several {entity.plural} give it" if shared else f"{entity} {holder} holds it"
            change |= {"problem": "shared_domain" if shared else "duplicate_claim", "detail": detail}
        said.setdefault(pipedrive_id, []).append(change)
    return said


def _incoming_item(
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
        return _record_item(entity, pipedrive_id, known, act=act, reason=preview.reason, detail=preview.detail)
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
    return _record_item(entity, pipedrive_id, known, act=act, reason=reason, fields=tuple(changes))


def _record_item(
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


def _is_of(problem: FieldProblem, unread: Sequence[str]) -> bool:
    return problem.reason == "field_missing" and problem.field.split(".")[0] in unread


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


def preview_reports(session: Session, scope: PlanScope, entity: Entity, reports: Reports) -> list[NewItem]:
    """Write an item for every report (Hull id → its version and the report as JSON), and return those that are new to the plan."""
    messages = {hull_id: read_lenient(body) for hull_id, (_, body) in reports.items()}
    accounts = _accounts_first(session, scope, messages) if entity is Entity.PERSON else []
    added = plans.add_items(session, scope.plan.id, accounts)
    versions = {hull_id: version for hull_id, (version, _) in reports.items()}
    return added + plans.add_items(session, scope.plan.id, _preview(session, scope, entity, messages, versions))


def _accounts_first(session: Session, scope: PlanScope, users: Mapping[str, Message]) -> list[NewItem]:
    """Accounts that only their Users speak of, and that these call for: they travel before them."""
    key = scope.plan.connector_key
    called = accounts_of(session, key, list(_as_messages(key, users)), scope.after)
    bodies = {each.hull_id: each.body for each in called}
    known = plans.items_among(session, scope.plan.id, Direction.OUTGOING, Entity.ORGANIZATION, sorted(bodies))
    reported = read_snapshots(session, key, Entity.ORGANIZATION, "hull", sorted(bodies)) if bodies else {}
    if Entity.ORGANIZATION not in scope.sends:  # otherwise they were previewed by their own reports
        reported = {}
    bodies = {hull_id: body for hull_id, body in bodies.items() if hull_id not in reported and hull_id not in known}
    items = _preview(session, scope, Entity.ORGANIZATION, bodies, {}) if bodies else []
    return [replace(item, message=bodies[item.record_id]) for item in items]


def _as_messages(connector_key: int, messages: Mapping[str, Message]) -> Iterable[HullMessage]:
    for body in messages.values():
        try:
            yield read_message(connector_key, Entity.PERSON, body, cause=LINKED_USER, rank=0)
        except Rejected:
            continue


def _preview(
    session: Session, scope: PlanScope, entity: Entity, messages: Mapping[str, Message], reported: Mapping[str, int]
) -> list[NewItem]:
    where = (session, scope.plan.connector_key, entity)
    reserved = ReservedInPlan(session, scope.plan.id, entity)
    found = outgoing_preview(
        *where,
        scope.compiled(session, entity),
        messages,
        reserved=reserved,
        are_identifiers_new=scope.changes_identifiers(entity),
    )
    reserved.keep()
    candidates = [each.decision.candidate for each in found.values()]
    ids = [each.pipedrive_id for each in candidates if each.pipedrive_id is not None]
    awaited = sorted({each.awaits for each in candidates if each.awaits})
    context = ReportContext(
        organizations=plans.given_organizations(session, scope.plan.id, awaited),
        known=id_mapping.known(*where, ids) if ids else {},
        reported=reported,
    )
    return [_outgoing_item(each, entity, context) for each in found.values()]


def _outgoing_item(preview: OutgoingPreview, entity: Entity, context: ReportContext) -> NewItem:
    effect, reason, detail = preview.effect, preview.reason, preview.detail
    changes = _outgoing_changes(preview, context)
    if effect in _LINKABLE and any(change["field"] == ORGANIZATION for change in changes):
        effect, reason, detail = OutgoingEffect.LINK, "awaits_account", None
    candidate = preview.decision.candidate
    was = context.known.get(candidate.pipedrive_id or 0) if candidate.match_status is MatchStatus.KNOWN else None
    return NewItem(
        direction=Direction.OUTGOING,
        entity=entity,
        record_id=candidate.hull_id,
        pipedrive_id=candidate.pipedrive_id if was else None,
        act=effect,
        reason=reason,
        detail=detail,
        version=was.version if was else None,
        digest=was.digest if was else None,
        report_version=context.reported.get(candidate.hull_id),
        fields=tuple(changes),
    )


def _outgoing_changes(preview: OutgoingPreview, context: ReportContext) -> list[Change]:
    decision = preview.decision
    write, candidate = decision.write, decision.candidate
    if write is None or (preview.effect is OutgoingEffect.FAIL and not decision.problems):
        return []
    changes = _written(write) if preview.effect not in (OutgoingEffect.FAIL, OutgoingEffect.UNKNOWN) else []
    organization = context.organizations.get(candidate.awaits or "")
    if organization and ORGANIZATION not in write.before:
        was = (candidate.snapshot or {}).get(ORGANIZATION)
        changes.append({"field": ORGANIZATION, "before": was, "after": organization})
    changes += [
        {"field": each.field, "before": None, "after": None, "problem": each.reason, "detail": each.detail}
        for each in (*decision.problems, *decision.left)
    ]
    return changes


def _written(write: OutgoingWrite) -> list[Change]:
    flat = {**write.fields, **write.fields.get("custom_fields", {})}
    return [{"field": key, "before": was, "after": flat[key]} for key, was in write.before.items()]
