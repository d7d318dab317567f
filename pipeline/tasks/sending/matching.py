"""Before anything is created: is there really no such record?

    intend   write down what is about to be made, and reserve its claims; whoever is second waits
    look up  one list of all that changed since the mirror was last up to date; where the mirror is not complete yet, the search
    decide   one answer is a match, several are a person's to choose from, none means absent

The same look-up is made for those that our tables know by a claim that counts less than another one: that one may name a record
which our tables do not know yet.

The intents are committed before the look-up: two workers that would make the same record cannot both miss one another. An intent
that is older than this batch may have made its record already, so the list begins before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from db import batch as batches
from db import joining, known_as, mirror
from db.batch import ClaimedBatch
from db.joining import Holder, Intent, Join
from db.session import transaction
from db.snapshot import read_snapshots
from pipeline.domain.kinds import Entity
from pipeline.domain.lenient_json import read_lenient
from pipeline.domain.outgoing import Act, Candidate, Decision, Standing
from pipeline.extract.changed import list_changed
from pipeline.extract.pages import id_of, read_by_ids
from pipeline.extract.search import search_claim
from pipeline.tasks.plans import Plan
from pipeline.tasks.sending import decisions as deciding
from pipeline.tasks.sending.asking import settle_with_hull
from pipeline.tasks.sending.candidates import Found, match, part_rivals, unresolved
from pipeline.tasks.sending.looking import agrees, claims_in
from pipeline.tasks.sending.mirroring import keep_listed
from pipeline.transform.agreement import value_of
from pipeline.transform.identity import claims_of
from pipeline.transform.times import epoch_seconds
from pipeline.transform.writing.differences import differs
from pipeline.wiring import Wired

OVERLAP = timedelta(seconds=60)
"""How far before the last list the next one begins: the clocks of both sides may differ by so much."""
SPOKEN_FOR_S: Final = 2.0
UNRESOLVED_S: Final = 15.0
INCOMPLETE_S: Final = 60.0

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Wait:
    """Tried again later: why, in how many seconds, whether that counts as an attempt, and whether the pauses grow."""

    reason: str
    wait_s: float
    counted: bool = True
    grows: bool = False


@dataclass(slots=True, kw_only=True)
class Settlement:
    """decided  what each record is now: still CREATE, or UPDATE, SKIP or HOLD because its record was found
    waiting  Hull id → why it has to wait
    by_claim (claim, value) → Pipedrive ids, as far as the look-up saw
    beside   those of the batch that were not looked up, and how they stand
    """

    decided: list[Decision] = field(default_factory=list)
    waiting: dict[str, Wait] = field(default_factory=dict)
    by_claim: dict[Pair, list[int]] = field(default_factory=dict)
    beside: dict[str, Found] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Answers:
    """What the look-ups gave: (claim, value) → Pipedrive ids; the records that were read on the way, by id."""

    by_claim: dict[Pair, list[int]] = field(default_factory=dict)
    records: dict[int, dict[str, Any]] = field(default_factory=dict)


def look_before_creating(
    batch: ClaimedBatch, wired: Wired, plan: Plan, decisions: Iterable[Decision], *, now_s: int
) -> Settlement:
    """Settle every record that is to be made: found after all, somebody else's turn, or really to be made.

    decisions  those of the whole batch: what is to be made must not be a record that another one of the batch is already

    Raises: what the client raises; the intents stand then, and the next attempt begins with them.
    """
    settlement, entity = Settlement(), Entity(batch.entity)
    decided = list(decisions)
    creates = [each for each in decided if each.act is Act.CREATE]
    doubtful = [_with_claims(each, plan, entity) for each in decided if _is_doubtful(each)]
    if not creates and not doubtful:
        return settlement
    with transaction() as session:
        batches.hold(session, batch)
        intents = _intend(session, batch, creates, settlement)
        mirrored = mirror.current_since(session, batch.connector_key, batch.entity)
    mine = [each for each in creates if each.hull_id in intents] + doubtful
    intents |= {each.hull_id: _nothing_intended(each) for each in doubtful}
    if not mine:
        return settlement
    answers = (
        _search(wired, plan, mine, settlement)
        if mirrored is None
        else _list(batch, wired, plan, mine, intents, *mirrored)
    )
    settlement.by_claim = answers.by_claim
    mine = [each for each in mine if each.hull_id not in settlement.waiting]
    asked = {each.hull_id for each in mine}
    settlement.beside = {
        each.hull_id: found for each in decided if each.hull_id not in asked and (found := _is_known(each))
    }
    _decide(batch, wired, plan, mine, intents, answers, settlement, now_s=now_s)
    return settlement


def _is_doubtful(decision: Decision) -> bool:
    """It is matched by a claim that counts less than one of which our tables know nothing, and something would follow from that."""
    is_left_alone = decision.act is Act.SKIP and decision.write is None
    return decision.candidate.by_lower_claim and decision.act is not Act.CREATE and not is_left_alone


def _with_claims(decision: Decision, plan: Plan, entity: Entity) -> Decision:
    return replace(decision, claims=claims_of(decision.candidate.message[entity.hull], plan.settings, entity))


def _nothing_intended(decision: Decision) -> Intent:
    return Intent(decision.hull_id, "", None, None, is_new=True)


def _is_known(decision: Decision) -> Found | None:
    """How a record of the batch stands that is not looked up."""
    candidate = decision.candidate
    if candidate.standing is not Standing.KNOWN:
        return None
    return Found(standing=Standing.KNOWN, pipedrive_id=candidate.pipedrive_id, matched_by=candidate.matched_by)


def _intend(
    session: Session, batch: ClaimedBatch, creates: Sequence[Decision], settlement: Settlement
) -> dict[str, Intent]:
    """Hull id → the intent under which it goes on; the others are noted as waiting."""
    scope = (batch.connector_key, batch.entity)
    departed = [each.hull_id for each in creates if each.candidate.standing is Standing.DEPARTED]
    held = joining.part_from_departed(session, *scope, departed)
    intents = joining.intend(session, *scope, [each.hull_id for each in creates])
    joining.bequeath(session, *scope, held)
    for each in creates:
        intent = intents.get(each.hull_id)
        if intent is None or intent.pipedrive_id is not None:  # somebody joined it a moment ago
            settlement.waiting[each.hull_id] = Wait("joined_meanwhile", 0.5)
    spoken = [
        (claim, value, each.hull_id)
        for each in creates
        if each.hull_id not in settlement.waiting
        for claim, value in each.claims
    ]
    second = joining.speak_for(session, *scope, spoken)
    settlement.waiting |= {hull_id: Wait("spoken_for", SPOKEN_FOR_S) for hull_id in second}
    # Nothing was asked of Pipedrive for those who wait: they let go, so that no two wait for one another.
    joining.give_up(session, *scope, [hull_id for hull_id in second if intents[hull_id].is_new])
    return {hull_id: intent for hull_id, intent in intents.items() if hull_id not in settlement.waiting}


def _list(
    batch: ClaimedBatch,
    wired: Wired,
    plan: Plan,
    mine: Sequence[Decision],
    intents: Mapping[str, Intent],
    now: datetime,
    current_since: datetime,
) -> Answers:
    """Bring the mirror up to date by one list; what it shows counts before what the mirror held."""
    older = [intents[each.hull_id].made_at for each in mine if not intents[each.hull_id].is_new]
    since = min([current_since, *(made_at for made_at in older if made_at is not None)]) - OVERLAP
    listed = list_changed(wired.pipedrive, Entity(batch.entity), since, plan.incoming.include_fields)
    answers = Answers(records={each: record for record in listed if (each := id_of(record)) is not None})
    with transaction() as session:
        batches.hold(session, batch)
        keep_listed(session, batch, answers.records)
        mirror.note_listed(session, batch.connector_key, batch.entity, now)
        wanted = [pair for each in mine for pair in each.claims]
        held = known_as.find_records(session, batch.connector_key, batch.entity, wanted)
    for pair, ids in held.items():
        kept = [each for each in ids if each not in answers.records]
        if kept:
            answers.by_claim[pair] = kept
    for pipedrive_id, record in answers.records.items():
        for pair in claims_in(record, plan):
            answers.by_claim.setdefault(pair, []).append(pipedrive_id)
    return answers


def _search(wired: Wired, plan: Plan, mine: Sequence[Decision], settlement: Settlement) -> Answers:
    """Ask Pipedrive's search for every claim; where a claim's field cannot be searched, only the first full fetch can tell."""
    answers = Answers()
    entity = plan.incoming.entity
    for each in mine:
        for claim, value in each.claims:
            ids = search_claim(wired.pipedrive, entity, claim, plan.claim_field(claim), value)
            if ids is None:
                settlement.waiting[each.hull_id] = Wait("mirror_incomplete", INCOMPLETE_S, counted=False)
                break
            if ids:
                answers.by_claim[claim, value] = ids
                break
    ids = sorted({each for found in answers.by_claim.values() for each in found})
    read = read_by_ids(wired.pipedrive, entity, ids, plan.incoming.include_fields) if ids else []
    answers.records = {record_id: record for record in read if (record_id := id_of(record)) is not None}
    for pair, found in list(answers.by_claim.items()):
        # The index may lag, and says nothing of how it compares: only what the record itself says counts.
        true = [one for one in found if one in answers.records and pair in claims_in(answers.records[one], plan)]
        answers.by_claim[pair] = true
    return answers


def _decide(
    batch: ClaimedBatch,
    wired: Wired,
    plan: Plan,
    mine: Sequence[Decision],
    intents: Mapping[str, Intent],
    answers: Answers,
    settlement: Settlement,
    *,
    now_s: int,
) -> None:
    entity = Entity(batch.entity)
    ids = {each for found in answers.by_claim.values() for each in found} | set(answers.records)
    with transaction() as session:
        holders = joining.find_holders(session, batch.connector_key, entity, ids)
    met: dict[str, Found] = {}
    for each in mine:
        found = match(each.hull_id, each.claims, answers.by_claim, holders)
        intent = intents[each.hull_id]
        if found is None and not intent.is_new:
            found = _made_before(each, intent, answers, holders)
        if found is not None:
            met[each.hull_id] = _doubt_undelivered(each, found, answers, holders, plan)
        elif each.act is Act.CREATE:
            settlement.decided.append(each)
        else:  # whom our tables knew by a claim has let go of it a moment ago
            settlement.waiting[each.hull_id] = Wait("joined_meanwhile", SPOKEN_FOR_S)
    settle_with_hull(batch, wired, met)
    rivals = settlement.beside | met
    part_rivals(rivals)
    met = {hull_id: rivals[hull_id] for hull_id in met}
    snapshots = _records_of(batch, wired, plan, met, answers)
    settlement.decided += [
        _found(each, met[each.hull_id], snapshots, plan, entity, now_s=now_s) for each in mine if each.hull_id in met
    ]
    unresolved = [hull_id for hull_id, found in met.items() if found.standing is Standing.UNRESOLVED]
    if let_go := [hull_id for hull_id in unresolved if intents[hull_id].is_new]:
        with transaction() as session:
            batches.hold(session, batch)
            joining.give_up(session, batch.connector_key, entity, let_go)


def _doubt_undelivered(
    each: Decision, found: Found, answers: Answers, holders: Mapping[int, Holder], plan: Plan
) -> Found:
    """A record that our tables do not know goes to Hull under claims of its own: where these are another's, that one gets it."""
    record = answers.records.get(found.pipedrive_id or 0)
    if found.standing is not Standing.KNOWN or record is None or found.pipedrive_id in holders:
        return found
    return found if agrees(record, each.claims, plan) else unresolved(found.pipedrive_id or 0, found.matched_by)


def _made_before(each: Decision, intent: Intent, answers: Answers, holders: Mapping[int, Holder]) -> Found | None:
    """An earlier attempt may have made the record, which no claim tells apart: one that came up since and says just what was
    to be written is taken for it."""
    if intent.made_at is None or each.write is None:
        return None
    earliest = int((intent.made_at.astimezone(UTC) - OVERLAP).timestamp())
    alike = [
        pipedrive_id
        for pipedrive_id, record in answers.records.items()
        if pipedrive_id not in holders
        or (
            holders[pipedrive_id].hull_id is None
            and (epoch_seconds(record.get("add_time")) or 0) >= earliest
            and _says(record, each)
        )
    ]
    if len(alike) > 1:
        return Found(standing=Standing.AMBIGUOUS, others=tuple(alike), matched_by="created")
    return Found(standing=Standing.KNOWN, pipedrive_id=alike[0], matched_by="created") if alike else None


def _says(record: dict[str, Any], each: Decision) -> bool:
    write = each.write
    if write is None:
        return False
    flat = {**write.fields, **write.fields.get("custom_fields", {})}
    return all(not differs(kind, flat[key], value_of(record, key)) for key, kind in write.kinds.items())


def _records_of(
    batch: ClaimedBatch, wired: Wired, plan: Plan, met: Mapping[str, Found], answers: Answers
) -> dict[int, dict[str, Any]]:
    """The records that were found: as just read, else as last kept, else read now."""
    ids = {each.pipedrive_id for each in met.values() if each.pipedrive_id is not None}
    missing = sorted(ids - answers.records.keys())
    with transaction() as session:
        kept = read_snapshots(session, batch.connector_key, batch.entity, "pipedrive", [str(each) for each in missing])
    records = answers.records | {int(record_id): read_lenient(body) for record_id, body in kept.items()}
    unread = [each for each in missing if each not in records]
    read = read_by_ids(wired.pipedrive, Entity(batch.entity), unread, plan.incoming.include_fields) if unread else []
    return records | {record_id: record for record in read if (record_id := id_of(record)) is not None}


def _found(
    each: Decision, found: Found, snapshots: Mapping[int, dict[str, Any]], plan: Plan, entity: Entity, *, now_s: int
) -> Decision:
    """Decide anew, now that it is known whom the report is about."""
    candidate: Candidate = replace(
        each.candidate,
        standing=found.standing,
        pipedrive_id=found.pipedrive_id,
        matched_by=found.matched_by,
        by_lower_claim=False,
        others=found.others,
        snapshot=snapshots.get(found.pipedrive_id) if found.pipedrive_id is not None else None,
    )
    decision = deciding.decide(candidate, plan, entity, now_s=now_s)
    return replace(decision, trigger=each.trigger) if decision.act is Act.UPDATE else decision


def unresolved_ones(decisions: Iterable[Decision]) -> dict[str, Wait]:
    """Those that wait until Hull shows whose their record is."""
    wait = Wait("hull_id_unknown", UNRESOLVED_S, grows=True)
    return {each.hull_id: wait for each in decisions if each.act is Act.WAIT}


def is_met(decision: Decision) -> bool:
    """Whether it was matched just now, with nothing left to look up."""
    candidate = decision.candidate
    return candidate.standing is Standing.KNOWN and candidate.matched_by is not None and not candidate.by_lower_claim


def join_found(batch: ClaimedBatch, plan: Plan, decisions: Iterable[Decision], *, now_s: int) -> list[Decision]:
    """Join those that were matched, before anything is sent. Returns what becomes of those with whose record another worker was
    faster."""
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
    return [_taken(matched[each.pipedrive_id], plan, Entity(batch.entity), now_s=now_s) for each in lost]


def _taken(decision: Decision, plan: Plan, entity: Entity, *, now_s: int) -> Decision:
    candidate = decision.candidate
    others = (candidate.pipedrive_id,) if candidate.pipedrive_id is not None else ()
    taken = replace(candidate, standing=Standing.TAKEN, pipedrive_id=None, others=others, snapshot=None)
    return deciding.decide(taken, plan, entity, now_s=now_s)
