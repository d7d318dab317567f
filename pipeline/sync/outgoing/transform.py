"""Transform of an outgoing batch: what becomes of each record, and the write that would make Pipedrive agree with it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from db import batch as batches
from db.batch import ClaimedBatch
from db.session import transaction
from pipeline.domain.json_text import write_lenient
from pipeline.domain.kinds import Entity
from pipeline.domain.outgoing import Act, Candidate, Decision, MatchStatus
from pipeline.errors import Rejected
from pipeline.sync import definitions
from pipeline.sync.compiled import Plan, plan_for
from pipeline.sync.outgoing.diff import update, write_for
from pipeline.sync.outgoing.extract import candidates_of, find_candidates
from pipeline.sync.staging import pack_page, unpack_page
from pipeline.transform.hull_reports import find_attribute
from pipeline.transform.identifiers import claims_of
from pipeline.transform.outgoing_filter import FilterDecision, judge

HELD = {
    MatchStatus.CONFLICT: "several_ids",
    MatchStatus.AMBIGUOUS: "ambiguous_match",
    MatchStatus.TAKEN: "already_joined",
}
"""Standing → the reason why only a person can go on."""


def transform_batch(batch: ClaimedBatch) -> None:
    """Decide for every report, and pass the decisions to load."""
    decisions = _decide_all(batch, candidates_of(batch))
    with transaction() as session:
        batches.hold(session, batch)
        data = write_lenient({"data": decisions})
        batches.pass_to_load(session, batch.id, pack_page(data))


def decisions_of(batch: ClaimedBatch) -> list[Decision]:
    """Return transform's decision, or decide again if it may be outdated: Hull or Pipedrive may have changed since."""
    if batch.transformed is None or batch.is_outdated:
        return _decide_all(batch, find_candidates(batch))
    return [Decision.of(row) for row in unpack_page(bytes(batch.transformed))[0]]


def _decide_all(batch: ClaimedBatch, candidates: Sequence[Candidate]) -> list[Decision]:
    entity = Entity(batch.entity)
    with transaction() as session:
        plan = plan_for(session, batch.connector_key, entity)
    plan = definitions.up_to_date(batch, plan)
    now_s = int(time.time())
    decisions = [decide(each, plan, entity, now_s=now_s) for each in candidates]
    unknown = _unknown(decisions, plan, entity)
    if unknown and (fresh := definitions.for_unknown(batch, plan, unknown)) is not None:
        plan = fresh
        decisions = [decide(each, plan, entity, now_s=now_s) for each in candidates]
    return decisions


def _unknown(decisions: Sequence[Decision], plan: Plan, entity: Entity) -> set[str]:
    """Keys of the fields and options that the definitions do not know: those that a record names, and those that are mapped."""
    if not any(each.write is not None for each in decisions):
        return set()
    mapped = {problem.field for problem in plan.outgoing.problems if problem.reason in definitions.OUTDATED}
    named = {target.source.code: target.attribute for target in plan.outgoing.targets}
    said = {
        definitions.key_of(
            problem.field, find_attribute(each.candidate.message[entity.hull], named.get(problem.field) or "")
        )
        for each in decisions
        for problem in each.problems
        if problem.reason in definitions.OUTDATED
    }
    return said | {definitions.key_of(field, None) for field in mapped}


def decide(candidate: Candidate, plan: Plan, entity: Entity, *, now_s: int) -> Decision:
    """Filters first, then the record, then the diff."""
    verdict = judge(
        candidate.message,
        plan.settings,
        entity,
        is_known=candidate.standing is MatchStatus.KNOWN,
        is_departed=candidate.standing is MatchStatus.DEPARTED,
    )
    if not verdict.sends:
        return Decision(candidate=candidate, act=Act.SKIP, reason=verdict.reason, detail=verdict.detail)
    if candidate.standing in HELD:
        return Decision(
            candidate=candidate, act=Act.HOLD, reason=HELD[candidate.standing], detail=_who(candidate, entity)
        )
    if candidate.standing is MatchStatus.UNRESOLVED:
        detail = _who(candidate, entity)
        return Decision(candidate=candidate, act=Act.WAIT, reason="hull_id_unknown", detail=detail)
    try:
        if candidate.standing is MatchStatus.KNOWN:
            return update(candidate, plan, entity, verdict, now_s=now_s)
        return _create(candidate, plan, entity, verdict)
    except Rejected as refused:
        return Decision(candidate=candidate, act=Act.HOLD, reason=refused.reason, detail=refused.detail)


def _who(candidate: Candidate, entity: Entity) -> str:
    ids = ", ".join(map(str, candidate.others))
    by = f" by {candidate.matched_by}" if candidate.matched_by else ""
    return f"{entity.plural if len(candidate.others) > 1 else entity.value} {ids}{by}"


def _create(candidate: Candidate, plan: Plan, entity: Entity, verdict: FilterDecision) -> Decision:
    write = write_for(candidate, plan, entity, None)
    return Decision(
        candidate=candidate,
        act=Act.CREATE,
        trigger=verdict.trigger,
        write=write,
        claims=claims_of(candidate.message[entity.hull], plan.settings, entity),
        problems=write.problems,
    )
