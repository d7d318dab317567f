"""What our tables know about the records of Hull's reports.

Mapped by the id map, else by the report itself (`pipedrive/id`, `pipedrive:<id>`), else by a claim in the local index.
If more than one record matches, none is chosen: a person decides. What our tables do not know is returned, and
`extract` requests it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from db import change as changes
from db import id_mapping, identifier_search, joining, sync_event
from db.batch import ClaimedBatch
from db.departure import find_living
from db.joining import MappingState, RecordOwner
from db.snapshot import read_snapshots
from pipeline.domain.departures import DEPARTED, MERGED
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Entity
from pipeline.domain.outgoing import Candidate, Delivered, MatchStatus, Memory
from pipeline.domain.settings import ConnectorSettings
from pipeline.sync.compiled import Plan
from pipeline.sync.outgoing.known_by import agrees
from pipeline.transform.conflicts import ROUND_S
from pipeline.transform.hull_reports import anonymous_pipedrive_ids, pipedrive_ids_of
from pipeline.transform.identifiers import claims_of

Message = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Resolution:
    """The match status of one Hull id, while it is computed.

    is_sure  Hull's own anonymous id names the record: no other User or Account can have it
    is_old   of UNRESOLVED: Hull would show the record's id by now
    """

    standing: MatchStatus = MatchStatus.UNKNOWN
    pipedrive_id: int | None = None
    matched_by: str | None = None
    by_lower_claim: bool = False
    is_sure: bool = False
    is_old: bool = False
    others: tuple[int, ...] = ()
    memory: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What Pipedrive has just shown of the records that Hull names and our tables do not know, by id."""

    records: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    organizations: Collection[int] = ()
    """Of the Accounts of Users."""


NOTHING_SHOWN = Shown()


@dataclass(slots=True, kw_only=True)
class Gathered:
    """What is known of the records that some messages are about, by Hull id or by Pipedrive id.

    strange                records that Hull names and our tables do not know
    strange_organizations  the same of the Accounts of Users
    """

    messages: Mapping[str, Message]
    found: dict[str, Resolution]
    snapshots: dict[int, dict[str, Any]]
    links: dict[str, Link]
    told: dict[int, tuple[Delivered, ...]]
    delivered: dict[int, dict[str, Any]]
    strange: Collection[int] = ()
    strange_organizations: Collection[int] = ()

    @property
    def missing(self) -> list[int]:
        """Records that are known by their id alone."""
        known = {each.pipedrive_id for each in self.found.values() if each.standing is MatchStatus.KNOWN}
        return sorted(each for each in known if each is not None and each not in self.snapshots)

    def candidates(self) -> list[Candidate]:
        return [
            _candidate(
                hull_id,
                message,
                self.found[hull_id],
                self.snapshots,
                self.links.get(hull_id),
                self.told,
                self.delivered,
            )
            for hull_id, message in self.messages.items()
        ]


def gather(
    session: Session,
    connector_key: int,
    entity: Entity,
    plan: Plan,
    messages: Mapping[str, Message],
    shown: Shown = NOTHING_SHOWN,
) -> Gathered:
    """Bring together what our tables know of the records that these messages are about (Hull id → message)."""
    found, strange = _find(session, connector_key, entity, plan.settings, messages, shown)
    _doubt_undelivered(found, shown, entity, plan, messages)
    part_rivals(found)
    links, strange_organizations = _links(session, connector_key, entity, plan, messages, shown)
    return Gathered(
        messages=messages,
        found=found,
        snapshots=_snapshots(session, connector_key, entity, found) | dict(shown.records),
        links=links,
        told=_told(session, connector_key, entity, plan, found),
        delivered=_delivered(session, connector_key, entity, plan, found),
        strange=strange,
        strange_organizations=strange_organizations,
    )


def messages_of(session: Session, batch: ClaimedBatch) -> dict[str, Message]:
    """Return Hull id → the report to send: that of the change, or the last stored one. A change without either is empty."""
    mine = changes.changes_of(session, batch.id)
    told = {change.record_id: bytes(change.payload) for change in mine if change.payload is not None}
    silent = [change.record_id for change in mine if change.payload is None]
    kept = read_snapshots(session, batch.connector_key, batch.entity, "hull", silent) if silent else {}
    return {hull_id: read_lenient(body) for hull_id, body in (told | kept).items()}


def _find(
    session: Session,
    connector_key: int,
    entity: Entity,
    settings: ConnectorSettings,
    messages: Mapping[str, Message],
    shown: Shown,
) -> tuple[dict[str, Resolution], set[int]]:
    """Return (Hull id → match status, the ids in Hull that our tables do not know)."""
    rows = joining.find_joined(session, connector_key, entity, messages)
    merged = _follow(session, connector_key, entity, rows)
    found = {hull_id: _by_map(rows.get(hull_id), merged) for hull_id in messages}
    strange = _by_report(session, connector_key, entity, messages, found, shown)
    _by_claims(session, connector_key, entity, settings, messages, found)
    _recall(session, connector_key, entity, found)
    return found, strange


def _follow(
    session: Session, connector_key: int, entity: Entity, rows: Mapping[str, MappingState]
) -> dict[int, int | None]:
    """Return merged record → its existing survivor, None if that was deleted."""
    merged = [row.pipedrive_id for row in rows.values() if row.state == MERGED and row.pipedrive_id is not None]
    return find_living(session, connector_key, entity, merged) if merged else {}


def _by_map(row: MappingState | None, merged: Mapping[int, int | None]) -> Resolution:
    if row is None or row.pipedrive_id is None:  # no record, or one about to be created
        return Resolution()
    if row.state == MERGED:
        survivor = merged.get(row.pipedrive_id)
        standing = MatchStatus.DEPARTED if survivor is None else MatchStatus.KNOWN
        return Resolution(standing=standing, pipedrive_id=survivor)
    if row.state in DEPARTED:
        return Resolution(standing=MatchStatus.DEPARTED)
    return Resolution(standing=MatchStatus.KNOWN, pipedrive_id=row.pipedrive_id, memory=row.outgoing)


def _by_report(
    session: Session,
    connector_key: int,
    entity: Entity,
    messages: Mapping[str, Message],
    found: dict[str, Resolution],
    shown: Shown,
) -> set[int]:
    """Use Hull's own ids if the id map has nothing, and if Hull names more than one existing record.

    Return the ids that our tables do not know.
    """
    said = {hull_id: pipedrive_ids_of(message[entity.hull]) for hull_id, message in messages.items()}
    named = {each for ids in said.values() for each in ids}
    living = find_living(session, connector_key, entity, named) | {each: each for each in shown.records}
    owners = joining.find_owners(session, connector_key, entity, {each for each in living.values() if each is not None})
    for hull_id, ids in said.items():
        now = found[hull_id]
        alive = tuple(dict.fromkeys(one for each in ids if (one := living.get(each)) is not None))
        if now.standing is MatchStatus.KNOWN and now.pipedrive_id is not None:
            alive = tuple(dict.fromkeys([now.pipedrive_id, *alive]))
        if len(alive) > 1:
            found[hull_id] = Resolution(standing=MatchStatus.CONFLICT, others=alive)
        elif alive and now.standing is MatchStatus.UNKNOWN:
            sure = {living.get(each) for each in anonymous_pipedrive_ids(messages[hull_id][entity.hull])}
            found[hull_id] = _met(hull_id, alive[0], "report", owners, is_sure=alive[0] in sure)
        elif now.standing is MatchStatus.UNKNOWN and any(each in living for each in ids):
            now.standing = MatchStatus.DEPARTED
    return named - living.keys()


def _met(
    hull_id: str, pipedrive_id: int, matched_by: str, owners: Mapping[int, RecordOwner], *, is_sure: bool = False
) -> Resolution:
    """One record matches; it may be mapped to another one already, or belong to one that Hull has not shown yet."""
    owner = owners.get(pipedrive_id)
    if owner is not None and owner.hull_id not in (None, hull_id):
        return Resolution(standing=MatchStatus.TAKEN, others=(pipedrive_id,), matched_by=matched_by)
    if owner is not None and owner.hull_id is None and owner.awaits_hull_id and not is_sure:
        return unresolved(pipedrive_id, matched_by, is_old=owner.is_old)
    return Resolution(standing=MatchStatus.KNOWN, pipedrive_id=pipedrive_id, matched_by=matched_by, is_sure=is_sure)


def unresolved(pipedrive_id: int, matched_by: str | None, *, is_old: bool = False) -> Resolution:
    """Return records with a Hull id that Hull must confirm before two Hull ids could be merged."""
    return Resolution(
        standing=MatchStatus.UNRESOLVED,
        pipedrive_id=pipedrive_id,
        others=(pipedrive_id,),
        matched_by=matched_by,
        is_old=is_old,
    )


def _doubt_undelivered(
    found: dict[str, Resolution], shown: Shown, entity: Entity, plan: Plan, messages: Mapping[str, Message]
) -> None:
    """A record that was never sent to Hull goes there with its own claims: if they belong to another one, that one gets it."""
    for hull_id, each in found.items():
        record = shown.records.get(each.pipedrive_id or 0)
        if each.standing is not MatchStatus.KNOWN or each.is_sure or each.matched_by is None or record is None:
            continue
        if not agrees(record, claims_of(messages[hull_id][entity.hull], plan.settings, entity), plan):
            found[hull_id] = unresolved(each.pipedrive_id or 0, each.matched_by)


def part_rivals(found: dict[str, Resolution]) -> None:
    """Two reports of one batch match one record: the first gets it, the others need a person.

    Mapped ones come first, then those with Hull's own id, then by order in the batch.
    """
    rivals: dict[int, list[str]] = {}
    for hull_id, each in found.items():
        if each.standing is MatchStatus.KNOWN and each.pipedrive_id is not None:
            rivals.setdefault(each.pipedrive_id, []).append(hull_id)
    for pipedrive_id, hull_ids in rivals.items():
        strongest = sorted(hull_ids, key=lambda hull_id: _strength(found[hull_id]))
        for hull_id in strongest[1:]:
            if (matched_by := found[hull_id].matched_by) is not None:
                found[hull_id] = Resolution(standing=MatchStatus.TAKEN, others=(pipedrive_id,), matched_by=matched_by)


def _strength(found: Resolution) -> int:
    if found.matched_by is None:
        return 0
    return (1 if found.is_sure else 2) if found.matched_by == "report" else 3


def _by_claims(
    session: Session,
    connector_key: int,
    entity: Entity,
    settings: ConnectorSettings,
    messages: Mapping[str, Message],
    found: dict[str, Resolution],
) -> None:
    """Find unmatched reports by claims in the local index; the first claim with a match decides."""
    unknown = [hull_id for hull_id, each in found.items() if each.standing is MatchStatus.UNKNOWN]
    claims = {hull_id: claims_of(messages[hull_id][entity.hull], settings, entity) for hull_id in unknown}
    answers = identifier_search.find_records(
        session, connector_key, entity, [pair for pairs in claims.values() for pair in pairs]
    )
    owners = joining.find_owners(session, connector_key, entity, {each for ids in answers.values() for each in ids})
    for hull_id in unknown:
        met = match(hull_id, claims[hull_id], answers, owners)
        if met is not None:
            found[hull_id] = met


def match(
    hull_id: str,
    claims: Iterable[tuple[str, str]],
    answers: Mapping[tuple[str, str], list[int]],
    owners: Mapping[int, RecordOwner],
) -> Resolution | None:
    """Choose by the first claim with a match: one record is used, several need a person.

    answers  (claim, value) → Pipedrive ids
    owners   Pipedrive id → its Hull id, if the id map has one
    """
    for place, (claim, value) in enumerate(claims):
        ids = answers.get((claim, value))
        if ids:
            met = _met(hull_id, ids[0], claim, owners)
            if len(ids) > 1:
                met = Resolution(standing=MatchStatus.AMBIGUOUS, others=tuple(ids), matched_by=claim)
            met.by_lower_claim = place > 0
            return met
    return None


def _recall(session: Session, connector_key: int, entity: Entity, found: Mapping[str, Resolution]) -> None:
    """What is remembered of the writes of those that were joined just now."""
    late = {each.pipedrive_id: each for each in found.values() if each.pipedrive_id is not None and each.memory is None}
    for pipedrive_id, memory in joining.find_memories(session, connector_key, entity, late).items():
        late[pipedrive_id].memory = memory


def _snapshots(
    session: Session, connector_key: int, entity: Entity, found: Mapping[str, Resolution]
) -> dict[int, dict[str, Any]]:
    ids = [str(each.pipedrive_id) for each in found.values() if each.pipedrive_id is not None]
    kept = read_snapshots(session, connector_key, entity, "pipedrive", ids)
    return {int(record_id): read_lenient(body) for record_id, body in kept.items()}


@dataclass(frozen=True, slots=True)
class Link:
    """The Organization a Person is to be linked to, or the Account that has none yet."""

    organization_id: int | None
    awaits: str | None


def _links(
    session: Session, connector_key: int, entity: Entity, plan: Plan, messages: Mapping[str, Message], shown: Shown
) -> tuple[dict[str, Link], set[int]]:
    """Return (User → its link, if the settings link Users and Hull has an Account; the linked Organizations that our
    tables do not know)."""
    if entity is not Entity.PERSON or not plan.settings.link_users_in_service:
        return {}, set()
    accounts = {hull_id: _account(message) for hull_id, message in messages.items()}
    ids = {account["id"] for account in accounts.values() if account}
    mapped = id_mapping.find_by_hull_ids(session, connector_key, Entity.ORGANIZATION, sorted(ids))
    said = {each for account in accounts.values() for each in pipedrive_ids_of(account)[:1]}
    living = find_living(session, connector_key, Entity.ORGANIZATION, said) | {
        each: each for each in shown.organizations
    }
    links = {}
    for hull_id, account in accounts.items():
        if account:
            told = next((living.get(each) for each in pipedrive_ids_of(account)[:1]), None)
            organization_id = mapped.get(account["id"]) or told
            links[hull_id] = Link(organization_id, None if organization_id else account["id"])
    return links, said - living.keys()


def _account(message: Message) -> dict[str, Any]:
    account = message.get("account")
    has_id = isinstance(account, dict) and isinstance(account.get("id"), str) and account["id"]
    return account if has_id and isinstance(account, dict) else {}


def _told(
    session: Session, connector_key: int, entity: Entity, plan: Plan, found: Mapping[str, Resolution]
) -> dict[int, tuple[Delivered, ...]]:
    """Return record → recent deliveries to Hull of the attributes mapped in both directions."""
    known = [each.pipedrive_id for each in found.values() if each.pipedrive_id is not None]
    if not plan.shared or not known:
        return {}
    told: dict[int, tuple[Delivered, ...]] = {}
    for row in sync_event.told_lately(session, connector_key, entity, known, within_s=ROUND_S):
        values = {name: value for name, value in read_lenient(row.after).items() if name in plan.shared}
        one = Delivered(at=row.at_s, values=values)
        told[row.pipedrive_id] = (*told.get(row.pipedrive_id, ()), one)
    return told


def _delivered(
    session: Session, connector_key: int, entity: Entity, plan: Plan, found: Mapping[str, Resolution]
) -> dict[int, dict[str, Any]]:
    """Return record → the last delivery to Hull of the attributes mapped in both directions."""
    ids = [each.pipedrive_id for each in found.values() if each.pipedrive_id is not None]
    known = id_mapping.known(session, connector_key, entity, ids) if plan.shared and ids else {}
    return {
        each.pipedrive_id: {name: value for name, value in read_lenient(each.delivered).items() if name in plan.shared}
        for each in known.values()
        if each.delivered
    }


def _candidate(
    hull_id: str,
    message: Message,
    found: Resolution,
    snapshots: Mapping[int, dict[str, Any]],
    link: Link | None,
    told: Mapping[int, tuple[Delivered, ...]],
    delivered: Mapping[int, dict[str, Any]],
) -> Candidate:
    snapshot = snapshots.get(found.pipedrive_id) if found.pipedrive_id is not None else None
    standing = found.standing
    if standing is MatchStatus.KNOWN and snapshot is None:
        standing = MatchStatus.DEPARTED  # it was requested by its id, and Pipedrive does not show it
    return Candidate(
        hull_id=hull_id,
        message=message,
        standing=standing,
        pipedrive_id=found.pipedrive_id,
        matched_by=found.matched_by,
        by_lower_claim=found.by_lower_claim,
        others=found.others,
        snapshot=snapshot,
        organization_id=link.organization_id if link else None,
        awaits=link.awaits if link else None,
        memory=Memory.of(read_lenient(found.memory) if found.memory else None),
        told=told.get(found.pipedrive_id or 0, ()),
        delivered=delivered.get(found.pipedrive_id or 0, {}),
    )
