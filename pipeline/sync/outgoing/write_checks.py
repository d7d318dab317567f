"""Checks before a write: read the fields that Pipedrive may own again, and leave out values that another record holds.

The snapshot is as old as the last webhook. If Pipedrive may own a field, an edit without a webhook so far would be
overwritten against the settings. Up to a hundred records are read for 10 tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from db import identifier_search
from db.batch import ClaimedBatch
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.records import Act, Decision, FieldProblem, OutgoingWrite
from pipeline.extract import id_of, read_by_ids
from pipeline.sync.compiled import CompiledSettings
from pipeline.sync.outgoing.resolve import Pair, claims_in
from pipeline.sync.outgoing.transform import decide, is_export
from pipeline.wiring import Wired

HELD_BY_ANOTHER = "held_by_another"


def decide_by_fresh_reads(
    wired: Wired, plan: CompiledSettings, entity: Entity, decisions: Iterable[Decision], *, now_s: int
) -> list[Decision]:
    """Read the records with fields that Pipedrive may own, and decide again. A deleted one is left as it is: Pipedrive refuses it.

    Raises: the client's errors; nothing has been written then.
    """
    requested = {
        pipedrive_id: each
        for each in decisions
        if _may_be_owned_by_pipedrive(each, plan) and (pipedrive_id := each.candidate.pipedrive_id) is not None
    }
    read = read_by_ids(wired.pipedrive, entity, sorted(requested), plan.incoming.include_fields) if requested else []
    records = {record_id: record for record in read if (record_id := id_of(record)) in requested}
    changed = {
        pipedrive_id: each
        for pipedrive_id, each in requested.items()
        if pipedrive_id in records and records[pipedrive_id] != each.candidate.snapshot
    }
    decided = []
    for pipedrive_id, each in changed.items():
        decision = decide(replace(each.candidate, snapshot=records[pipedrive_id]), plan, entity, now_s=now_s)
        decided.append(replace(decision, trigger=each.trigger, reported={**each.reported, **decision.reported}))
    return decided


def _may_be_owned_by_pipedrive(decision: Decision, plan: CompiledSettings) -> bool:
    if decision.act is not Act.UPDATE or decision.write is None or is_export(decision.candidate):
        return False
    return any(plan.outgoing.owners.get(key, "hull") != "hull" for key in decision.write.kinds)


def leave_out_held_values(
    batch: ClaimedBatch, plan: CompiledSettings, decisions: Iterable[Decision], listed: Mapping[Pair, Iterable[int]]
) -> list[Decision]:
    """Remove the values that another record holds from the writes. Return the changed decisions.

    listed  (claim, value) → Pipedrive ids that the look-up found; our tables may not know them yet
    """
    decided = list(decisions)
    fresh = new_pairs(decided, plan)
    if not fresh:
        return []
    with transaction() as session:
        wanted = [pair for pairs in fresh.values() for pair in pairs]
        held = identifier_search.find_records(session, batch.connector_key, batch.entity, wanted)
    together = {pair: {*held.get(pair, ()), *listed.get(pair, ())} for pair in (*held, *listed)}
    return without_held(decided, fresh, together, plan)


def new_pairs(decisions: Iterable[Decision], plan: CompiledSettings) -> dict[str, list[Pair]]:
    """Return Hull id → the (claim, value) that its record would have after the write and does not have now."""
    fields = _claim_fields(plan)
    return {each.hull_id: pairs for each in decisions if (pairs := _new_pairs(each, plan, fields))}


def _claim_fields(plan: CompiledSettings) -> dict[str, str]:
    """Return claim → key of its field."""
    claims = {str(rule.hull) for rule in plan.settings.claims(plan.catalog.entity)}
    found = {claim: plan.claim_field(claim) for claim in claims}
    return {claim: field[0] for claim, field in found.items() if field is not None}


def _new_pairs(decision: Decision, plan: CompiledSettings, fields: Mapping[str, str]) -> list[Pair]:
    write = decision.write
    if decision.act is not Act.UPDATE or write is None or write.kinds.keys().isdisjoint(fields.values()):
        return []
    before = decision.candidate.snapshot or {}
    known = set(claims_in(before, plan))
    return [pair for pair in claims_in(_after(before, write), plan) if pair not in known and pair[0] in fields]


def _after(record: Mapping[str, Any], write: OutgoingWrite) -> dict[str, Any]:
    custom = {**(record.get("custom_fields") or {}), **write.fields.get("custom_fields", {})}
    return {**record, **write.fields, "custom_fields": custom}


def without_held(
    decisions: Iterable[Decision],
    fresh: Mapping[str, list[Pair]],
    held: Mapping[Pair, Iterable[int]],
    plan: CompiledSettings,
) -> list[Decision]:
    """Return the decisions without values that another record holds.

    fresh  see `new_pairs`
    held   (claim, value) → Pipedrive ids of the records that hold it
    """
    fields, entity = _claim_fields(plan), plan.catalog.entity
    changed = []
    for each in decisions:
        problems = {}
        for pair in fresh.get(each.hull_id, ()):
            others = sorted({*held.get(pair, ())} - {each.candidate.pipedrive_id})
            if others:
                problems[fields[pair[0]]] = _problem(fields[pair[0]], others, entity)
        if problems and each.write is not None:
            changed.append(_without(each, each.write, problems))
    return changed


def _problem(key: str, others: list[int], entity: Entity) -> FieldProblem:
    name = entity.plural if len(others) > 1 else entity.value
    return FieldProblem(field=key, reason=HELD_BY_ANOTHER, detail=f"held by {name} {', '.join(map(str, others))}")


def _without(decision: Decision, write: OutgoingWrite, problems: Mapping[str, FieldProblem]) -> Decision:
    rest = write.without(set(problems))
    all_problems = (*decision.problems, *problems.values())
    if not rest.is_empty:
        return replace(decision, write=rest, problems=all_problems)
    first = next(iter(problems.values()))
    detail = f"{first.field}: {first.detail}"
    return replace(decision, act=Act.SKIP, write=rest, problems=all_problems, reason=HELD_BY_ANOTHER, detail=detail)
