"""Preview one slice of stored records under the settings of a plan: of Pipedrive's records, or of Hull's last reports.

The previews of `pipeline.sync` decide. A plan adds what only it knows: claims that change with its settings, Organizations that it
creates or finds for Accounts, and the first records of its earlier slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.orm import Session

from db import id_mapping, identifier
from db import plan as plans
from db.plan import NewItem
from db.snapshot import read_snapshots
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.records import MatchStatus
from pipeline.errors import Rejected
from pipeline.jobs.plans.create import PlanScope
from pipeline.sync.changes.outgoing_changes import LINKED_USER, HullMessage, accounts_of, read_message
from pipeline.sync.incoming.preview import IncomingEffect, IncomingPreview, incoming_preview
from pipeline.sync.outgoing.preview import ORGANIZATION, OutgoingEffect, OutgoingPreview, Reserved, outgoing_preview
from pipeline.sync.outgoing.resolve import Pair

NOT_READ: Final = "field_not_read"
ACCOUNT: Final = "account"
"""Name of a link among the fields of an item."""
CLAIM: Final = "claim {}"
SENT: Final = frozenset({IncomingEffect.CREATE, IncomingEffect.UPDATE, IncomingEffect.RESEND, IncomingEffect.LINK})

Change = dict[str, Any]
Message = dict[str, Any]
Reports = Mapping[str, tuple[int, bytes]]


class ReservedInPlan(Reserved):
    """The first records under each claim, those of the plan's earlier slices included."""

    def __init__(self, session: Session, plan_id: int, entity: Entity) -> None:
        super().__init__()
        self._where = (session, plan_id, entity)

    def look(self, pairs: Iterable[Pair]) -> None:
        self.by |= plans.reserved(*self._where, [pair for pair in pairs if pair not in self.by])

    def keep(self) -> None:
        """Store the reservations for the slices that follow."""
        plans.reserve(*self._where, self.news)


def preview_records(session: Session, scope: PlanScope, entity: Entity, bodies: Mapping[str, bytes]) -> list[NewItem]:
    """Return an item for every record (Pipedrive id → the record as JSON)."""
    plan = scope.compiled(session, entity)
    records = {int(record_id): read_lenient(body) for record_id, body in bodies.items()}
    known = id_mapping.known(session, scope.plan.connector_key, entity, list(records))
    previews = {
        record_id: incoming_preview(record, plan, entity, known.get(record_id), relink=scope.needs_relink)
        for record_id, record in records.items()
    }
    claims = _claim_changes(session, scope, entity, previews)
    items = []
    for record_id, preview in previews.items():
        # Pipedrive returns some fields on request only, and they were not requested when the record was read.
        unread = [key for key in plan.incoming.include_fields if key not in records[record_id]]
        act, reason, changes = _incoming(preview, claims.get(record_id, ()), unread, links=scope.needs_relink)
        was = known.get(record_id)
        items.append(
            NewItem(
                direction=Direction.INCOMING,
                entity=entity,
                record_id=str(record_id),
                pipedrive_id=record_id,
                act=act,
                reason=reason,
                detail=preview.detail,
                version=was.version if was else None,
                digest=was.digest if was else None,
                fields=tuple(changes),
            )
        )
    return items


def _claim_changes(
    session: Session, scope: PlanScope, entity: Entity, previews: Mapping[int, IncomingPreview]
) -> dict[int, list[Change]]:
    """Return Pipedrive id → changes of its claims; empty if the plan does not change what identifies a record."""
    if scope.before.claims(entity) == scope.after.claims(entity):
        return {}
    where = (session, scope.plan.connector_key, entity)
    sent = {record_id: each.record for record_id, each in previews.items() if each.record and each.effect in SENT}
    wanted = [(*claim, record_id) for record_id, record in sent.items() for claim in record.claims.items()]
    held = {(claim, pipedrive_id): value for claim, value, pipedrive_id in identifier.list_held(*where, list(sent))}
    fresh = [each for each in wanted if held.get((each[0], each[2])) != each[1]]
    others = identifier.find_other_holders(*where, fresh)
    found: dict[int, list[Change]] = {}
    for claim, value, pipedrive_id in fresh:
        change = {"field": CLAIM.format(claim), "before": held.get((claim, pipedrive_id)), "after": value}
        if (claim, pipedrive_id) in others:
            holder = others[claim, pipedrive_id]
            shared = holder == identifier.SHARED
            detail = f"several {entity.plural} have it" if shared else f"{entity} {holder} holds it"
            change |= {"problem": "shared_domain" if shared else "duplicate_claim", "detail": detail}
        found.setdefault(pipedrive_id, []).append(change)
    return found


def _incoming(
    preview: IncomingPreview, claims: Sequence[Change], unread: Sequence[str], *, links: bool
) -> tuple[str, str | None, list[Change]]:
    """Return (act, reason, changes) of one record."""
    if preview.effect not in SENT:
        return (str(preview.effect) if preview.reason else "same"), preview.reason, []
    changes = [{"field": each.name, "before": each.before, "after": each.after} for each in preview.changes]
    changes += claims
    problem = next((each["problem"] for each in changes if "problem" in each), None)
    has_new_value = any("problem" not in each for each in changes)
    organization_id = preview.record.organization_id if preview.record and links else None
    if organization_id is not None:
        changes.append({"field": ACCOUNT, "before": None, "after": f"Organization {organization_id}"})
    changes += [_problem(key, NOT_READ) for key in unread]
    for each in preview.problems:
        if each.reason != "field_missing" or each.field.split(".")[0] not in unread:
            changes.append(_problem(each.field, each.reason, detail=each.detail))
            problem = problem or each.reason
    if unread:
        return "unknown", NOT_READ, changes
    if preview.effect is IncomingEffect.CREATE:
        return "create", None, changes
    if has_new_value:
        return "update", problem, changes
    return ("resend" if organization_id is None else "link"), problem, changes


def _problem(field: str, reason: str, **more: str | None) -> Change:
    return {"field": field, "before": None, "after": None, "problem": reason, **more}


def preview_reports(session: Session, scope: PlanScope, entity: Entity, reports: Reports) -> list[NewItem]:
    """Write an item for every report (Hull id → its version and the report as JSON), and return those that are new to the plan."""
    messages = {hull_id: read_lenient(body) for hull_id, (_, body) in reports.items()}
    accounts = _accounts_first(session, scope, messages) if entity is Entity.PERSON else []
    added = plans.add_items(session, scope.plan.id, accounts)
    versions = {hull_id: version for hull_id, (version, _) in reports.items()}
    return added + plans.add_items(session, scope.plan.id, _outgoing_items(session, scope, entity, messages, versions))


def _accounts_first(session: Session, scope: PlanScope, users: Mapping[str, Message]) -> list[NewItem]:
    """Return the items of Accounts that are known only from messages of their Users, and are synchronized before them."""
    key = scope.plan.connector_key
    of_users: list[HullMessage] = []
    for body in users.values():
        with suppress(Rejected):
            of_users.append(read_message(key, Entity.PERSON, body, cause=LINKED_USER, rank=0))
    bodies = {each.hull_id: each.body for each in accounts_of(session, key, of_users, scope.after)}
    known = plans.items_among(session, scope.plan.id, Direction.OUTGOING, Entity.ORGANIZATION, sorted(bodies))
    reported = read_snapshots(session, key, Entity.ORGANIZATION, "hull", sorted(bodies)) if bodies else {}
    if Entity.ORGANIZATION not in scope.sends:  # otherwise they were previewed by their own reports
        reported = {}
    fresh = {hull_id: body for hull_id, body in bodies.items() if hull_id not in known and hull_id not in reported}
    items = _outgoing_items(session, scope, Entity.ORGANIZATION, fresh, {}) if fresh else []
    return [replace(item, message=fresh[item.record_id]) for item in items]


def _outgoing_items(
    session: Session, scope: PlanScope, entity: Entity, messages: Mapping[str, Message], reported: Mapping[str, int]
) -> list[NewItem]:
    """Return an item for every message. `reported`: Hull id → the version of the report, where Hull has sent one."""
    where = (session, scope.plan.connector_key, entity)
    reserved = ReservedInPlan(session, scope.plan.id, entity)
    previews = outgoing_preview(
        *where,
        scope.compiled(session, entity),
        messages,
        reserved=reserved,
        are_identifiers_new=scope.changes_identifiers(entity),
    ).values()
    reserved.keep()
    candidates = [each.decision.candidate for each in previews]
    ids = [each.pipedrive_id for each in candidates if each.pipedrive_id is not None]
    known = id_mapping.known(*where, ids) if ids else {}
    awaited = sorted({each.awaits for each in candidates if each.awaits})
    organizations = plans.given_organizations(session, scope.plan.id, awaited)
    items = []
    for preview, candidate in zip(previews, candidates, strict=True):
        changes = _outgoing_changes(preview, organizations.get(candidate.awaits or ""))
        effect, reason, detail = preview.effect, preview.reason, preview.detail
        is_linked = any(change["field"] == ORGANIZATION for change in changes)
        if is_linked and effect in (OutgoingEffect.SAME, OutgoingEffect.MATCH):
            effect, reason, detail = OutgoingEffect.LINK, "awaits_account", None
        was = known.get(candidate.pipedrive_id or 0) if candidate.match_status is MatchStatus.KNOWN else None
        items.append(
            NewItem(
                direction=Direction.OUTGOING,
                entity=entity,
                record_id=candidate.hull_id,
                pipedrive_id=candidate.pipedrive_id if was else None,
                act=effect,
                reason=reason,
                detail=detail,
                version=was.version if was else None,
                digest=was.digest if was else None,
                report_version=reported.get(candidate.hull_id),
                fields=tuple(changes),
            )
        )
    return items


def _outgoing_changes(preview: OutgoingPreview, organization: str | None) -> list[Change]:
    """Return the changes of one record; `organization` is the one that the plan creates or finds for its Account."""
    decision = preview.decision
    write, candidate = decision.write, decision.candidate
    if write is None or (preview.effect is OutgoingEffect.FAIL and not decision.problems):
        return []
    changes: list[Change] = []
    if preview.effect not in (OutgoingEffect.FAIL, OutgoingEffect.UNKNOWN):
        flat = {**write.fields, **write.fields.get("custom_fields", {})}
        changes += [{"field": key, "before": was, "after": flat[key]} for key, was in write.before.items()]
    if organization and ORGANIZATION not in write.before:
        was = (candidate.snapshot or {}).get(ORGANIZATION)
        changes.append({"field": ORGANIZATION, "before": was, "after": organization})
    problems = (*decision.problems, *decision.left)
    return changes + [_problem(each.field, each.reason, detail=each.detail) for each in problems]
