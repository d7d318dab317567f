"""Find the Pipedrive record of each of Hull's reports.

It is found by the id map, else by the report itself (`pipedrive/id`, `pipedrive:<id>`), else by a claim in the local index. If
several records match, a person decides. `extract` requests what our tables do not know.

Before a User or Account is mapped to a record without a known Hull id, that id is requested from Hull. Such a record may belong to
another User: it was sent to Hull with its own claims, and identifiers that name both Users would merge them for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from db import batch as batches
from db import identifier_search, joining
from db.batch import ClaimedBatch
from db.deletion import find_current
from db.joining import MappingState, RecordOwner
from db.session import transaction
from pipeline.domain.deletions import DELETED_STATES, MERGED
from pipeline.domain.kinds import Entity
from pipeline.domain.records import MatchStatus
from pipeline.domain.settings import ConnectorSettings
from pipeline.errors import Rejected, Skip
from pipeline.sync.changes.hull_ids import find_hull_ids, store_hull_ids
from pipeline.sync.compiled import CompiledSettings
from pipeline.transform.hull_reports import anonymous_pipedrive_ids, pipedrive_ids_of
from pipeline.transform.identifiers import claims_of
from pipeline.wiring import Wired

Pair = tuple[str, str]
"""(claim, value)"""
Message = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Resolution:
    """The match status of one Hull id.

    is_sure  Hull's own anonymous id names the record: no other User or Account can have it
    is_old   for UNRESOLVED: Hull would show the record's Hull id by now
    """

    match_status: MatchStatus = MatchStatus.UNKNOWN
    pipedrive_id: int | None = None
    matched_by: str | None = None
    by_lower_claim: bool = False
    is_sure: bool = False
    is_old: bool = False
    others: tuple[int, ...] = ()
    memory: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The records, by id, that Hull names, our tables do not know, and Pipedrive has just returned."""

    records: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    organizations: Collection[int] = ()
    """Of the Accounts of Users."""


def resolve(
    session: Session,
    connector_key: int,
    entity: Entity,
    plan: CompiledSettings,
    messages: Mapping[str, Message],
    shown: Shown,
) -> tuple[dict[str, Resolution], set[int]]:
    """Return (Hull id → resolution, the ids that Hull names and our tables do not know)."""
    rows = joining.find_joined(session, connector_key, entity, messages)
    merged = _follow(session, connector_key, entity, rows)
    found = {hull_id: _by_map(rows.get(hull_id), merged) for hull_id in messages}
    unknown = _by_report(session, connector_key, entity, messages, found, shown)
    _by_claims(session, connector_key, entity, plan.settings, messages, found)
    _add_memories(session, connector_key, entity, found)
    _check_undelivered(found, shown, entity, plan, messages)
    separate_rivals(found)
    return found, unknown


def _follow(
    session: Session, connector_key: int, entity: Entity, rows: Mapping[str, MappingState]
) -> dict[int, int | None]:
    """Return merged record → its survivor; None if that was deleted."""
    merged = [row.pipedrive_id for row in rows.values() if row.state == MERGED and row.pipedrive_id is not None]
    return find_current(session, connector_key, entity, merged) if merged else {}


def _by_map(row: MappingState | None, merged: Mapping[int, int | None]) -> Resolution:
    if row is None or row.pipedrive_id is None:  # no mapping, or a create intent
        return Resolution()
    if row.state == MERGED:
        survivor = merged.get(row.pipedrive_id)
        match_status = MatchStatus.DELETED if survivor is None else MatchStatus.KNOWN
        return Resolution(match_status=match_status, pipedrive_id=survivor)
    if row.state in DELETED_STATES:
        return Resolution(match_status=MatchStatus.DELETED)
    return Resolution(match_status=MatchStatus.KNOWN, pipedrive_id=row.pipedrive_id, memory=row.outgoing)


def _by_report(
    session: Session,
    connector_key: int,
    entity: Entity,
    messages: Mapping[str, Message],
    found: dict[str, Resolution],
    shown: Shown,
) -> set[int]:
    """Use the ids in the report if the id map has none, and find reports that name several existing records.

    Return the ids that our tables do not know.
    """
    reported = {hull_id: pipedrive_ids_of(message[entity.hull]) for hull_id, message in messages.items()}
    named = {each for ids in reported.values() for each in ids}
    living = find_current(session, connector_key, entity, named) | {each: each for each in shown.records}
    owners = joining.find_owners(session, connector_key, entity, {each for each in living.values() if each is not None})
    for hull_id, ids in reported.items():
        now = found[hull_id]
        alive = tuple(dict.fromkeys(one for each in ids if (one := living.get(each)) is not None))
        if now.match_status is MatchStatus.KNOWN and now.pipedrive_id is not None:
            alive = tuple(dict.fromkeys([now.pipedrive_id, *alive]))
        if len(alive) > 1:
            found[hull_id] = Resolution(match_status=MatchStatus.CONFLICT, others=alive)
        elif alive and now.match_status is MatchStatus.UNKNOWN:
            sure = {living.get(each) for each in anonymous_pipedrive_ids(messages[hull_id][entity.hull])}
            found[hull_id] = _resolve_match(hull_id, alive[0], "report", owners, is_sure=alive[0] in sure)
        elif now.match_status is MatchStatus.UNKNOWN and any(each in living for each in ids):
            now.match_status = MatchStatus.DELETED
    return named - living.keys()


def _resolve_match(
    hull_id: str, pipedrive_id: int, matched_by: str, owners: Mapping[int, RecordOwner], *, is_sure: bool = False
) -> Resolution:
    """Return the resolution for one matching record: it may be mapped already, or its Hull id may not be known yet."""
    owner = owners.get(pipedrive_id)
    if owner is not None and owner.hull_id not in (None, hull_id):
        return Resolution(match_status=MatchStatus.TAKEN, others=(pipedrive_id,), matched_by=matched_by)
    if owner is not None and owner.hull_id is None and owner.awaits_hull_id and not is_sure:
        return unresolved(pipedrive_id, matched_by, is_old=owner.is_old)
    return Resolution(match_status=MatchStatus.KNOWN, pipedrive_id=pipedrive_id, matched_by=matched_by, is_sure=is_sure)


def _by_claims(
    session: Session,
    connector_key: int,
    entity: Entity,
    settings: ConnectorSettings,
    messages: Mapping[str, Message],
    found: dict[str, Resolution],
) -> None:
    """Resolve reports by their claims in the local index; the first claim with a match decides."""
    unknown = [hull_id for hull_id, each in found.items() if each.match_status is MatchStatus.UNKNOWN]
    claims = {hull_id: claims_of(messages[hull_id][entity.hull], settings, entity) for hull_id in unknown}
    answers = identifier_search.find_records(
        session, connector_key, entity, [pair for pairs in claims.values() for pair in pairs]
    )
    owners = joining.find_owners(session, connector_key, entity, {each for ids in answers.values() for each in ids})
    for hull_id in unknown:
        met = match(hull_id, claims[hull_id], answers, owners)
        if met is not None:
            found[hull_id] = met


def _add_memories(session: Session, connector_key: int, entity: Entity, found: Mapping[str, Resolution]) -> None:
    """Add the stored memory of earlier writes for records that were just matched."""
    late = {each.pipedrive_id: each for each in found.values() if each.pipedrive_id is not None and each.memory is None}
    for pipedrive_id, memory in joining.find_memories(session, connector_key, entity, late).items():
        late[pipedrive_id].memory = memory


def _check_undelivered(
    found: dict[str, Resolution], shown: Shown, entity: Entity, plan: CompiledSettings, messages: Mapping[str, Message]
) -> None:
    """Mark matches as unresolved if the record, which Hull has not received yet, may belong to another User by its claims."""
    for hull_id, each in found.items():
        record = shown.records.get(each.pipedrive_id or 0)
        if each.match_status is not MatchStatus.KNOWN or each.is_sure or each.matched_by is None or record is None:
            continue
        if not agrees(record, claims_of(messages[hull_id][entity.hull], plan.settings, entity), plan):
            found[hull_id] = unresolved(each.pipedrive_id or 0, each.matched_by)


def resolve_with_hull(batch: ClaimedBatch, wired: Wired, found: dict[str, Resolution]) -> None:
    """Request the Hull ids of doubtful records, store them, and resolve; what Hull does not show yet stays unresolved.

    Raises: the client's errors.
    """
    doubtful = in_doubt(found)
    if not doubtful:
        return
    answers = find_hull_ids(wired, batch.entity, doubtful)
    with transaction() as session:
        batches.hold(session, batch)
        store_hull_ids(session, batch.connector_key, batch.entity, answers)
    for hull_id, each in found.items():
        if _is_doubtful(each):
            _apply_answer(hull_id, each, answers)
    separate_rivals(found)


def _is_doubtful(each: Resolution) -> bool:
    return each.match_status is MatchStatus.UNRESOLVED or (
        each.match_status is MatchStatus.TAKEN and each.matched_by == "report"
    )


def _apply_answer(hull_id: str, each: Resolution, answers: Mapping[int, str]) -> None:
    (pipedrive_id,) = each.others
    holder = answers.get(pipedrive_id)
    if holder == hull_id or (holder is None and each.match_status is MatchStatus.UNRESOLVED and each.is_old):
        each.match_status, each.pipedrive_id, each.others = MatchStatus.KNOWN, pipedrive_id, ()
    elif holder is not None:
        each.match_status, each.pipedrive_id = MatchStatus.TAKEN, None


def claims_in(record: dict[str, Any], plan: CompiledSettings) -> list[Pair]:
    """Return the claims and aliases of a record; none if it cannot be read."""
    try:
        read = plan.incoming.read(record)
    except (Rejected, Skip):
        return []
    return [*read.claims.items(), *read.aliases]


def agrees(record: dict[str, Any], claims: Iterable[Pair], plan: CompiledSettings) -> bool:
    """Return whether all claims of the record, under which Hull receives it, are among these claims of a User or Account."""
    try:
        read = plan.incoming.read(record)
    except (Rejected, Skip):
        return True  # Hull does not receive it at all
    return set(read.claims.items()) <= set(claims)


def unresolved(pipedrive_id: int, matched_by: str | None, *, is_old: bool = False) -> Resolution:
    """Return the resolution that waits for the record's Hull id, so that two Users are not merged."""
    return Resolution(
        match_status=MatchStatus.UNRESOLVED,
        pipedrive_id=pipedrive_id,
        others=(pipedrive_id,),
        matched_by=matched_by,
        is_old=is_old,
    )


def separate_rivals(found: dict[str, Resolution]) -> None:
    """Give a record that several reports of a batch match to one of them; the others need a person.

    Mapped ones come first, then those with Hull's own id, then by order in the batch.
    """
    rivals: dict[int, list[str]] = {}
    for hull_id, each in found.items():
        if each.match_status is MatchStatus.KNOWN and each.pipedrive_id is not None:
            rivals.setdefault(each.pipedrive_id, []).append(hull_id)
    for pipedrive_id, hull_ids in rivals.items():
        strongest = sorted(hull_ids, key=lambda hull_id: _strength(found[hull_id]))
        for hull_id in strongest[1:]:
            if (matched_by := found[hull_id].matched_by) is not None:
                found[hull_id] = Resolution(
                    match_status=MatchStatus.TAKEN, others=(pipedrive_id,), matched_by=matched_by
                )


def _strength(found: Resolution) -> int:
    if found.matched_by is None:
        return 0
    return (1 if found.is_sure else 2) if found.matched_by == "report" else 3


def match(
    hull_id: str,
    claims: Iterable[tuple[str, str]],
    answers: Mapping[tuple[str, str], list[int]],
    owners: Mapping[int, RecordOwner],
) -> Resolution | None:
    """Return the resolution by the first claim with a match: one record is used, several need a person.

    answers  (claim, value) → Pipedrive ids
    owners   Pipedrive id → its row in the id map
    """
    for place, (claim, value) in enumerate(claims):
        ids = answers.get((claim, value))
        if ids:
            met = _resolve_match(hull_id, ids[0], claim, owners)
            if len(ids) > 1:
                met = Resolution(match_status=MatchStatus.AMBIGUOUS, others=tuple(ids), matched_by=claim)
            met.by_lower_claim = place > 0
            return met
    return None


def in_doubt(found: Mapping[str, Resolution]) -> list[int]:
    """Return the records with a Hull id that only Hull knows: unresolved ones, and those that two Hull ids claim."""
    return sorted({other for each in found.values() if _is_doubtful(each) for other in each.others})


NOTHING_SHOWN = Shown()
