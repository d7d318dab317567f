"""Find out whether a record exists already, before it is created.

    reserve  store a create intent, and reserve the claims; a second worker waits
    look up  see `pipeline.sync.outgoing.lookup`; if the answer is not known yet, start the fetch that finds it, and wait
    decide   one match is used, several need a person, none means that the record is created

A record that our tables found by a weaker claim is looked up too: a stronger claim may name a record that they do not know yet.

Intents are committed before the look-up, so two workers that would create the same record see each other. An intent that is older
than this batch may have created its record already, so the lists begin before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import Any, Final

from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import identifier, joining, outage, watermark
from db.batch import ClaimedBatch
from db.joining import Intent, Join, RecordOwner
from db.session import transaction
from db.snapshot import read_snapshots
from db.watermark import IndexFreshness
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.records import INDEX_BEHIND, INDEX_INCOMPLETE, Act, Candidate, Decision, MatchStatus
from pipeline.domain.times import epoch_seconds
from pipeline.extract import id_of, read_by_ids
from pipeline.sync.compiled import CompiledSettings
from pipeline.sync.outgoing import transform as deciding
from pipeline.sync.outgoing.lookup import OVERLAP, Answers, LookupQuery, look_up
from pipeline.sync.outgoing.resolve import (
    Pair,
    Resolution,
    agrees,
    match,
    resolve_with_hull,
    separate_rivals,
    unresolved,
)
from pipeline.sync.runs import schedules
from pipeline.transform.conflicts import differs, value_of
from pipeline.transform.identifiers import claims_of
from pipeline.wiring import Wired

RESERVED_S: Final = 2.0
UNRESOLVED_S: Final = 15.0
LISTING_S: Final = 600.0
"""Longest wait for a fetch; its end wakes the waiting records."""
OUTAGE_S: Final = 240.0
HULL: Final = ("firehose", "hull")
"""Remote systems of Hull, as `db.outage` names them."""


@dataclass(frozen=True, slots=True)
class Postponement:
    """Why and how long a record is postponed.

    counted    it counts as an attempt
    grows      the pause grows with each attempt
    waits_for  the name under which the end of the wait finds it
    for_hull   Hull must accept or show something first; see `wait_for_hull_outage`
    """

    reason: str
    wait_s: float
    counted: bool = True
    grows: bool = False
    waits_for: str | None = None
    for_hull: bool = False


@dataclass(slots=True, kw_only=True)
class MatchResult:
    """decided  the decision for each record: still CREATE, or UPDATE, SKIP or HOLD because its record was found
    waiting  Hull id → why it has to wait
    by_claim (claim, value) → Pipedrive ids, as far as the look-up found them
    others   resolutions of the records that were not looked up
    """

    decided: list[Decision] = field(default_factory=list)
    waiting: dict[str, Postponement] = field(default_factory=dict)
    by_claim: dict[Pair, list[int]] = field(default_factory=dict)
    others: dict[str, Resolution] = field(default_factory=dict)


def look_before_creating(
    batch: ClaimedBatch, wired: Wired, plan: CompiledSettings, decisions: Iterable[Decision], *, now_s: int
) -> MatchResult:
    """Decide for every record to be created whether it exists, is reserved by another one, or is really created.

    decisions  of the whole batch: a record to be created must not be one that the batch already has
    Raises: the client's errors; the intents stay, and the next attempt begins with them.
    """
    result, entity = MatchResult(), batch.entity
    decided = list(decisions)
    creates = [each for each in decided if each.act is Act.CREATE]
    doubtful = [
        replace(each, claims=claims_of(each.candidate.message[entity.hull], plan.settings, entity))
        for each in decided
        if _is_doubtful(each)
    ]
    if not creates and not doubtful:
        return result
    with transaction() as session:
        batches.hold(session, batch)
        intents = _write_intents(session, batch, creates, result)
        index = watermark.get_index_freshness(session, batch.connector_key, batch.entity)
    mine = [each for each in creates if each.hull_id in intents] + doubtful
    intents |= {each.hull_id: Intent(each.hull_id, "", None, None, is_new=True) for each in doubtful}
    if not mine:
        return result
    older = [
        made_at for each in mine if (made_at := intents[each.hull_id].made_at) and not intents[each.hull_id].is_new
    ]
    wanted = LookupQuery(claims={each.hull_id: each.claims for each in mine}, older=min(older, default=None))
    answers = look_up(batch, wired, plan, wanted, index)
    if answers.undecided:
        _wait_for_listing(batch, mine, intents, answers, index, result)
    result.by_claim = answers.by_claim
    mine = [each for each in mine if each.hull_id not in result.waiting]
    looked_up = {each.hull_id for each in mine}
    result.others = {
        each.hull_id: found
        for each in decided
        if each.hull_id not in looked_up and (found := _known_resolution(each)) is not None
    }
    _decide(batch, wired, plan, mine, intents, answers, result, now_s=now_s)
    return result


def _is_doubtful(decision: Decision) -> bool:
    """Return whether the record was found by a weaker claim and would be written."""
    is_left_alone = decision.act is Act.SKIP and decision.write is None
    return decision.candidate.by_lower_claim and decision.act is not Act.CREATE and not is_left_alone


def _known_resolution(decision: Decision) -> Resolution | None:
    """Return the resolution of a record that is not looked up; None if it is not mapped."""
    candidate = decision.candidate
    if candidate.match_status is not MatchStatus.KNOWN:
        return None
    return Resolution(
        match_status=MatchStatus.KNOWN, pipedrive_id=candidate.pipedrive_id, matched_by=candidate.matched_by
    )


def _write_intents(
    session: Session, batch: ClaimedBatch, creates: Sequence[Decision], result: MatchResult
) -> dict[str, Intent]:
    """Return Hull id → its intent, for records that continue; the others are added to `result.waiting`."""
    scope = (batch.connector_key, batch.entity)
    deleted = [each.hull_id for each in creates if each.candidate.match_status is MatchStatus.DELETED]
    pending = joining.detach_deleted(session, *scope, deleted)
    intents = joining.write_intents(session, *scope, [each.hull_id for each in creates])
    joining.store_pending_attributes(session, *scope, pending)
    for each in creates:
        intent = intents.get(each.hull_id)
        if intent is None or intent.pipedrive_id is not None:  # another worker mapped it a moment ago
            result.waiting[each.hull_id] = Postponement("mapped_concurrently", 0.5)
    wanted = [
        (claim, value, each.hull_id)
        for each in creates
        if each.hull_id not in result.waiting
        for claim, value in each.claims
    ]
    second = identifier.reserve(session, *scope, wanted)
    # A reservation that is in flight ends the wait. One that is no longer in flight needs a person.
    alive = changes.find_in_flight(session, batch.connector_key, Direction.OUTGOING, batch.entity, second.values())
    result.waiting |= {
        hull_id: Postponement("claim_reserved", RESERVED_S, counted=first not in alive)
        for hull_id, first in second.items()
    }
    # Waiting records release their reservations, so that no two records wait for each other.
    joining.cancel_intents(session, *scope, [hull_id for hull_id in second if intents[hull_id].is_new])
    return {hull_id: intent for hull_id, intent in intents.items() if hull_id not in result.waiting}


def _wait_for_listing(
    batch: ClaimedBatch,
    mine: Sequence[Decision],
    intents: Mapping[str, Intent],
    answers: Answers,
    index: IndexFreshness,
    result: MatchResult,
) -> None:
    """Start the fetch that decides the records without an answer, and postpone them until it ends."""
    whole = not (index.is_complete and answers.added_is_whole)
    schedules.start_for_lookup(batch.connector_key, batch.entity, whole=whole)
    reason = INDEX_BEHIND if index.is_complete else INDEX_INCOMPLETE
    result.waiting |= {
        hull_id: Postponement(reason, LISTING_S, counted=False, waits_for=reason) for hull_id in answers.undecided
    }
    # Nothing was created for these, so records that appear since are not theirs. Reservations of deleted records stay.
    not_started = [
        each.hull_id
        for each in mine
        if each.hull_id in answers.undecided
        and intents[each.hull_id].is_new
        and each.candidate.match_status is not MatchStatus.DELETED
    ]
    with transaction() as session:
        batches.hold(session, batch)
        joining.cancel_intents(session, batch.connector_key, batch.entity, not_started)


def _decide(
    batch: ClaimedBatch,
    wired: Wired,
    plan: CompiledSettings,
    mine: Sequence[Decision],
    intents: Mapping[str, Intent],
    answers: Answers,
    result: MatchResult,
    *,
    now_s: int,
) -> None:
    """Decide by the answers of the look-up."""
    entity = batch.entity
    ids = {each for found in answers.by_claim.values() for each in found} | set(answers.records)
    with transaction() as session:
        owners = joining.find_owners(session, batch.connector_key, entity, ids)
    met: dict[str, Resolution] = {}
    for each in mine:
        found = match(each.hull_id, each.claims, answers.by_claim, owners)
        intent = intents[each.hull_id]
        if found is None and not intent.is_new:
            found = _made_before(each, intent, answers, owners)
        if found is not None:
            met[each.hull_id] = _check_undelivered(each, found, answers, owners, plan)
        elif each.act is Act.CREATE:
            result.decided.append(each)
        else:  # a record has just lost this claim; our tables are updated when its page is loaded
            result.waiting[each.hull_id] = Postponement("mapped_concurrently", RESERVED_S, grows=True, for_hull=True)
    resolve_with_hull(batch, wired, met)
    rivals = result.others | met
    separate_rivals(rivals)
    met = {hull_id: rivals[hull_id] for hull_id in met}
    snapshots = _records_of(batch, wired, plan, met, answers)
    result.decided += [
        _found(each, met[each.hull_id], snapshots, plan, entity, now_s=now_s) for each in mine if each.hull_id in met
    ]
    unresolved = [hull_id for hull_id, found in met.items() if found.match_status is MatchStatus.UNRESOLVED]
    if cancelled := [hull_id for hull_id in unresolved if intents[hull_id].is_new]:
        with transaction() as session:
            batches.hold(session, batch)
            joining.cancel_intents(session, batch.connector_key, entity, cancelled)


def _check_undelivered(
    each: Decision, found: Resolution, answers: Answers, owners: Mapping[int, RecordOwner], plan: CompiledSettings
) -> Resolution:
    """Return unresolved for a record that Hull has not received yet and that may belong to another User by its claims."""
    record = answers.records.get(found.pipedrive_id or 0)
    if found.match_status is not MatchStatus.KNOWN or record is None or found.pipedrive_id in owners:
        return found
    return found if agrees(record, each.claims, plan) else unresolved(found.pipedrive_id or 0, found.matched_by)


def _made_before(
    each: Decision, intent: Intent, answers: Answers, owners: Mapping[int, RecordOwner]
) -> Resolution | None:
    """Return the record that an earlier attempt may have created: one that appeared since and has exactly the written values."""
    if intent.made_at is None or each.write is None:
        return None
    earliest = int((intent.made_at.astimezone(UTC) - OVERLAP).timestamp())
    alike = [
        pipedrive_id
        for pipedrive_id, record in answers.records.items()
        if (pipedrive_id not in owners or owners[pipedrive_id].hull_id is None)
        and (epoch_seconds(record.get("add_time")) or 0) >= earliest
        and _has_written_values(record, each)
    ]
    if len(alike) > 1:
        return Resolution(match_status=MatchStatus.AMBIGUOUS, others=tuple(alike), matched_by="created")
    return Resolution(match_status=MatchStatus.KNOWN, pipedrive_id=alike[0], matched_by="created") if alike else None


def _has_written_values(record: dict[str, Any], each: Decision) -> bool:
    write = each.write
    if write is None:
        return False
    flat = {**write.fields, **write.fields.get("custom_fields", {})}
    return all(not differs(kind, flat[key], value_of(record, key)) for key, kind in write.kinds.items())


def _records_of(
    batch: ClaimedBatch, wired: Wired, plan: CompiledSettings, met: Mapping[str, Resolution], answers: Answers
) -> dict[int, dict[str, Any]]:
    """Return the found records: as just read, else their snapshots, else read now."""
    ids = {each.pipedrive_id for each in met.values() if each.pipedrive_id is not None}
    missing = sorted(ids - answers.records.keys())
    with transaction() as session:
        kept = read_snapshots(session, batch.connector_key, batch.entity, "pipedrive", [str(each) for each in missing])
    records = answers.records | {int(record_id): read_lenient(body) for record_id, body in kept.items()}
    unread = [each for each in missing if each not in records]
    read = read_by_ids(wired.pipedrive, batch.entity, unread, plan.incoming.include_fields) if unread else []
    return records | {record_id: record for record in read if (record_id := id_of(record)) is not None}


def _found(
    each: Decision,
    found: Resolution,
    snapshots: Mapping[int, dict[str, Any]],
    plan: CompiledSettings,
    entity: Entity,
    *,
    now_s: int,
) -> Decision:
    """Decide again with the record that was found."""
    candidate: Candidate = replace(
        each.candidate,
        match_status=found.match_status,
        pipedrive_id=found.pipedrive_id,
        matched_by=found.matched_by,
        by_lower_claim=False,
        others=found.others,
        snapshot=snapshots.get(found.pipedrive_id) if found.pipedrive_id is not None else None,
    )
    decision = deciding.decide(candidate, plan, entity, now_s=now_s)
    return replace(decision, trigger=each.trigger) if decision.act is Act.UPDATE else decision


def unresolved_ones(decisions: Iterable[Decision]) -> dict[str, Postponement]:
    """Return the postponements of records that wait for a Hull id."""
    wait = Postponement("hull_id_unknown", UNRESOLVED_S, grows=True, for_hull=True)
    return {each.hull_id: wait for each in decisions if each.act is Act.WAIT}


def wait_for_hull_outage(batch: ClaimedBatch, waiting: Mapping[str, Postponement]) -> dict[str, Postponement]:
    """Make records that wait for Hull wait for the end of its outage, if there is one, without counting an attempt."""
    if not (batch.has_outage and any(each.for_hull for each in waiting.values())):
        return dict(waiting)
    with transaction() as session:
        out = {each.remote for each in outage.outages_of(session, batch.connector_key)}
    remote = next((each for each in HULL if each in out), None)
    if remote is None:
        return dict(waiting)
    return {
        hull_id: Postponement(each.reason, OUTAGE_S, counted=False, waits_for=remote) if each.for_hull else each
        for hull_id, each in waiting.items()
    }


def is_met(decision: Decision) -> bool:
    """Return whether the record was matched just now, with nothing left to look up."""
    candidate = decision.candidate
    return (
        candidate.match_status is MatchStatus.KNOWN
        and candidate.matched_by is not None
        and not candidate.by_lower_claim
    )


def join_found(
    batch: ClaimedBatch, plan: CompiledSettings, decisions: Iterable[Decision], *, now_s: int
) -> list[Decision]:
    """Map the matched records before anything is sent. Return the new decisions for those that another worker mapped first."""
    matched = {each.candidate.pipedrive_id: each for each in decisions if is_met(each)}
    joins = [
        Join(hull_id=each.hull_id, pipedrive_id=pipedrive_id, matched_by=each.candidate.matched_by or "")
        for pipedrive_id, each in matched.items()
        if pipedrive_id is not None
    ]
    if not joins:
        return []
    with transaction() as session:
        batches.hold(session, batch)
        lost = joining.join(session, batch.connector_key, batch.entity, joins)
    return [_taken(matched[each.pipedrive_id], plan, batch.entity, now_s=now_s) for each in lost]


def _taken(decision: Decision, plan: CompiledSettings, entity: Entity, *, now_s: int) -> Decision:
    candidate = decision.candidate
    others = (candidate.pipedrive_id,) if candidate.pipedrive_id is not None else ()
    taken = replace(candidate, match_status=MatchStatus.TAKEN, pipedrive_id=None, others=others, snapshot=None)
    return deciding.decide(taken, plan, entity, now_s=now_s)
