"""One slice of Hull's last reports: what Pipedrive would receive of each User or Account under the settings of a plan.

The preview that uses the functions of an outgoing batch (`pipeline.sync.outgoing.preview`) decides about a report.
A plan additionally
knows the Accounts for which it creates or finds an Organization, and the first records of its earlier slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.orm import Session

from db import id_mapping
from db import plan as plans
from db.id_mapping import Known
from db.plan import NewItem
from db.snapshot import read_snapshots
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.lenient_json import read_lenient
from pipeline.domain.outgoing import MatchStatus, OutgoingWrite
from pipeline.errors import Rejected
from pipeline.jobs.plans.scope import PlanScope
from pipeline.sync.changes.hull_messages import HullMessage, read_message
from pipeline.sync.changes.linked_accounts import LINKED_USER, accounts_of
from pipeline.sync.outgoing.known_by import Pair
from pipeline.sync.outgoing.preview import ORGANIZATION, Effect, Preview, Reserved, outgoing_preview

Change = dict[str, Any]
Message = dict[str, Any]
Reports = Mapping[str, tuple[int, bytes]]
_LINKABLE: Final = (Effect.SAME, Effect.MATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
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


def look_at_reports(session: Session, scope: PlanScope, entity: Entity, reports: Reports) -> list[NewItem]:
    """Write an item for every report (Hull id → its version and the report as JSON), and return those that are new to the plan."""
    messages = {hull_id: read_lenient(body) for hull_id, (_, body) in reports.items()}
    accounts = _accounts_first(session, scope, messages) if entity is Entity.PERSON else []
    added = plans.add_items(session, scope.plan.id, accounts)
    versions = {hull_id: version for hull_id, (version, _) in reports.items()}
    return added + plans.add_items(session, scope.plan.id, _look(session, scope, entity, messages, versions))


def _look(
    session: Session, scope: PlanScope, entity: Entity, messages: Mapping[str, Message], reported: Mapping[str, int]
) -> list[NewItem]:
    where = (session, scope.plan.connector_key, entity)
    reserved = ReservedInPlan(session, scope.plan.id, entity)
    found = outgoing_preview(
        *where,
        scope.compiled(session, entity),
        messages,
        reserved=reserved,
        are_identifiers_new=scope.identifies_anew(entity),
    )
    reserved.keep()
    candidates = [each.decision.candidate for each in found.values()]
    ids = [each.pipedrive_id for each in candidates if each.pipedrive_id is not None]
    awaited = sorted({each.awaits for each in candidates if each.awaits})
    beside = Beside(
        organizations=plans.given_organizations(session, scope.plan.id, awaited),
        known=id_mapping.known(*where, ids) if ids else {},
        reported=reported,
    )
    return [_item(each, entity, beside) for each in found.values()]


def _item(preview: Preview, entity: Entity, beside: Beside) -> NewItem:
    effect, reason, detail = preview.effect, preview.reason, preview.detail
    changes = _changes(preview, beside)
    if effect in _LINKABLE and any(change["field"] == ORGANIZATION for change in changes):
        effect, reason, detail = Effect.LINK, "awaits_account", None
    candidate = preview.decision.candidate
    was = beside.known.get(candidate.pipedrive_id or 0) if candidate.standing is MatchStatus.KNOWN else None
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
        told=beside.reported.get(candidate.hull_id),
        fields=tuple(changes),
    )


def _changes(preview: Preview, beside: Beside) -> list[Change]:
    decision = preview.decision
    write, candidate = decision.write, decision.candidate
    if write is None or (preview.effect is Effect.FAIL and not decision.problems):
        return []
    changes = _written(write) if preview.effect not in (Effect.FAIL, Effect.UNKNOWN) else []
    organization = beside.organizations.get(candidate.awaits or "")
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
    items = _look(session, scope, Entity.ORGANIZATION, bodies, {}) if bodies else []
    return [replace(item, message=bodies[item.record_id]) for item in items]


def _as_messages(connector_key: int, messages: Mapping[str, Message]) -> Iterable[HullMessage]:
    for body in messages.values():
        try:
            yield read_message(connector_key, Entity.PERSON, body, cause=LINKED_USER, rank=0)
        except Rejected:
            continue
