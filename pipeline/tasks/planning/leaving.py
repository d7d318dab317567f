"""One slice of what Hull last reported: what Pipedrive would be sent of each User or Account under the settings of a plan.

Every report goes the way of an outgoing change: whom it is about, whether it is sent, what differs, in the very functions that
decide when it is really sent. Only what these would ask of Pipedrive is not asked, and said to be unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from db import id_mapping, mirror
from db import plan as plans
from db.id_mapping import Known
from db.plan import NewItem
from db.snapshot import read_snapshots
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.lenient_json import read_lenient
from pipeline.domain.outgoing import MIRROR_INCOMPLETE, Act, Candidate, Decision, OutgoingWrite, Standing
from pipeline.errors import Rejected
from pipeline.tasks.linked_accounts import LINKED_USER, accounts_of
from pipeline.tasks.messages import HullMessage, read_message
from pipeline.tasks.planning.scope import Scope
from pipeline.tasks.sending.candidates import gather
from pipeline.tasks.sending.decisions import decide

MIRROR_FRESH: Final = timedelta(hours=1)
"""A record that Pipedrive has had for longer is known; who is not known may only be younger, and is looked up before it is made."""
NO_SNAPSHOT: Final = "no_snapshot"
MIRROR_STALE: Final = "mirror_stale"
ORGANIZATION: Final = "org_id"

Change = dict[str, Any]
Message = dict[str, Any]
Reports = Mapping[str, tuple[int, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is known beside a decision.

    blind     why nobody can tell whether a record is there already; None where the mirror tells
    made      Accounts that the plan makes an Organization for
    reported  Hull id → the version of the report; absent for one that Hull has never reported by itself
    """

    blind: str | None
    made: frozenset[str]
    known: Mapping[int, Known]
    reported: Mapping[str, int]


def look_at_reports(session: Session, scope: Scope, entity: Entity, reports: Reports) -> list[NewItem]:
    """An item for every report (Hull id → its version and the report as JSON)."""
    messages = {hull_id: read_lenient(body) for hull_id, (_, body) in reports.items()}
    items = _accounts_first(session, scope, messages) if entity is Entity.PERSON else []
    plans.add_items(session, scope.plan.id, items)
    versions = {hull_id: version for hull_id, (version, _) in reports.items()}
    return items + _look(session, scope, entity, messages, versions)


def _look(
    session: Session, scope: Scope, entity: Entity, messages: Mapping[str, Message], reported: Mapping[str, int]
) -> list[NewItem]:
    where = (session, scope.plan.connector_key, entity)
    plan = scope.compiled(session, entity)
    gathered = gather(*where, plan, messages)
    unread = set(gathered.missing)
    candidates = gathered.candidates()
    ids = [found.pipedrive_id for found in gathered.found.values() if found.pipedrive_id is not None]
    awaited = sorted({each.awaits for each in candidates if each.awaits})
    beside = Beside(
        blind=_blind(*where),
        made=plans.created_among(session, scope.plan.id, Direction.OUTGOING, Entity.ORGANIZATION, awaited),
        known=id_mapping.known(*where, ids) if ids else {},
        reported=reported,
    )
    now_s = int(time.time())
    items = []
    for each in candidates:
        if each.pipedrive_id in unread:
            items.append(_new(each, entity, beside, act="unknown", reason=NO_SNAPSHOT))
        else:
            items.append(_item(decide(each, plan, entity, now_s=now_s), entity, beside))
    return items


def _blind(session: Session, connector_key: int, entity: Entity) -> str | None:
    index = mirror.freshness(session, connector_key, entity)
    if not index.is_complete:
        return MIRROR_INCOMPLETE
    return MIRROR_STALE if index.now - index.changed_since > MIRROR_FRESH else None


def _item(decision: Decision, entity: Entity, beside: Beside) -> NewItem:
    changes = _changes(decision, beside)
    act, reason, detail = _act(decision, changes, beside)
    return _new(decision.candidate, entity, beside, act=act, reason=reason, detail=detail, fields=tuple(changes))


def _act(decision: Decision, changes: Iterable[Change], beside: Beside) -> tuple[str, str | None, str | None]:
    """(what would become of it, why, the same in a sentence)."""
    if decision.act is Act.HOLD:
        return "error", decision.reason, decision.detail
    if decision.act is Act.WAIT:
        return "unknown", decision.reason, decision.detail
    if decision.act is Act.CREATE:
        return ("unknown", beside.blind, None) if beside.blind else ("create", decision.trigger, None)
    if decision.act is Act.UPDATE:
        return "update", decision.trigger, None
    if decision.write is None:
        return "skip", decision.reason, decision.detail
    return _unwritten(decision, changes)


def _unwritten(decision: Decision, changes: Iterable[Change]) -> tuple[str, str | None, str | None]:
    """Of one whose record agrees already, or cannot be made to."""
    problem = next(iter(decision.problems), None)
    if any(change["field"] == ORGANIZATION for change in changes):
        return "link", "awaits_account", None
    if decision.candidate.matched_by is not None:
        return "link", decision.candidate.matched_by, None
    if problem is not None:
        return "error", problem.reason, f"{problem.field}: {problem.detail}"
    return "same", decision.reason, None


def _changes(decision: Decision, beside: Beside) -> list[Change]:
    write, candidate = decision.write, decision.candidate
    if write is None:
        return []
    changes = _written(write)
    if candidate.awaits in beside.made and ORGANIZATION not in write.before:
        was = (candidate.snapshot or {}).get(ORGANIZATION)
        changes.append({"field": ORGANIZATION, "before": was, "after": f"the Organization made for {candidate.awaits}"})
    changes += [
        {"field": each.field, "before": None, "after": None, "problem": each.reason, "detail": each.detail}
        for each in (*decision.problems, *decision.left)
    ]
    return changes


def _written(write: OutgoingWrite) -> list[Change]:
    flat = {**write.fields, **write.fields.get("custom_fields", {})}
    return [{"field": key, "before": was, "after": flat[key]} for key, was in write.before.items()]


def _new(
    candidate: Candidate,
    entity: Entity,
    beside: Beside,
    *,
    act: str,
    reason: str | None = None,
    detail: str | None = None,
    fields: tuple[Change, ...] = (),
) -> NewItem:
    is_known = candidate.standing is Standing.KNOWN
    was = beside.known.get(candidate.pipedrive_id or 0) if is_known else None
    return NewItem(
        direction=Direction.OUTGOING,
        entity=entity,
        record_id=candidate.hull_id,
        pipedrive_id=candidate.pipedrive_id if was else None,
        act=act,
        reason=reason,
        detail=detail or None,
        version=was.version if was else None,
        digest=was.digest if was else None,
        told=beside.reported.get(candidate.hull_id),
        fields=fields,
    )


def _accounts_first(session: Session, scope: Scope, users: Mapping[str, Message]) -> list[NewItem]:
    """Accounts that only their Users speak of, and that these call for: they travel before them."""
    key = scope.plan.connector_key
    called = accounts_of(session, key, list(_as_messages(key, users)), scope.after)
    bodies = {each.hull_id: each.body for each in called}
    told = read_snapshots(session, key, Entity.ORGANIZATION, "hull", sorted(bodies)) if bodies else {}
    if Entity.ORGANIZATION in scope.sends:  # those were looked at by their own reports
        bodies = {hull_id: body for hull_id, body in bodies.items() if hull_id not in told}
    items = _look(session, scope, Entity.ORGANIZATION, bodies, {}) if bodies else []
    return [replace(item, message=bodies[item.record_id]) for item in items]


def _as_messages(connector_key: int, messages: Mapping[str, Message]) -> Iterable[HullMessage]:
    for body in messages.values():
        try:
            yield read_message(connector_key, Entity.PERSON, body, cause=LINKED_USER, rank=0)
        except Rejected:
            continue
