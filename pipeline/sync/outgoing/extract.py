"""Extract of an outgoing batch: each report as delivered, with everything known of the Pipedrive record that it is mapped to.

Our tables cost nothing. What they do not know is requested before any decision: from Pipedrive, records that Hull names
and we have never seen; from Hull, the id of a record.
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
from pipeline.sync.compiled import Plan, plan_for
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
"""Cause of a change that brings in a record which Hull names and we have never seen."""


def extract_batch(batch: ClaimedBatch) -> None:
    """Bring together what is known of every record the batch's changes name."""
    candidates = find_candidates(batch)
    with transaction() as session:
        batches.hold(session, batch)
        data = write_lenient({"data": candidates})
        batches.pass_to_transform(session, batch.id, pack_page(data), len(candidates))


def candidates_of(batch: ClaimedBatch) -> list[Candidate]:
    """Return what extract staged, or what is known now where that may be old."""
    if batch.extracted is None or batch.is_outdated:
        return find_candidates(batch)
    return [Candidate.of(row) for row in unpack_page(bytes(batch.extracted))[0]]


def find_candidates(batch: ClaimedBatch) -> list[Candidate]:
    """Return what is known of every record that the batch's changes name, by their newest reports."""
    entity = Entity(batch.entity)
    with transaction() as session:
        plan = plan_for(session, batch.connector_key, entity)
        messages = messages_of(session, batch)
        gathered = gather(session, batch.connector_key, entity, plan, messages)
    gathered = _ask(batch, plan, messages, gathered)
    _join_told(batch, gathered.found)
    return gathered.candidates()


def _ask(batch: ClaimedBatch, plan: Plan, messages: Mapping[str, Message], gathered: Gathered) -> Gathered:
    """Request what our tables do not know; make no call if they know everything."""
    is_strange = bool(gathered.strange or gathered.strange_organizations)
    if not (is_strange or in_doubt(gathered.found) or gathered.missing):
        return gathered
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
    if is_strange:
        gathered = _read_strange(batch, wired, plan, messages, gathered)
    resolve_with_hull(batch, wired, gathered.found)
    missing = gathered.missing
    read = read_by_ids(wired.pipedrive, Entity(batch.entity), missing, plan.incoming.include_fields) if missing else []
    gathered.snapshots |= _by_id(read)
    return gathered


def _read_strange(
    batch: ClaimedBatch, wired: Wired, plan: Plan, messages: Mapping[str, Message], gathered: Gathered
) -> Gathered:
    """Read the records that Hull names and we have never seen, and gather again. Those that are not there are deleted; the
    others are brought in like any change."""
    entity, mine, beside = Entity(batch.entity), sorted(gathered.strange), sorted(gathered.strange_organizations)
    records = _by_id(read_by_ids(wired.pipedrive, entity, mine, plan.incoming.include_fields)) if mine else {}
    others = _by_id(read_by_ids(wired.pipedrive, Entity.ORGANIZATION, beside, ())) if beside else {}
    shown = Shown(
        records={each: record for each, record in records.items() if not is_shown_deleted(record)},
        organizations={each for each, record in others.items() if not is_shown_deleted(record)},
    )
    with transaction() as session:
        batches.hold(session, batch)
        _note(session, batch, entity, set(mine), set(shown.records))
        _note(session, batch, Entity.ORGANIZATION, set(beside), set(shown.organizations))
        return gather(session, batch.connector_key, entity, plan, messages, shown)


def _by_id(records: list[Any]) -> dict[int, dict[str, Any]]:
    return {record_id: record for record in records if (record_id := id_of(record)) is not None}


def _note(session: Session, batch: ClaimedBatch, entity: Entity, asked: set[int], shown: set[int]) -> None:
    add_deleted(session, batch.connector_key, entity, asked - shown)
    scope = (batch.connector_key, Direction.INCOMING, entity)
    change_writer.write_changes(session, *scope, map(str, shown), cause=NAMED_BY_HULL, keeps_cause=True)


def _join_told(batch: ClaimedBatch, found: Mapping[str, Resolution]) -> None:
    """That Hull names the record is knowledge for the id map, whether anything is sent or not."""
    told = [
        Join(hull_id=hull_id, pipedrive_id=each.pipedrive_id, matched_by="report")
        for hull_id, each in found.items()
        if each.matched_by == "report" and each.match_status is MatchStatus.KNOWN and each.pipedrive_id is not None
    ]
    if not told:
        return
    with transaction() as session:
        batches.hold(session, batch)
        joining.join(session, batch.connector_key, batch.entity, told)
        if batch.entity == Entity.ORGANIZATION:
            outgoing_changes.send_waiting_users(session, batch.connector_key, [each.hull_id for each in told])


def gather(
    session: Session,
    connector_key: int,
    entity: Entity,
    plan: Plan,
    messages: Mapping[str, Message],
    shown: Shown = NOTHING_SHOWN,
) -> Gathered:
    """Bring together what our tables know of the records that these messages are about (Hull id → message)."""
    found, strange = resolve(session, connector_key, entity, plan, messages, shown)
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
    living = find_current(session, connector_key, Entity.ORGANIZATION, said) | {
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


def _snapshots(
    session: Session, connector_key: int, entity: Entity, found: Mapping[str, Resolution]
) -> dict[int, dict[str, Any]]:
    ids = [str(each.pipedrive_id) for each in found.values() if each.pipedrive_id is not None]
    kept = read_snapshots(session, connector_key, entity, "pipedrive", ids)
    return {int(record_id): read_lenient(body) for record_id, body in kept.items()}


def _told(
    session: Session, connector_key: int, entity: Entity, plan: Plan, found: Mapping[str, Resolution]
) -> dict[int, tuple[Delivered, ...]]:
    """Return record → recent deliveries to Hull of the attributes mapped in both directions."""
    known = [each.pipedrive_id for each in found.values() if each.pipedrive_id is not None]
    if not plan.shared or not known:
        return {}
    told: dict[int, tuple[Delivered, ...]] = {}
    for row in sync_event.recent_deliveries(session, connector_key, entity, known, within_s=ROUND_S):
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


@dataclass(frozen=True, slots=True)
class Link:
    """The Organization a Person is to be linked to, or the Account that has none yet."""

    organization_id: int | None
    awaits: str | None


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
        known = {each.pipedrive_id for each in self.found.values() if each.match_status is MatchStatus.KNOWN}
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
    match_status = found.match_status
    if match_status is MatchStatus.KNOWN and snapshot is None:
        match_status = MatchStatus.DELETED  # it was requested by its id, and Pipedrive does not show it
    return Candidate(
        hull_id=hull_id,
        message=message,
        match_status=match_status,
        pipedrive_id=found.pipedrive_id,
        matched_by=found.matched_by,
        by_lower_claim=found.by_lower_claim,
        others=found.others,
        snapshot=snapshot,
        organization_id=link.organization_id if link else None,
        awaits=link.awaits if link else None,
        memory=Memory.of(read_lenient(found.memory) if found.memory else None),
        recent_deliveries=told.get(found.pipedrive_id or 0, ()),
        delivered=delivered.get(found.pipedrive_id or 0, {}),
    )


def messages_of(session: Session, batch: ClaimedBatch) -> dict[str, Message]:
    """Return Hull id → the report to send: that of the change, or the last stored one. A change without either is empty."""
    mine = changes.changes_of(session, batch.id)
    told = {change.record_id: bytes(change.payload) for change in mine if change.payload is not None}
    silent = [change.record_id for change in mine if change.payload is None]
    kept = read_snapshots(session, batch.connector_key, batch.entity, "hull", silent) if silent else {}
    return {hull_id: read_lenient(body) for hull_id, body in (told | kept).items()}
