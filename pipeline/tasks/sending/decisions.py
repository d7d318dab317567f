"""Transform of an outgoing batch: what becomes of each record, and the write that would make Pipedrive agree with it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Final

from db import batch as batches
from db.batch import ClaimedBatch
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.lenient_json import write_lenient
from pipeline.domain.outgoing import Act, Candidate, Decision, Memory, OutgoingWrite, Standing, staged
from pipeline.errors import Rejected
from pipeline.tasks.plans import Plan, plan_for
from pipeline.tasks.staging import pack_page, unpack_page
from pipeline.transform.agreement import Settled, settle
from pipeline.transform.hull_reports import ABSENT, attribute_name, find_attribute, told_at
from pipeline.transform.identity import claims_of
from pipeline.transform.outgoing_filter import Verdict, judge, no_change_reason
from pipeline.transform.times import epoch_seconds

HELD = {
    Standing.CONFLICT: "several_ids",
    Standing.AMBIGUOUS: "ambiguous_match",
    Standing.TAKEN: "already_joined",
}
"""Standing → the reason why only a person can go on."""
QUARREL: Final = "rules_fight"


def transform_batch(batch: ClaimedBatch) -> None:
    """Decide for every candidate, and hand the decisions to load."""
    entity = Entity(batch.entity)
    with transaction() as session:
        plan = plan_for(session, batch.connector_key, entity)
    rows, _, _ = unpack_page(bytes(batch.extracted or b""))
    now_s = int(time.time())
    decisions = [decide(Candidate.of(row), plan, entity, now_s=now_s) for row in rows]
    with transaction() as session:
        batches.hold(session, batch)
        data = write_lenient({"data": [staged(decision) for decision in decisions]})
        batches.pass_to_load(session, batch.id, pack_page(data))


def decide(candidate: Candidate, plan: Plan, entity: Entity, *, now_s: int) -> Decision:
    """Filters first, then whom it is, then what differs."""
    verdict = judge(
        candidate.message,
        plan.settings,
        entity,
        is_known=candidate.standing is Standing.KNOWN,
        is_departed=candidate.standing is Standing.DEPARTED,
    )
    if not verdict.sends:
        return Decision(candidate=candidate, act=Act.SKIP, reason=verdict.reason, detail=verdict.detail)
    if candidate.standing in HELD:
        return Decision(
            candidate=candidate, act=Act.HOLD, reason=HELD[candidate.standing], detail=_who(candidate, entity)
        )
    try:
        if candidate.standing is Standing.KNOWN:
            return _update(candidate, plan, entity, verdict, now_s=now_s)
        return _create(candidate, plan, entity, verdict)
    except Rejected as refused:
        return Decision(candidate=candidate, act=Act.HOLD, reason=refused.reason, detail=refused.detail)


def _who(candidate: Candidate, entity: Entity) -> str:
    ids = ", ".join(map(str, candidate.others))
    by = f" by {candidate.matched_by}" if candidate.matched_by else ""
    return f"{entity.plural if len(candidate.others) > 1 else entity.value} {ids}{by}"


def _update(candidate: Candidate, plan: Plan, entity: Entity, verdict: Verdict, *, now_s: int) -> Decision:
    write = write_for(candidate, plan, entity, candidate.snapshot)
    settled = settle(
        write,
        Memory(recent=candidate.memory.recent) if is_export(candidate) else candidate.memory,
        {} if is_export(candidate) else plan.outgoing.owners,
        hull_is_newer=_hull_is_newer(candidate, entity),
        now_s=now_s,
    )
    decision = Decision(
        candidate=candidate,
        act=Act.UPDATE,
        trigger=verdict.trigger,
        write=settled.write,
        left=settled.left,
        overruled=_overruled(candidate, plan, entity, settled),
        problems=write.problems,
        quarrel=_quarrel(settled.fights, plan, entity) if settled.fights else "",
    )
    if settled.fights and settled.write.is_empty:
        return replace(decision, act=Act.HOLD, reason=QUARREL, detail=decision.quarrel)
    if settled.write.is_empty:
        reason, detail = no_change_reason(candidate.message, plan.settings, entity)
        if settled.left:
            reason, detail = settled.left[0].reason, f"{settled.left[0].field}: {settled.left[0].detail}"
        return replace(decision, act=Act.SKIP, reason=reason, detail=detail)
    return decision


def _create(candidate: Candidate, plan: Plan, entity: Entity, verdict: Verdict) -> Decision:
    write = write_for(candidate, plan, entity, None)
    return Decision(
        candidate=candidate,
        act=Act.CREATE,
        trigger=verdict.trigger,
        write=write,
        claims=claims_of(candidate.message[entity.hull], plan.settings, entity),
        problems=write.problems,
    )


def write_for(candidate: Candidate, plan: Plan, entity: Entity, snapshot: dict[str, object] | None) -> OutgoingWrite:
    """The write that makes the record of `snapshot`, or a new one, agree with what Hull says.

    Raises: Rejected("name_missing").
    """
    report = {**candidate.message[entity.hull], "account": candidate.message.get("account") or {}}
    return plan.outgoing.write(
        report,
        snapshot,
        organization_id=candidate.organization_id,
        delivered=candidate.memory.present if snapshot is not None else None,
    )


def is_export(candidate: Candidate) -> bool:
    """Sent by hand: every mapped field that differs is written, whatever was agreed before."""
    return candidate.message.get("is_export") is True


def _hull_is_newer(candidate: Candidate, entity: Entity) -> bool:
    told, changed = (
        told_at(candidate.message[entity.hull]),
        epoch_seconds((candidate.snapshot or {}).get("update_time")),
    )
    return told is not None and changed is not None and told >= changed


def _overruled(candidate: Candidate, plan: Plan, entity: Entity, settled: Settled) -> dict[str, Any]:
    """What Hull says of the fields about which Pipedrive had the last word, and is to be told otherwise."""
    keys = {problem.field for problem in settled.left if problem.reason == "owned_by_pipedrive"}
    report = candidate.message[entity.hull]
    names = [target.attribute for target in plan.outgoing.targets if target.source.key in keys and target.attribute]
    said = {attribute_name(name): find_attribute(report, name) for name in names}
    return {name: value for name, value in said.items() if name in plan.shared and value not in (ABSENT, None)}


def _quarrel(keys: tuple[str, ...], plan: Plan, entity: Entity) -> str:
    """Name the fields and the rows of the settings that write them."""
    rows = {target.source.key: target for target in plan.outgoing.targets}
    named = [f"{rows[key].attribute} → {rows[key].source.code}" if key in rows else key for key in keys]
    return f"values go back and forth: {', '.join(named)} of the outgoing {entity.hull} attributes"
