"""What the outgoing stages would do with Hull's reports, without a call: the one outgoing preview of plans and replays.

It uses the functions of the stages. If they would need a call to Pipedrive or Hull, the preview reports that and does not guess.
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
from pipeline.sync.compiled import CompiledSettings
from pipeline.sync.outgoing.extract import NAMED_BY_HULL, Gathered, gather
from pipeline.sync.outgoing.resolve import Message, Pair, Resolution
from pipeline.sync.outgoing.transform import decide
from pipeline.sync.outgoing.write_checks import new_pairs, without_held
from pipeline.transform.hull_reports import pipedrive_ids_of

INDEX_FRESH: Final = timedelta(hours=1)
"""An index that was up to date within this time has every record that Pipedrive has had for longer."""
INDEX_STALE: Final = "index_stale"
NEW_IDENTIFIERS: Final = "new_identifiers"
NO_SNAPSHOT: Final = "no_snapshot"
ORGANIZATION: Final = "org_id"
RECORD: Final = "pipedrive id"
"""Reserved like a claim: only the first of two reports that match one record is mapped to it."""


class OutgoingEffect(StrEnum):
    """What becomes of one record."""

    CREATE = "create"
    LOOK_UP = "lookup"
    """Pipedrive must be queried first: then the record is created, or matched with an existing one."""
    UPDATE = "update"
    LINK = "link"
    """Only its link to an Organization is written."""
    MATCH = "match"
    """It is mapped to a record that has the same values: nothing is written."""
    SAME = "same"
    SKIP = "skip"
    FAIL = "error"
    """A Failure is stored: of the whole record, or of a field of a record that otherwise stays the same."""
    UNKNOWN = "unknown"
    """Its record must be read first, or Hull must return its Hull id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingPreview:
    """`decision` is that of transform; reason and detail are those of the event."""

    effect: OutgoingEffect
    decision: Decision
    reason: str | None = None
    detail: str | None = None


@dataclass(slots=True)
class Reserved:
    """The first report with each claim, or for each Pipedrive record, among many previews in order.

    by    (claim, value) → the first Hull id
    news  those that were added since this was created
    """

    by: dict[Pair, str] = field(default_factory=dict)
    news: dict[Pair, str] = field(default_factory=dict)

    def look(self, pairs: Iterable[Pair]) -> None:
        """Load existing reservations of these claims, if they are stored elsewhere."""

    def take(self, pairs: Iterable[Pair], hull_id: str) -> tuple[str, str] | None:
        """Reserve all of these, or none. Return (claim, other Hull id) if another report has reserved one of them."""
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
    plan: CompiledSettings,
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
    index_gap = NEW_IDENTIFIERS if are_identifiers_new else _index_gap(session, connector_key, entity)
    named = _named(messages, gathered, entity)
    reserved.look({pair for hull_id, each in decisions.items() for pair in _reserves(each, gathered.found[hull_id])})
    found = {}
    for hull_id, decision in decisions.items():
        resolution = gathered.found[hull_id]
        preview = _preview(decision)
        if preview.effect is not OutgoingEffect.SKIP:
            is_named = hull_id in named.records or (hull_id in named.links and preview.effect is OutgoingEffect.SAME)
            preview = _needs_call(preview, resolution, gathered, is_named=is_named, index_gap=index_gap)
            preview = _reserve(preview, resolution, reserved, entity)
        found[hull_id] = preview
    return found


def _decide(candidate: Candidate, gathered: Gathered, plan: CompiledSettings, entity: Entity, now_s: int) -> Decision:
    """Decide as transform does. A record without a snapshot is decided as if all its fields were empty."""
    resolution = gathered.found[candidate.hull_id]
    if resolution.match_status is MatchStatus.KNOWN and candidate.snapshot is None:
        # `candidates` calls such a record deleted, because extract has already tried to read it; a preview has not.
        candidate = replace(candidate, match_status=MatchStatus.KNOWN)
    return decide(candidate, plan, entity, now_s=now_s)


def _without_held(
    session: Session, connector_key: int, entity: Entity, plan: CompiledSettings, decisions: Mapping[str, Decision]
) -> dict[str, Decision]:
    fresh = new_pairs(decisions.values(), plan)
    held = identifier_search.find_records(
        session, connector_key, entity, [pair for pairs in fresh.values() for pair in pairs]
    )
    return {each.hull_id: each for each in without_held(decisions.values(), fresh, held, plan)}


def _index_gap(session: Session, connector_key: int, entity: Entity) -> str | None:
    """Return why the index cannot show whether a record exists; None if it can."""
    index = watermark.get_index_freshness(session, connector_key, entity)
    if not index.is_reindexed:
        return NEW_IDENTIFIERS
    if not index.is_complete:
        return INDEX_INCOMPLETE
    return INDEX_STALE if index.now - index.changed_since > INDEX_FRESH else None


@dataclass(frozen=True, slots=True)
class _Named:
    """Reports that name records which our tables do not know: their own (`records`), or their Account's (`links`)."""

    records: frozenset[str]
    links: frozenset[str]


def _named(messages: Mapping[str, Message], gathered: Gathered, entity: Entity) -> _Named:
    unknown, organizations = set(gathered.unknown), set(gathered.unknown_organizations)
    if not (unknown or organizations):
        return _Named(frozenset(), frozenset())
    return _Named(
        records=frozenset(
            hull_id for hull_id, each in messages.items() if not unknown.isdisjoint(pipedrive_ids_of(each[entity.hull]))
        ),
        links=frozenset(
            hull_id for hull_id, each in messages.items() if not organizations.isdisjoint(_of_account(each))
        ),
    )


def _of_account(message: Mapping[str, Any]) -> Iterator[int]:
    account = message.get("account")
    if isinstance(account, dict):
        yield from pipedrive_ids_of(account)[:1]


def _preview(decision: Decision) -> OutgoingPreview:  # noqa: PLR0911 - one line for each effect
    """Return the effect of a decision."""

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


def _needs_call(
    preview: OutgoingPreview, resolution: Resolution, gathered: Gathered, *, is_named: bool, index_gap: str | None
) -> OutgoingPreview:
    """Return the preview, or the effect that a call must come first."""
    decision = preview.decision
    if is_named:
        return replace(preview, effect=OutgoingEffect.LOOK_UP, reason=NAMED_BY_HULL, detail=None)
    if resolution.match_status is MatchStatus.TAKEN and resolution.matched_by == "report":
        return replace(preview, effect=OutgoingEffect.UNKNOWN, reason="hull_id_unknown", detail=None)
    if resolution.match_status is MatchStatus.KNOWN and resolution.pipedrive_id not in gathered.snapshots:
        return replace(preview, effect=OutgoingEffect.UNKNOWN, reason=NO_SNAPSHOT, detail=None)
    is_doubtful = decision.candidate.by_lower_claim and preview.effect is not OutgoingEffect.SAME
    if index_gap and (decision.act is Act.CREATE or is_doubtful):
        return replace(preview, effect=OutgoingEffect.LOOK_UP, reason=index_gap, detail=None)
    return preview


def _reserve(preview: OutgoingPreview, resolution: Resolution, reserved: Reserved, entity: Entity) -> OutgoingPreview:
    """Reserve the claims or the record; the preview fails if an earlier report has reserved them."""
    decision = preview.decision
    other = reserved.take(_reserves(decision, resolution), decision.hull_id)
    if other is None:
        return preview
    detail = f"its {other[0]} is that of the {entity.hull.capitalize()} {other[1]}, which comes first"
    return replace(preview, effect=OutgoingEffect.FAIL, reason="already_mapped", detail=detail)


def _reserves(decision: Decision, resolution: Resolution) -> list[Pair]:
    """Return what no other report may use: the claims of a record to be created, or the record that was just matched."""
    if decision.act is Act.CREATE:
        return list(decision.claims)
    if resolution.match_status is MatchStatus.KNOWN and resolution.matched_by is not None:
        return [(RECORD, str(resolution.pipedrive_id))]
    return []
