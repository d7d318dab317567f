"""What the stages would do with Hull's reports, from our tables alone: the one outgoing preview of plans and replays.

It uses the functions of an outgoing batch: the matching record, filters, the diff, unique values, and the order under
one claim. It makes no calls to Pipedrive or Hull: the preview reports that a call is needed, and does not guess.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy.orm import Session

from db import identifier_search, watermark
from pipeline.domain.kinds import Entity
from pipeline.domain.records import INDEX_INCOMPLETE, Act, Candidate, Decision, MatchStatus
from pipeline.sync.compiled import Plan
from pipeline.sync.outgoing.extract import NAMED_BY_HULL, Gathered, gather
from pipeline.sync.outgoing.resolve import Message, Pair, Resolution
from pipeline.sync.outgoing.transform import decide
from pipeline.sync.outgoing.write_checks import new_pairs, without_held
from pipeline.transform.hull_reports import pipedrive_ids_of

INDEX_FRESH: Final = timedelta(hours=1)
"""A record that Pipedrive has had for longer is in the index, while that is not older."""
INDEX_STALE: Final = "mirror_stale"
NEW_IDENTIFIERS: Final = "new_identifiers"
NO_SNAPSHOT: Final = "no_snapshot"
ORGANIZATION: Final = "org_id"
RECORD: Final = "pipedrive id"
"""Reserved like a claim: of two that match one record only the first is joined to it."""


class OutgoingEffect(StrEnum):
    """What becomes of one record."""

    CREATE = "create"
    LOOK_UP = "lookup"
    """Pipedrive must be queried first: the record is created, or matched with an existing one."""
    UPDATE = "update"
    LINK = "link"
    """Only its link to an Organization is written."""
    MATCH = "match"
    """It is joined to a record that agrees with it already: nothing is written."""
    SAME = "same"
    SKIP = "skip"
    FAIL = "error"
    """Kept as a Failure: the whole record, or a field of a record that otherwise stays the same."""
    UNKNOWN = "unknown"
    """Its record must be read first, or Hull must return its Hull id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingPreview:
    """reason and detail as in the event; `decision` as transform would decide."""

    effect: OutgoingEffect
    decision: Decision
    reason: str | None = None
    detail: str | None = None


@dataclass(slots=True)
class Reserved:
    """The first record under one claim, or for one Pipedrive record, among many previews in order.

    by    (claim, value) → the first Hull id
    news  those added since it was created
    """

    by: dict[Pair, str] = field(default_factory=dict)
    news: dict[Pair, str] = field(default_factory=dict)

    def look(self, pairs: Iterable[Pair]) -> None:
        """Find the existing first records under these claims, if they are known elsewhere."""

    def take(self, pairs: Iterable[Pair], hull_id: str) -> tuple[str, str] | None:
        """Reserve all of these, or none. Return (claim, first record) if another one has one of them."""
        mine = list(pairs)
        for pair in mine:
            first = self.by.get(pair, hull_id)
            if first != hull_id:
                return pair[0], first
        fresh = {pair: hull_id for pair in mine if pair not in self.by}
        self.by |= fresh
        self.news |= fresh
        return None


def outgoing_preview(
    session: Session,
    connector_key: int,
    entity: Entity,
    plan: Plan,
    messages: Mapping[str, Message],
    *,
    reserved: Reserved,
    are_identifiers_new: bool = False,
) -> dict[str, OutgoingPreview]:
    """Return for every report (Hull id → message) what the stages would do with it now, the lowest Hull id first.

    reserved             existing reservations; those of these reports are added
    are_identifiers_new  the settings have other identifiers than the index
    """
    messages = dict(sorted(messages.items()))
    gathered = gather(session, connector_key, entity, plan, messages)
    candidates = {each.hull_id: each for each in gathered.candidates()}
    now_s = int(time.time())
    decisions = {hull_id: _decide(each, gathered, plan, entity, now_s) for hull_id, each in candidates.items()}
    decisions |= _without_held(session, connector_key, entity, plan, decisions)
    blind = NEW_IDENTIFIERS if are_identifiers_new else _blind(session, connector_key, entity)
    asked = _named(messages, gathered, entity)
    reserved.look({pair for hull_id, each in decisions.items() for pair in _reserves(each, gathered.found[hull_id])})
    found = {}
    for hull_id, decision in decisions.items():
        resolution = gathered.found[hull_id]
        preview = _preview(decision)
        if preview.effect is not OutgoingEffect.SKIP:
            is_named = hull_id in asked.records or (hull_id in asked.links and preview.effect is OutgoingEffect.SAME)
            preview = _asked_first(preview, resolution, gathered, is_named=is_named, blind=blind)
            preview = _by_turns(preview, resolution, reserved, entity)
        found[hull_id] = preview
    return found


def _decide(candidate: Candidate, gathered: Gathered, plan: Plan, entity: Entity, now_s: int) -> Decision:
    """Decide as transform does. What a record without a snapshot holds is not known: it is decided as if it held nothing."""
    resolution = gathered.found[candidate.hull_id]
    if resolution.match_status is MatchStatus.KNOWN and candidate.snapshot is None:
        candidate = replace(candidate, match_status=MatchStatus.KNOWN)
    return decide(candidate, plan, entity, now_s=now_s)


def _without_held(
    session: Session, connector_key: int, entity: Entity, plan: Plan, decisions: Mapping[str, Decision]
) -> dict[str, Decision]:
    fresh = new_pairs(decisions.values(), plan)
    held = identifier_search.find_records(
        session, connector_key, entity, [pair for pairs in fresh.values() for pair in pairs]
    )
    return {each.hull_id: each for each in without_held(decisions.values(), fresh, held, plan)}


def _blind(session: Session, connector_key: int, entity: Entity) -> str | None:
    """Return why the index cannot say whether a record exists; None if it can."""
    index = watermark.get_index_freshness(session, connector_key, entity)
    if not index.is_reindexed:
        return NEW_IDENTIFIERS
    if not index.is_complete:
        return INDEX_INCOMPLETE
    return INDEX_STALE if index.now - index.changed_since > INDEX_FRESH else None


@dataclass(frozen=True, slots=True)
class _Named:
    """Reports that name records which our tables do not know: as their own, and as that of their Account."""

    records: frozenset[str]
    links: frozenset[str]


def _named(messages: Mapping[str, Message], gathered: Gathered, entity: Entity) -> _Named:
    strange, beside = set(gathered.strange), set(gathered.strange_organizations)
    if not (strange or beside):
        return _Named(frozenset(), frozenset())
    return _Named(
        records=frozenset(
            hull_id for hull_id, each in messages.items() if not strange.isdisjoint(pipedrive_ids_of(each[entity.hull]))
        ),
        links=frozenset(hull_id for hull_id, each in messages.items() if not beside.isdisjoint(_of_account(each))),
    )


def _of_account(message: Mapping[str, Any]) -> Iterator[int]:
    account = message.get("account")
    if isinstance(account, dict):
        yield from pipedrive_ids_of(account)[:1]


def _preview(decision: Decision) -> OutgoingPreview:  # noqa: PLR0911 - one line for each effect
    """The effect of a decision, as load would carry it out."""

    def to(effect: OutgoingEffect, reason: str | None, detail: str | None = None) -> OutgoingPreview:
        return OutgoingPreview(effect=effect, decision=decision, reason=reason, detail=detail or None)

    write = decision.write
    if decision.act is Act.HOLD:
        return to(OutgoingEffect.FAIL, decision.reason, decision.detail)
    if decision.act is Act.WAIT:
        return to(OutgoingEffect.UNKNOWN, decision.reason, decision.detail)
    if decision.act is Act.CREATE:
        return to(OutgoingEffect.CREATE, decision.trigger)
    if decision.act is Act.UPDATE:
        is_link = write is not None and write.fields.keys() == {ORGANIZATION}
        return to(OutgoingEffect.LINK if is_link else OutgoingEffect.UPDATE, decision.trigger)
    if write is None:
        return to(OutgoingEffect.SKIP, decision.reason, decision.detail)
    if decision.candidate.matched_by is not None:
        return to(OutgoingEffect.MATCH, decision.candidate.matched_by)
    if (problem := next(iter(decision.problems), None)) is not None:
        return to(OutgoingEffect.FAIL, problem.reason, f"{problem.field}: {problem.detail}")
    return to(OutgoingEffect.SAME, decision.reason, decision.detail)


def _asked_first(
    preview: OutgoingPreview, resolution: Resolution, gathered: Gathered, *, is_named: bool, blind: str | None
) -> OutgoingPreview:
    """Return the preview, or what has to be read before anything is decided."""
    decision = preview.decision
    if is_named:
        return replace(preview, effect=OutgoingEffect.LOOK_UP, reason=NAMED_BY_HULL, detail=None)
    if resolution.match_status is MatchStatus.TAKEN and resolution.matched_by == "report":
        return replace(preview, effect=OutgoingEffect.UNKNOWN, reason="hull_id_unknown", detail=None)
    if resolution.match_status is MatchStatus.KNOWN and resolution.pipedrive_id not in gathered.snapshots:
        return replace(preview, effect=OutgoingEffect.UNKNOWN, reason=NO_SNAPSHOT, detail=None)
    is_doubtful = decision.candidate.by_lower_claim and preview.effect is not OutgoingEffect.SAME
    if blind and (decision.act is Act.CREATE or is_doubtful):
        return replace(preview, effect=OutgoingEffect.LOOK_UP, reason=blind, detail=None)
    return preview


def _by_turns(preview: OutgoingPreview, resolution: Resolution, reserved: Reserved, entity: Entity) -> OutgoingPreview:
    """Of several with one claim or one record, the first has it; the others fail and an operator decides."""
    decision = preview.decision
    other = reserved.take(_reserves(decision, resolution), decision.hull_id)
    if other is None:
        return preview
    detail = f"its {other[0]} is that of the {entity.hull.capitalize()} {other[1]}, which comes first"
    return replace(preview, effect=OutgoingEffect.FAIL, reason="already_mapped", detail=detail)


def _reserves(decision: Decision, resolution: Resolution) -> list[Pair]:
    """Return what no other record may use: the claims of a record to be created, or the record that it has just been joined to."""
    if decision.act is Act.CREATE:
        return list(decision.claims)
    if resolution.match_status is MatchStatus.KNOWN and resolution.matched_by is not None:
        return [(RECORD, str(resolution.pipedrive_id))]
    return []
