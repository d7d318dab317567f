"""Before a field is written that Pipedrive may own: read Pipedrive's current value.

The snapshot is as old as the last webhook. If Hull owns the field, that is irrelevant: its value is written anyway.
Otherwise an edit without
a webhook so far would be overwritten against the settings. One list of up to a hundred records, 10 tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipeline.domain.kinds import Entity
from pipeline.domain.outgoing import Act, Decision
from pipeline.extract import id_of, read_by_ids
from pipeline.sync.compiled import Plan
from pipeline.sync.outgoing.diff import is_export
from pipeline.sync.outgoing.transform import decide
from pipeline.wiring import Wired


def decide_by_what_is(
    wired: Wired, plan: Plan, entity: Entity, decisions: Iterable[Decision], *, now_s: int
) -> list[Decision]:
    """Read the records with fields that Pipedrive may own, and decide again; a deleted one is written to and refused.

    Raises: the client's errors; nothing has been written then.
    """
    asked = {
        pipedrive_id: each
        for each in decisions
        if _has_a_say(each, plan) and (pipedrive_id := each.candidate.pipedrive_id) is not None
    }
    read = read_by_ids(wired.pipedrive, entity, sorted(asked), plan.incoming.include_fields) if asked else []
    records = {record_id: record for record in read if (record_id := id_of(record)) in asked}
    moved_on = {
        pipedrive_id: each
        for pipedrive_id, each in asked.items()
        if pipedrive_id in records and records[pipedrive_id] != each.candidate.snapshot
    }
    anew = []
    for pipedrive_id, each in moved_on.items():
        decision = decide(replace(each.candidate, snapshot=records[pipedrive_id]), plan, entity, now_s=now_s)
        anew.append(replace(decision, trigger=each.trigger, heard={**each.heard, **decision.heard}))
    return anew


def _has_a_say(decision: Decision, plan: Plan) -> bool:
    if decision.act is not Act.UPDATE or decision.write is None or is_export(decision.candidate):
        return False
    return any(plan.outgoing.owners.get(key, "hull") != "hull" for key in decision.write.kinds)
