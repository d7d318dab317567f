"""Transform of an outgoing batch: decide for each report whether its record is skipped, held, updated or created.

Filters come first, then the match status, then the diff: which fields differ, and which side owns each field.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from db import batch as batches
from db.batch import ClaimedBatch
from db.session import transaction
from pipeline.domain.json_text import write_lenient
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import describe
from pipeline.domain.records import Act, Candidate, Decision, MatchStatus, Memory, OutgoingWrite
from pipeline.domain.times import version_of
from pipeline.errors import Rejected
from pipeline.sync import definitions
from pipeline.sync.compiled import CompiledSettings, compiled_for
from pipeline.sync.outgoing.extract import candidates_of, find_candidates
from pipeline.sync.staging import pack_page, unpack_page
from pipeline.transform.comparison import canonical
from pipeline.transform.conflicts import (
    LATE_S,
    ConflictResolution,
    Edit,
    find_overwritten_edits,
    find_reported,
    is_stale,
    resolve_conflicts,
    values_held_by_hull,
)
from pipeline.transform.hull_reports import (
    ABSENT,
    REPORTED_VALUES,
    attribute_name,
    find_attribute,
    reported_at,
    values_before,
)
from pipeline.transform.identifiers import claims_of
from pipeline.transform.outgoing_filter import FilterDecision, filter_message, no_change_reason
from pipeline.transform.targets import Target

UPDATE_LOOP: Final = "update_loop_detected"
REASONS_TO_HOLD = {
    MatchStatus.CONFLICT: "several_ids",
    MatchStatus.AMBIGUOUS: "ambiguous_match",
    MatchStatus.TAKEN: "already_mapped",
}
"""Match status → the reason why a person must decide."""


def transform_batch(batch: ClaimedBatch) -> None:
    """Decide for every report, and pass the decisions to load."""
    decisions = _decide_all(batch, candidates_of(batch))
    with transaction() as session:
        batches.hold(session, batch)
        data = write_lenient({"data": decisions})
        batches.pass_to_load(session, batch.id, pack_page(data))


def _decide_all(batch: ClaimedBatch, candidates: Sequence[Candidate]) -> list[Decision]:
    entity = batch.entity
    with transaction() as session:
        plan = compiled_for(session, batch.connector_key, entity)
    plan = definitions.compiled_up_to_date(batch, plan)
    now_s = int(time.time())
    decisions = [decide(each, plan, entity, now_s=now_s) for each in candidates]
    unknown = _unknown(decisions, plan, entity)
    if unknown and (fresh := definitions.compiled_for_unknown(batch, plan, unknown)) is not None:
        plan = fresh
        decisions = [decide(each, plan, entity, now_s=now_s) for each in candidates]
    return decisions


def _unknown(decisions: Sequence[Decision], plan: CompiledSettings, entity: Entity) -> set[str]:
    """Return keys of the fields and options that are mapped or in a report, and that the definitions do not know."""
    if not any(each.write is not None for each in decisions):
        return set()
    mapped = {problem.field for problem in plan.outgoing.problems if problem.reason in definitions.OUTDATED}
    named = {target.source.code: target.attribute for target in plan.outgoing.targets}
    reported = {
        definitions.key_of(
            problem.field, find_attribute(each.candidate.message[entity.hull], named.get(problem.field) or "")
        )
        for each in decisions
        for problem in each.problems
        if problem.reason in definitions.OUTDATED
    }
    return reported | {definitions.key_of(field, None) for field in mapped}


def decisions_of(batch: ClaimedBatch) -> list[Decision]:
    """Return transform's decision, or decide again if it may be outdated: Hull or Pipedrive may have changed since."""
    if batch.transformed is None or batch.is_outdated:
        return _decide_all(batch, find_candidates(batch))
    return [Decision.of(row) for row in unpack_page(bytes(batch.transformed))[0]]


def decide(candidate: Candidate, plan: CompiledSettings, entity: Entity, *, now_s: int) -> Decision:
    """Return the decision about one report: filters first, then the match status, then the diff."""
    filtered = filter_message(
        candidate.message,
        plan.settings,
        entity,
        is_known=candidate.match_status is MatchStatus.KNOWN,
        is_deleted=candidate.match_status is MatchStatus.DELETED,
    )
    if not filtered.sends:
        return Decision(candidate=candidate, act=Act.SKIP, reason=filtered.reason, detail=filtered.detail)
    if candidate.match_status in REASONS_TO_HOLD:
        return Decision(
            candidate=candidate,
            act=Act.HOLD,
            reason=REASONS_TO_HOLD[candidate.match_status],
            detail=_describe_matches(candidate, entity),
        )
    if candidate.match_status is MatchStatus.UNRESOLVED:
        detail = _describe_matches(candidate, entity)
        return Decision(candidate=candidate, act=Act.WAIT, reason="hull_id_unknown", detail=detail)
    try:
        if candidate.match_status is MatchStatus.KNOWN:
            return update(candidate, plan, entity, filtered, now_s=now_s)
        return _create(candidate, plan, entity, filtered)
    except Rejected as refused:
        return Decision(candidate=candidate, act=Act.HOLD, reason=refused.reason, detail=refused.detail)


def _describe_matches(candidate: Candidate, entity: Entity) -> str:
    ids = ", ".join(map(str, candidate.others))
    by = f" by {candidate.matched_by}" if candidate.matched_by else ""
    return f"{entity.plural if len(candidate.others) > 1 else entity.value} {ids}{by}"


def _create(candidate: Candidate, plan: CompiledSettings, entity: Entity, filtered: FilterDecision) -> Decision:
    write = write_for(candidate, plan, entity, None)
    return Decision(
        candidate=candidate,
        act=Act.CREATE,
        trigger=filtered.trigger,
        write=write,
        claims=claims_of(candidate.message[entity.hull], plan.settings, entity),
        problems=write.problems,
    )


def update(
    candidate: Candidate, plan: CompiledSettings, entity: Entity, filtered: FilterDecision, *, now_s: int
) -> Decision:
    """Decide about a mapped record: what is written, what is left to Pipedrive, and which fields are in an update loop.

    Raises: Rejected("name_missing").
    """
    report = candidate.message[entity.hull]
    if is_stale(report, candidate.memory) and not is_export(candidate):
        return Decision(candidate=candidate, act=Act.SKIP, reason="older_report", detail=describe("older_report"))
    reported = find_reported(
        plan.outgoing.targets, candidate.message, report, candidate.memory, candidate.recent_deliveries
    )
    repeated = {key for key, (_, is_last) in reported.items() if is_last}
    edits = {} if is_export(candidate) else _edits_that_win(candidate, plan, repeated)
    candidate = _with_edits(candidate, entity, edits.values())
    write = write_for(candidate, plan, entity, candidate.snapshot)
    resolution = resolve_conflicts(
        write,
        Memory(recent=candidate.memory.recent) if is_export(candidate) else candidate.memory,
        {} if is_export(candidate) else plan.outgoing.owners,
        hull_is_newer=_hull_is_newer(candidate, entity),
        now_s=now_s,
        echoes=() if is_export(candidate) else repeated - edits.keys(),
    )
    decision = Decision(
        candidate=candidate,
        act=Act.UPDATE,
        trigger=filtered.trigger,
        write=resolution.write,
        left=resolution.left,
        overruled=_overruled(candidate, plan, entity, resolution),
        held={} if is_export(candidate) else _held(candidate, plan, entity, resolution, repeated),
        reported=reported,
        problems=write.problems,
        update_loop=_describe_loop(resolution.loops, plan, entity) if resolution.loops else "",
    )
    if resolution.loops and resolution.write.is_empty:
        return replace(decision, act=Act.HOLD, reason=UPDATE_LOOP, detail=decision.update_loop)
    if resolution.write.is_empty:
        reason, detail = no_change_reason(candidate.message, plan.settings, entity)
        if resolution.left:
            reason, detail = resolution.left[0].reason, f"{resolution.left[0].field}: {resolution.left[0].detail}"
        return replace(decision, act=Act.SKIP, reason=reason, detail=detail)
    return decision


def _edits_that_win(candidate: Candidate, plan: CompiledSettings, repeated: Collection[str]) -> dict[str, Edit]:
    """Return field key → Hull's edit, if the report repeats our value and Hull's earlier edit wins."""
    overwritten = find_overwritten_edits(
        plan.outgoing.targets, candidate.message, candidate.recent_deliveries, candidate.memory
    )
    changed_s = _changed_s(candidate)
    return {
        key: edit
        for key, edit in overwritten.items()
        if key in repeated
        and ((owner := plan.outgoing.owners.get(key)) == "hull" or (owner == "latest" and edit.at // 1000 >= changed_s))
    }


def _changed_s(candidate: Candidate) -> float:
    """Return when Pipedrive last changed the record; infinity if that is not known, so nothing of Hull is newer."""
    changed = version_of(candidate.snapshot or {})
    return float("inf") if changed is None else changed


def _with_edits(candidate: Candidate, entity: Entity, edits: Iterable[Edit]) -> Candidate:
    """Return the candidate as if Hull had reported these values."""
    message = {name: value for name, value in candidate.message.items() if name != REPORTED_VALUES}
    values = {edit.attribute: edit.value for edit in edits}
    report = {name: value for name, value in message[entity.hull].items() if attribute_name(name) not in values}
    return replace(candidate, message={**message, entity.hull: report | values})


def _hull_is_newer(candidate: Candidate, entity: Entity) -> bool:
    moment = reported_at(candidate.message[entity.hull])
    return moment is not None and moment // 1000 >= _changed_s(candidate)


def _overruled(
    candidate: Candidate, plan: CompiledSettings, entity: Entity, resolution: ConflictResolution
) -> dict[str, Any]:
    """Return Hull's values of the fields that Pipedrive owns, to be corrected in Hull."""
    keys = {problem.field for problem in resolution.left if problem.reason == "owned_by_pipedrive"}
    report = candidate.message[entity.hull]
    names = [target.attribute for target in plan.outgoing.targets if target.source.key in keys and target.attribute]
    values = {attribute_name(name): find_attribute(report, name) for name in names}
    return {name: None if value is ABSENT else value for name, value in values.items() if name in plan.shared}


def _held(
    candidate: Candidate,
    plan: CompiledSettings,
    entity: Entity,
    resolution: ConflictResolution,
    repeated: Collection[str],
) -> dict[str, Any]:
    """Return the values that are written because of the report, so Hull has them; none for a newly matched record."""
    if candidate.matched_by is not None:
        return {}
    written = resolution.write.kinds.keys() - set(repeated)
    targets = [target for target in plan.outgoing.targets if target.source.key in written]
    held = values_held_by_hull(targets, candidate.message[entity.hull], candidate.recent_deliveries, candidate.memory)
    return {name: value for name, value in held.items() if name in plan.shared}


def _describe_loop(keys: tuple[str, ...], plan: CompiledSettings, entity: Entity) -> str:
    """Name the fields and the rows of the settings that write them."""
    rows = {target.source.key: target for target in plan.outgoing.targets}
    named = [f"{rows[key].attribute} → {rows[key].source.code}" if key in rows else key for key in keys]
    return f"values go back and forth: {', '.join(named)} of the outgoing {entity.hull} attributes"


def write_for(
    candidate: Candidate, plan: CompiledSettings, entity: Entity, snapshot: dict[str, object] | None
) -> OutgoingWrite:
    """Return the write that makes the record of `snapshot`, or a new one, equal to Hull's report.

    Raises: Rejected("name_missing").
    """
    report = {**candidate.message[entity.hull], "account": candidate.message.get("account") or {}}
    return plan.outgoing.write(
        report,
        snapshot,
        organization_id=candidate.organization_id,
        delivered=_delivered(candidate, plan, entity) if snapshot is not None else (),
    )


def _delivered(candidate: Candidate, plan: CompiledSettings, entity: Entity) -> set[str]:
    """Return codes of the fields that may be emptied: those with a value in the last report or delivery.

    The memory of a record that was just matched belongs to another User or Account.
    """
    remembered = set(candidate.memory.present or ()) if candidate.matched_by in (None, "report") else set()
    emptied = {each.source.code for each in plan.outgoing.targets if _was_emptied_in_hull(candidate, each, entity)}
    return remembered | emptied


def _was_emptied_in_hull(candidate: Candidate, target: Target, entity: Entity) -> bool:
    """Return whether the report clears a value that Hull received: it has null, and is newer than our delivery.

    An older report with null must not empty the field from which Hull received the value since.
    """
    if target.attribute is None or target.attribute.startswith("account."):
        return False
    name, report = attribute_name(target.attribute), candidate.message[entity.hull]
    value = candidate.delivered.get(name)
    if value is None or find_attribute(report, name) is ABSENT:
        return False
    if any(canonical(name, each) == canonical(name, value) for each in values_before(candidate.message, entity, name)):
        return True
    moment = reported_at(report)
    delivered_at = [each.at for each in candidate.recent_deliveries if each.values.get(name) is not None]
    return moment is not None and bool(delivered_at) and moment / 1000 - LATE_S > delivered_at[-1]


def is_export(candidate: Candidate) -> bool:
    """Return whether the report was sent manually: then every mapped field that differs is written."""
    return candidate.message.get("is_export") is True
