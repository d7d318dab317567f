"""Extract of an outgoing batch: each report, with everything known of the Pipedrive record that it is mapped to.

What our tables do not know is requested before any decision: from Pipedrive, records that Hull names and we have never seen;
from Hull, the Hull id of a record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import change_writer, id_mapping, joining, sync_event
from db.batch import ClaimedBatch
from db.deletion import find_current
from db.id_mapping_writer import add_deleted
from db.joining import Join
from db.session import transaction
from db.snapshot import read_snapshots
from pipeline import wiring
from pipeline.domain.json_text import read_lenient, write_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.records import Candidate, Delivered, MatchStatus, Memory
from pipeline.extract import id_of, read_by_ids
from pipeline.sync.changes import outgoing_changes
from pipeline.sync.compiled import CompiledSettings, compiled_for
from pipeline.sync.incoming.stale_reads import is_shown_deleted
from pipeline.sync.outgoing.resolve import (
    NOTHING_SHOWN,
    Message,
    Resolution,
    Shown,
    in_doubt,
    resolve,
    resolve_with_hull,
)
from pipeline.sync.staging import pack_page, unpack_page
from pipeline.transform.conflicts import ROUND_S
from pipeline.transform.hull_reports import pipedrive_ids_of
from pipeline.wiring import Wired

NAMED_BY_HULL = "named_by_hull"
"""Cause of a change that reads a record which Hull names and we have never seen."""


def extract_batch(batch: ClaimedBatch) -> None:
    """Stage what is known of every record that the batch's changes name."""
    candidates = find_candidates(batch)
    with transaction() as session:
        batches.hold(session, batch)
        data = write_lenient({"data": candidates})
        batches.pass_to_transform(session, batch.id, pack_page(data), len(candidates))


def candidates_of(batch: ClaimedBatch) -> list[Candidate]:
    """Return what extract staged, or what is known now if that may be outdated."""
    if batch.extracted is None or batch.is_outdated:
        return find_candidates(batch)
    return [Candidate.of(row) for row in unpack_page(bytes(batch.extracted))[0]]


def find_candidates(batch: ClaimedBatch) -> list[Candidate]:
    """Return what is known of every record that the batch's changes name, by their newest reports."""
    with transaction() as session:
        plan = compiled_for(session, batch.connector_key, batch.entity)
        messages = messages_of(session, batch)
        gathered = gather(session, batch.connector_key, batch.entity, plan, messages)
    gathered = _request_unknown(batch, plan, messages, gathered)
    _map_named_records(batch, gathered.found)
    return gathered.candidates()


def _request_unknown(
    batch: ClaimedBatch, plan: CompiledSettings, messages: Mapping[str, Message], gathered: Gathered
) -> Gathered:
    """Request what our tables do not know; make no call if they know everything."""
    has_unknown = bool(gathered.unknown or gathered.unknown_organizations)
    if not (has_unknown or in_doubt(gathered.found) or gathered.without_snapshot):
        return gathered
    wired = wiring.connect(batch.connector_key, lane=batch.queue)
    if has_unknown:
        gathered = _read_unknown(batch, wired, plan, messages, gathered)
    resolve_with_hull(batch, wired, gathered.found)
    if ids := gathered.without_snapshot:
        gathered.snapshots |= _by_id(read_by_ids(wired.pipedrive, batch.entity, ids, plan.incoming.include_fields))
    return gathered


def _read_unknown(
    batch: ClaimedBatch, wired: Wired, plan: CompiledSettings, messages: Mapping[str, Message], gathered: Gathered
) -> Gathered:
    """Read the records that Hull names and our tables do not know, and gather again.

    The ones that Pipedrive returns are also synchronized to Hull; the others are stored as deleted.
    """
    ids, organization_ids = sorted(gathered.unknown), sorted(gathered.unknown_organizations)
    records = _by_id(read_by_ids(wired.pipedrive, batch.entity, ids, plan.incoming.include_fields)) if ids else {}
    organizations = (
        _by_id(read_by_ids(wired.pipedrive, Entity.ORGANIZATION, organization_ids, ())) if organization_ids else {}
    )
    shown = Shown(
        records={each: record for each, record in records.items() if not is_shown_deleted(record)},
        organizations={each for each, record in organizations.items() if not is_shown_deleted(record)},
    )
    with transaction() as session:
        batches.hold(session, batch)
        _store_reading(session, batch, batch.entity, set(ids), set(shown.records))
        _store_reading(session, batch, Entity.ORGANIZATION, set(organization_ids), set(shown.organizations))
        return gather(session, batch.connector_key, batch.entity, plan, messages, shown)


def _by_id(records: list[Any]) -> dict[int, dict[str, Any]]:
    return {record_id: record for record in records if (record_id := id_of(record)) is not None}


def _store_reading(session: Session, batch: ClaimedBatch, entity: Entity, requested: set[int], shown: set[int]) -> None:
    add_deleted(session, batch.connector_key, entity, requested - shown)
    scope = (batch.connector_key, Direction.INCOMING, entity)
    change_writer.write_changes(session, *scope, map(str, shown), cause=NAMED_BY_HULL, keeps_cause=True)


def _map_named_records(batch: ClaimedBatch, found: Mapping[str, Resolution]) -> None:
    """Store the mapping of records that Hull names, whether anything is sent or not."""
    joins = [
        Join(hull_id=hull_id, pipedrive_id=each.pipedrive_id, matched_by="report")
        for hull_id, each in found.items()
        if each.matched_by == "report" and each.match_status is MatchStatus.KNOWN and each.pipedrive_id is not None
    ]
    if not joins:
        return
    with transaction() as session:
        batches.hold(session, batch)
        joining.join(session, batch.connector_key, batch.entity, joins)
        if batch.entity is Entity.ORGANIZATION:
            outgoing_changes.send_waiting_users(session, batch.connector_key, [each.hull_id for each in joins])


def gather(
    session: Session,
    connector_key: int,
    entity: Entity,
    plan: CompiledSettings,
    messages: Mapping[str, Message],
    shown: Shown = NOTHING_SHOWN,
) -> Gathered:
    """Return what our tables know of the records that these messages (Hull id → message) are about."""
    found, unknown = resolve(session, connector_key, entity, plan, messages, shown)
    links, unknown_organizations = _links(session, connector_key, entity, plan, messages, shown)
    ids = [each.pipedrive_id for each in found.values() if each.pipedrive_id is not None]
    kept = read_snapshots(session, connector_key, entity, "pipedrive", [str(each) for each in ids])
    snapshots = {int(record_id): read_lenient(body) for record_id, body in kept.items()}
    return Gathered(
        messages=messages,
        found=found,
        snapshots=snapshots | dict(shown.records),
        links=links,
        recent_deliveries=_recent_deliveries(session, connector_key, entity, plan, ids),
        delivered=_delivered(session, connector_key, entity, plan, ids),
        unknown=unknown,
        unknown_organizations=unknown_organizations,
    )


def _links(
    session: Session,
    connector_key: int,
    entity: Entity,
    plan: CompiledSettings,
    messages: Mapping[str, Message],
    shown: Shown,
) -> tuple[dict[str, Link], set[int]]:
    """Return (User → the link to its Account's Organization, the named Organizations that our tables do not know)."""
    if entity is not Entity.PERSON or not plan.settings.link_users_in_service:
        return {}, set()
    accounts = {hull_id: account for hull_id, message in messages.items() if (account := _account(message))}
    ids = {account["id"] for account in accounts.values()}
    mapped = id_mapping.find_by_hull_ids(session, connector_key, Entity.ORGANIZATION, sorted(ids))
    named = {each for account in accounts.values() for each in pipedrive_ids_of(account)[:1]}
    living = find_current(session, connector_key, Entity.ORGANIZATION, named) | {
        each: each for each in shown.organizations
    }
    links = {}
    for hull_id, account in accounts.items():
        named_id = next((living.get(each) for each in pipedrive_ids_of(account)[:1]), None)
        organization_id = mapped.get(account["id"]) or named_id
        links[hull_id] = Link(organization_id, None if organization_id else account["id"])
    return links, named - living.keys()


def _account(message: Message) -> dict[str, Any]:
    account = message.get("account")
    has_id = isinstance(account, dict) and isinstance(account.get("id"), str) and account["id"]
    return account if has_id and isinstance(account, dict) else {}


def _recent_deliveries(
    session: Session, connector_key: int, entity: Entity, plan: CompiledSettings, ids: list[int]
) -> dict[int, tuple[Delivered, ...]]:
    """Return record → recent deliveries to Hull of the attributes mapped in both directions."""
    if not plan.shared or not ids:
        return {}
    recent: dict[int, tuple[Delivered, ...]] = {}
    for row in sync_event.recent_deliveries(session, connector_key, entity, ids, within_s=ROUND_S):
        values = {name: value for name, value in read_lenient(row.after).items() if name in plan.shared}
        recent[row.pipedrive_id] = (*recent.get(row.pipedrive_id, ()), Delivered(at=row.at_s, values=values))
    return recent


def _delivered(
    session: Session, connector_key: int, entity: Entity, plan: CompiledSettings, ids: list[int]
) -> dict[int, dict[str, Any]]:
    """Return record → Hull's values, from us, of the attributes mapped in both directions."""
    known = id_mapping.known(session, connector_key, entity, ids) if plan.shared and ids else {}
    return {
        each.pipedrive_id: {name: value for name, value in read_lenient(each.delivered).items() if name in plan.shared}
        for each in known.values()
        if each.delivered
    }


@dataclass(frozen=True, slots=True)
class Link:
    """The Organization to link to a Person, or the Account that has no Organization yet."""

    organization_id: int | None
    awaits: str | None


@dataclass(slots=True, kw_only=True)
class Gathered:
    """What is known of the records that some messages are about, by Hull id or by Pipedrive id.

    unknown                records that Hull names and our tables do not know
    unknown_organizations  the same for the Accounts of Users
    """

    messages: Mapping[str, Message]
    found: dict[str, Resolution]
    snapshots: dict[int, dict[str, Any]]
    links: dict[str, Link]
    recent_deliveries: dict[int, tuple[Delivered, ...]]
    delivered: dict[int, dict[str, Any]]
    unknown: Collection[int] = ()
    unknown_organizations: Collection[int] = ()

    @property
    def without_snapshot(self) -> list[int]:
        """Return the ids of known records without a snapshot."""
        known = {each.pipedrive_id for each in self.found.values() if each.match_status is MatchStatus.KNOWN}
        return sorted(each for each in known if each is not None and each not in self.snapshots)

    def candidates(self) -> list[Candidate]:
        return [self._candidate(hull_id, message) for hull_id, message in self.messages.items()]

    def _candidate(self, hull_id: str, message: Message) -> Candidate:
        found, link = self.found[hull_id], self.links.get(hull_id)
        key = found.pipedrive_id or 0
        snapshot = self.snapshots.get(key)
        is_gone = found.match_status is MatchStatus.KNOWN and snapshot is None  # Pipedrive did not return it by its id
        return Candidate(
            hull_id=hull_id,
            message=message,
            match_status=MatchStatus.DELETED if is_gone else found.match_status,
            pipedrive_id=found.pipedrive_id,
            matched_by=found.matched_by,
            by_lower_claim=found.by_lower_claim,
            others=found.others,
            snapshot=snapshot,
            organization_id=link.organization_id if link else None,
            awaits=link.awaits if link else None,
            memory=Memory.of(read_lenient(found.memory) if found.memory else None),
            recent_deliveries=self.recent_deliveries.get(key, ()),
            delivered=self.delivered.get(key, {}),
        )


def messages_of(session: Session, batch: ClaimedBatch) -> dict[str, Message]:
    """Return Hull id → the report to send: the change's own, or else the last stored one. Changes without any are left out."""
    mine = changes.changes_of(session, batch.id)
    reports = {change.record_id: bytes(change.payload) for change in mine if change.payload is not None}
    without = [change.record_id for change in mine if change.payload is None]
    stored = read_snapshots(session, batch.connector_key, batch.entity, "hull", without) if without else {}
    return {hull_id: read_lenient(body) for hull_id, body in (reports | stored).items()}
