"""Decide what of a page is sent to Hull, build the firehose messages, and prepare the rows to write.

    plan_page  id mappings + records → what to send, what to skip, which claims are wanted
    compose    the messages, once it is known which claims are free, and the rows for `db.page`

Claims are taken before Hull receives anything, because two records with one e-mail must not both be sent with it. Everything
else is written after Hull has accepted it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NamedTuple

import orjson

from db.id_mapping import UNCERTAIN, Known
from db.page import LINK_SENT, STATE_SENT, PageConflicts, PageRow
from db.snapshot import Compress
from pipeline.clients.hull import MessageWriter
from pipeline.domain.deletions import DELETED_AT, DeletionEffect
from pipeline.domain.kinds import Claim, Entity, anonymous_id

Record = dict[str, Any]
"""An IncomingRecord as it was staged."""

NEW, CHANGED, SAME, LINKED = "new", "changed", "same", "linked"
EFFECTS: Final[Mapping[str, int]] = {NEW: STATE_SENT, LINKED: LINK_SENT, SAME: 0}
ANONYMOUS_ID = Claim.ANONYMOUS_ID.value
CREATED_BY_WEBHOOK = "pipedrive/created_by_webhook"

_NO_HULL_IDS: Final[Mapping[int, str]] = {}


class FirehoseRecord(NamedTuple):
    """One record to send to Hull.

    effect    why: `new`, `changed`, `linked` (only its Account is sent), or `same` (sent again on request)
    in_doubt  it is sent completely, because Hull's values are not known or everything was requested
    """

    record: Record
    effect: str
    before: Record | None
    in_doubt: bool = False


@dataclass(slots=True, kw_only=True)
class PageDiff:
    """The decisions for the records of a page.

    shared     attributes that are also sent to Pipedrive: only changed ones are sent to Hull, which may have an edit that it
               has not reported yet
    unchanged  records that Hull has already, with their known state: only stored
    stale      records with a newer state that was delivered
    """

    entity: Entity
    shared: frozenset[str] = frozenset()
    sendings: list[FirehoseRecord] = field(default_factory=list)
    unchanged: list[tuple[Record, Known]] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def wanted_claims(self) -> list[tuple[str, str, int]]:
        return [
            (claim, value, sending.record["pipedrive_id"])
            for sending in self.sendings
            for claim, value in sending.record["claims"].items()
        ]

    @property
    def unchanged_claims(self) -> list[tuple[str, str, int]]:
        """Return (claim, value, Pipedrive id) of the unchanged records."""
        return [(*claim, was.pipedrive_id) for record, was in self.unchanged for claim in record["claims"].items()]

    def aliases(self, held: Container[tuple[str, int]]) -> list[tuple[str, str, int]]:
        """Return the aliases of the records: further e-mails, and claims that another record holds."""
        more = [
            (claim, value, sending.record["pipedrive_id"])
            for sending in self.sendings
            for claim, value in sending.record["aliases"]
        ]
        more += [
            (claim, value, record["pipedrive_id"]) for record, _ in self.unchanged for claim, value in record["aliases"]
        ]
        if held:
            more += [each for each in self.wanted_claims if (each[0], each[2]) in held]
        return more

    @property
    def changed_ids(self) -> list[int]:
        """Return records that may have to release claims."""
        return [sending.record["pipedrive_id"] for sending in self.sendings if sending.effect == CHANGED]

    def mark_created(self, ids: Container[int]) -> None:
        """Mark Users that are created by the webhook of their Person's creation. The mark is not part of the digest, so a
        fetch of the same state finds no change.
        """
        for sending in self.sendings:
            if sending.effect == NEW and sending.record["pipedrive_id"] in ids:
                sending.record["attributes"].setdefault(CREATED_BY_WEBHOOK, True)


def plan_page(
    entity: Entity,
    records: list[Record],
    known: dict[int, Known],
    *,
    resend: bool,
    relink: bool = False,
    fresh_from: float = inf,
    shared: frozenset[str] = frozenset(),
) -> PageDiff:
    """Decide for each record whether it is new, changed, unchanged or stale.

    resend      also send what Hull already has, as Fetch All in the guide promises
    relink      also send the links of records that belong to an Organization: no digest shows whether Hull has them
    fresh_from  records with a version from here on may have changed again in the same second
    """
    plan = PageDiff(entity=entity, shared=shared)
    for pipedrive_id, record in newest_of(records).items():
        _decide(plan, record, known.get(pipedrive_id), resend=resend, relink=relink, fresh_from=fresh_from)
    return plan


def newest_of(records: Iterable[Record]) -> dict[int, Record]:
    """Return Pipedrive id → the newest state of the record; of equally new ones the last."""
    newest: dict[int, Record] = {}
    for record in records:
        earlier = newest.get(record["pipedrive_id"])
        if earlier is None or earlier["version"] <= record["version"]:
            newest[record["pipedrive_id"]] = record
    return newest


def unchanged_states(records: Iterable[Record], fresh_from: float) -> list[tuple[str, int]]:
    """Return the (digest, version) for which `db.id_mapping.known` need not read what was delivered.

    A record newer than `fresh_from` is written again even if it is the same, with Hull's values.
    """
    return [
        (record["digest"], record["version"])
        for record in newest_of(records).values()
        if record["version"] < fresh_from
    ]


def _decide(
    plan: PageDiff, record: Record, known: Known | None, *, resend: bool, relink: bool, fresh_from: float
) -> None:
    if known is None or known.digest is None:
        plan.counters[NEW] += 1
        plan.sendings.append(FirehoseRecord(record, NEW, None))
    elif known.version > record["version"]:
        plan.stale.append(record["pipedrive_id"])
        plan.counters["skipped"] += 1
    elif known.digest != record["digest"]:
        plan.counters[CHANGED] += 1
        before = orjson.loads(known.delivered) if known.delivered else {}
        plan.sendings.append(FirehoseRecord(record, CHANGED, before, resend or known.digest == UNCERTAIN))
    elif relink and record["organization_id"] is not None:
        plan.counters[CHANGED] += 1
        plan.sendings.append(FirehoseRecord(record, LINKED, None))
    else:
        plan.counters[SAME] += 1
        if resend:
            plan.sendings.append(FirehoseRecord(record, SAME, None))
        elif record["version"] > known.version or record["version"] >= fresh_from:
            plan.unchanged.append((record, known))


def compose(
    plan: PageDiff,
    bodies: Mapping[int, bytes],
    writer: MessageWriter,
    held: dict[tuple[str, int], int],
    compress: Compress,
    *,
    link: bool,
    read: Container[int] = (),
    hull_ids: Mapping[int, str] = _NO_HULL_IDS,
) -> tuple[list[bytes], list[PageRow]]:
    """Return the messages for Hull, in order, and the rows that store what was sent.

    bodies    Pipedrive id → the record as Pipedrive sent it, for the snapshots
    held      (claim, Pipedrive id) → the other record that holds the value: such a claim is not sent
    hull_ids  Pipedrive id → the Hull id of the sent record, for a read-back: only this id names it
    read      Organizations that themselves set the `pipedrive/id` of their Accounts, and may be deleted by now
    """
    messages: list[bytes] = []
    rows: list[PageRow] = []
    write = writer.user_traits if plan.entity is Entity.PERSON else writer.account_traits
    for sending in plan.sendings:
        record, before = sending.record, sending.before
        pipedrive_id = record["pipedrive_id"]
        if before and DELETED_AT in before:  # it was marked as deleted, and exists again
            record["attributes"].setdefault(DELETED_AT, None)
        address = _address(record, held, hull_ids.get(pipedrive_id))
        values = {name: value for name, value in record["attributes"].items() if value is not None}
        delivered = orjson.dumps(values)
        nulls = _nulls(record["attributes"], before)
        traits: Record | bytes = values | nulls if nulls else delivered
        if plan.shared and before is not None and not sending.in_doubt:
            traits = _without_unchanged_shared(values | nulls, before, plan.shared)
            if pipedrive_id in hull_ids and traits.items() <= before.items():
                traits = b""  # Hull itself has sent all of it
        if traits:
            messages.append(write(address, traits))
        organization_id = record["organization_id"]
        if link and organization_id is not None:
            account = b'{"anonymous_id":"pipedrive:%d"}' % organization_id
            account_traits = b"{}" if organization_id in read else b'{"pipedrive/id":%d}' % organization_id
            messages.append(writer.link_traits(address, account, account_traits))
            plan.counters["links"] += 1
        snapshot = compress(bodies[pipedrive_id])
        row = _changed_row(sending, snapshot) if before is not None else _row(sending, delivered, snapshot)
        rows.append(row if traits or sending.effect == LINKED else row._replace(effect=0))
    plan.counters["messages"] += len(messages)
    return messages, rows


def _address(record: Record, held: Mapping[tuple[str, int], int], hull_id: str | None) -> bytes | dict[str, str]:
    """Return the identifiers for Hull: the claims that no other record holds, or Hull's own id."""
    pipedrive_id = record["pipedrive_id"]
    if hull_id is not None:
        return {"id": hull_id, ANONYMOUS_ID: anonymous_id(pipedrive_id)}
    claims = record["claims"]
    if held:
        claims = {claim: value for claim, value in claims.items() if (claim, pipedrive_id) not in held}
    return orjson.dumps({**claims, ANONYMOUS_ID: anonymous_id(pipedrive_id)})


def _without_unchanged_shared(traits: Record, before: Record, shared: Container[str]) -> Record:
    """Leave out the shared attributes that did not change."""
    return {
        name: value
        for name, value in traits.items()
        if name not in shared or name not in before or before[name] != value
    }


def _nulls(attributes: Record, before: Record | None) -> Record:
    """Return the nulls to send: only if Hull has a value of ours, so a first fetch never erases what another source wrote."""
    return {name: None for name, value in attributes.items() if value is None and name in before} if before else {}


def _row(sending: FirehoseRecord, delivered: bytes, snapshot: bytes) -> PageRow:
    """Return the row of a record that is new, linked, or was sent again as it is."""
    record = sending.record
    after = delivered if sending.effect == NEW else None
    return PageRow(
        record["pipedrive_id"],
        record["version"],
        record["digest"],
        delivered,
        snapshot,
        None,
        after,
        EFFECTS[sending.effect],
    )


def _changed_row(sending: FirehoseRecord, snapshot: bytes) -> PageRow:
    """Return the row of a changed record: a value that could not be read this time stays as it was, as in Hull."""
    record, old = sending.record, sending.before or {}
    new, names = held_after(record["attributes"], old)
    before = orjson.dumps({name: old.get(name) for name in names})
    after = orjson.dumps({name: new.get(name) for name in names})
    return PageRow(
        record["pipedrive_id"], record["version"], record["digest"], orjson.dumps(new), snapshot, before, after, 1
    )


def held_after(attributes: Record, old: Record) -> tuple[Record, list[str]]:
    """Return (our values in Hull after these attributes, the names of those that differ from the `old` ones)."""
    kept = {name: value for name, value in attributes.items() if value is not None}
    new = {name: value for name, value in old.items() if name not in attributes} | kept
    return new, [name for name in {**old, **new} if old.get(name) != new.get(name)]


def organizations_of(plan: PageDiff) -> set[int]:
    """Return the Organizations of the page's Persons."""
    return {each for sending in plan.sendings if (each := sending.record["organization_id"]) is not None}


def count_once(plan: PageDiff, conflicts: PageConflicts) -> None:
    """Correct the counters for records that another worker wrote first and has counted as new or changed."""
    for sending in plan.sendings:
        pipedrive_id = sending.record["pipedrive_id"]
        if pipedrive_id in conflicts.repeated or pipedrive_id in conflicts.stale:
            plan.counters[CHANGED if sending.effect == LINKED else sending.effect] -= 1
            plan.counters[SAME if pipedrive_id in conflicts.repeated else "skipped"] += 1


def unchanged_rows(plan: PageDiff, bodies: Mapping[int, bytes], compress: Compress) -> list[PageRow]:
    """Return the rows of the unchanged records: their newest state, and Hull's values as before."""
    return [
        PageRow(
            was.pipedrive_id,
            record["version"],
            record["digest"],
            was.delivered or b"{}",
            compress(bodies[was.pipedrive_id]),
            None,
            None,
            0,
        )
        for record, was in plan.unchanged
    ]


def compose_deletions(entity: Entity, effects: Iterable[DeletionEffect], writer: MessageWriter) -> list[bytes]:
    """Return the messages that mark Users or Accounts as deleted, or merge them, in order.

    A record is named by its anonymous id alone: its e-mail or domain may belong to another one by now.
    """
    is_person = entity is Entity.PERSON
    write = writer.user_traits if is_person else writer.account_traits
    merge = writer.user_alias if is_person else writer.account_alias
    messages = []
    for effect in effects:
        deleted, survivor = anonymous_id(effect.deletion.pipedrive_id), effect.deletion.merged_into
        if effect.joins and survivor is not None:
            messages.append(merge({ANONYMOUS_ID: anonymous_id(survivor)}, deleted))
        elif effect.attributes:
            messages.append(write({ANONYMOUS_ID: deleted}, effect.attributes))
    return messages
