"""The steps of an explanation: each finds one cause of an event, as a sentence with facts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from db import record_events as rows
from db.identifier_search import list_identifiers
from db.record_events import Origin, RecordIds
from db.sync_event import SyncEvent
from pipeline.domain.kinds import Direction, Entity
from pipeline.operations.events import ChangeShape, values_of
from pipeline.operations.mapped_fields import MappedField
from pipeline.operations.models import Shape, Text, Value
from pipeline.transform.hull_reports import ID_ATTRIBUTE, attribute_name

READ_BACK: Final = "read_back"
BESIDE: Final = timedelta(minutes=10)
"""Maximum time between a write and its read-back."""


class RefShape(Shape):
    """What a fact refers to: a `delivery`, `run`, `batch`, `event`, `settings` or `reason`."""

    kind: str
    id: int | str | None


class FactShape(Shape):
    name: str
    value: Value
    ref: RefShape | None


class StepShape(Shape):
    """`origin`, `identity`, `rule`, `call`, `read_back`, `problem` or `value`."""

    kind: str
    title: str
    sentence: Text
    at: datetime | None
    facts: list[FactShape]
    change: ChangeShape | None


def make_fact(name: str, value: Any, ref: tuple[str, int | str | None] | None = None) -> FactShape:
    """Return a fact; `ref` is what it refers to: its kind and id."""
    return FactShape(name=name, value=value, ref=RefShape(kind=ref[0], id=ref[1]) if ref else None)


def make_step(
    kind: str,
    title: str,
    sentence: str,
    *,
    at: datetime | None,
    facts: Iterable[FactShape] = (),
    change: ChangeShape | None = None,
) -> StepShape:
    """Return a step; facts without a value are left out."""
    known = [each for each in facts if each.value is not None]
    return StepShape(kind=kind, title=title, sentence=sentence, at=at, facts=known, change=change)


def find_origin(session: Session, row: SyncEvent, change: ChangeShape | None) -> StepShape:
    """Return the webhook, notification or fetch of the record."""
    found = rows.origin_of(session, row.connector_key, row.delivery_id, row.run_id, row.batch_id)
    facts = [
        make_fact("Delivery", row.delivery_id, ("delivery", row.delivery_id)),
        make_fact("Run", row.run_id, ("run", row.run_id)),
        make_fact("Batch", row.batch_id, ("batch", row.batch_id)),
        make_fact("Read by", call_words(found.extract_call)),
        make_fact("Event", row.id, ("event", row.id)),
    ]
    return make_step(
        "origin",
        TITLES.get(row.cause, row.cause.replace("_", " ").capitalize()),
        _origin_sentence(row, found),
        at=found.received_at or found.started_at or row.at,
        facts=facts,
        change=change,
    )


TITLES: Final[Mapping[str, str]] = {
    "webhook": "Webhook of Pipedrive",
    "notification": "Report of Hull",
    "fetch": "Fetch",
    READ_BACK: "Pipedrive's answer to a write",
    "backfill": "New settings, applied to stored records",
    "linked_user": "Report of a linked User",
    "owned_by_pipedrive": "Value of Pipedrive, which owns the field",
    "look_up": "Look-up before a create",
    "merged": "Merge with another record",
    "verify": "Repair of a comparison",
}
"""Cause of an event → title of the origin."""


def _origin_sentence(row: SyncEvent, found: Origin) -> str:
    if row.run_id is not None:
        what = f"{found.run_kind} fetch" if found.run_kind in ("full", "incremental") else found.run_kind or "fetch"
        started_by = f", started by {found.run_cause}," if found.run_cause else ""
        return f"The {what} of {Entity(row.entity).plural.capitalize()}{started_by} read the record."
    if row.delivery_id is not None:
        if found.received_at is None:
            return "Its delivery was deleted after thirty days."
        return "The delivery was stored, acknowledged and then processed."
    if row.cause == READ_BACK:
        return "Pipedrive's record after a write was sent to Hull; the write itself is not kept any more."
    if row.cause == "verify":
        return "A comparison found a difference, and its repair sent the record again."
    return "No delivery is stored with the event."


def find_rule(session: Session, row: SyncEvent, field: MappedField, direction: Direction) -> StepShape:
    """Return the mapping row that applied, and the settings that were in force."""
    version = rows.settings_at(session, row.connector_key, row.settings_version, row.at)
    found = _row_of(version.document if version else {}, row.entity, field, direction)
    side = "incoming" if direction is Direction.INCOMING else "outgoing"
    if found:
        arrow = "←" if direction is Direction.INCOMING else "→"
        sentence = f"The {side} row {found.get('hull')} {arrow} {field.label or field.code} maps the field."
    elif field.attribute == ID_ATTRIBUTE:
        sentence = "The id is sent with every record, whatever is mapped."
    else:
        sentence = "No mapping row of those settings names the field: it identifies the record, or was sent with another field."
    facts = [
        make_fact("Field", f"{field.label} ({field.code})" if field.label else field.code),
        make_fact("When empty", (found or {}).get("on_null", "clear") if found else None),
        make_fact(
            "Owner",
            (found or {}).get("owner", "hull") if found and direction is Direction.OUTGOING else None,
        ),
        make_fact(
            "Settings",
            f"version {version.version}, by {version.author}" if version else None,
            ("settings", version.version) if version else None,
        ),
    ]
    at = version.created_at if version else None
    return make_step("rule", "Mapping rule", sentence, at=at, facts=facts)


def _row_of(
    document: Mapping[str, Any], entity: str, field: MappedField, direction: Direction
) -> Mapping[str, Any] | None:
    table = document.get(f"{direction}_{Entity(entity).hull}_attributes") or []
    mine = [row for row in table if isinstance(row, dict)]
    exact = [row for row in mine if attribute_name(str(row.get("hull"))) == field.attribute]
    if direction is Direction.OUTGOING:  # also the row of a field that returns to Hull as this attribute
        exact += [row for row in mine if row.get("service") in (field.code, field.key)]
    beside = [row for row in mine if field.attribute.startswith(f"{attribute_name(str(row.get('hull')))}_")]
    return next(iter([*exact, *beside]), None)


MATCHED: Final[Mapping[str, str]] = {
    "fetched": "The record was first read from Pipedrive, and Hull identifies it by its Pipedrive id.",
    "webhook": "The record was first read from Pipedrive, and Hull identifies it by its Pipedrive id.",
    "referenced": "A Person named it as its Organization, and Hull identifies it by its Pipedrive id.",
    "report": "Hull's report contains the Pipedrive id.",
    "created": "It was created in Pipedrive for this record of Hull.",
    "sync_key": "Its key in Pipedrive is the Hull id.",
}


def matched_words(matched_by: str | None) -> str:
    """Return how two records were matched, as a sentence."""
    if not matched_by:
        return "It is not matched with a record on the other side."
    return MATCHED.get(matched_by, f"The two records were matched by {matched_by.replace('_', ' ')}.")


def find_identity(session: Session, ids: RecordIds, row: SyncEvent) -> StepShape:
    """Return the record on the other side, and the claim that matched."""
    mapping = rows.find_record_mapping(session, ids.connector_key, ids.entity, ids.pipedrive_id, ids.hull_id)
    claims = list_identifiers(session, ids.connector_key, ids.entity, ids.pipedrive_id) if ids.pipedrive_id else []
    facts = [
        make_fact("Pipedrive id", ids.pipedrive_id),
        make_fact("Hull id", ids.hull_id),
        *(make_fact(each.claim, each.value) for each in claims if each.holds),
        make_fact("Why it was sent", _why_sent(row.detail) if row.event.startswith("outgoing") else None),
    ]
    return make_step(
        "identity",
        "Match",
        matched_words(mapping.matched_by if mapping else None),
        at=mapping.first_seen_at if mapping else None,
        facts=facts,
    )


TRIGGERS: Final[Mapping[str, str]] = {
    "export": "it was sent manually",
    "entered_segment": "it entered a synchronized segment",
    "account_linked": "it was linked to an Account",
    "never_synced": "it is in a synchronized segment and did not exist in Pipedrive",
    "in_segment": "it is in a synchronized segment, and a mapped field differed",
}


def _why_sent(detail: str | None) -> str | None:
    """Return the trigger and the match of an outgoing event."""
    parts = [TRIGGERS.get(part, part) for part in (detail or "").split("; ") if part]
    return "; ".join(parts) or None


def find_message(session: Session, row: SyncEvent) -> StepShape:
    """Return the call that sent the record to Hull: one call for a whole batch."""
    batch = rows.batch_of(session, row.batch_id)
    sentence = "It was sent to Hull's firehose, together with its batch."
    facts = [
        make_fact("Call", call_words(batch.load_call if batch else None)),
        make_fact("Records in the batch", batch.records if batch else None),
        make_fact("Celery task", batch.task_id if batch else None),
    ]
    if batch is None and row.batch_id is not None:
        sentence += " The batch itself was deleted after thirty days."
    return make_step("call", "Message to Hull", sentence, at=row.at, facts=facts)


def find_write(session: Session, row: SyncEvent, change: ChangeShape | None) -> StepShape:
    """Return the write to Pipedrive, and its answer."""
    batch = rows.batch_of(session, row.batch_id)
    call = json.loads(row.exchange) if row.exchange else None
    sentence = (
        f"{call['method']} was answered with {call['status']} within {call['duration_ms']:,.0f} ms."
        if call
        else "Pipedrive accepted the write; the call itself was not kept."
    )
    facts = [
        make_fact("Call", call_words(call)),
        make_fact("Fields of the write", len(values_of(row.after))),
        make_fact("Batch", row.batch_id, ("batch", row.batch_id)),
        make_fact("Celery task", batch.task_id if batch else None),
        make_fact("Event", row.id, ("event", row.id)),
    ]
    return make_step("call", "Write to Pipedrive", sentence, at=row.at, facts=facts, change=change)


def describe_read_back(row: SyncEvent, change: ChangeShape | None) -> StepShape:
    """Return the read-back: Pipedrive's value after the write, sent to Hull."""
    facts = (
        make_fact("Batch", row.batch_id, ("batch", row.batch_id)),
        make_fact("Event", row.id, ("event", row.id)),
    )
    sentence = (
        "Pipedrive answers a write with the whole record; the values that Hull did not have yet were sent to Hull."
    )
    return make_step("read_back", "Read-back", sentence, at=row.at, facts=facts, change=change)


def find_read_back(session: Session, ids: RecordIds, sent: SyncEvent, field: MappedField) -> list[StepShape]:
    """Return the read-back of a write; empty if its batch was deleted."""
    batch = rows.batch_of(session, sent.batch_id)
    if batch is None or batch.read_back_id is None:
        return []
    found = rows.batch_events(session, ids, batch.read_back_id)
    success = next((row for row in found if row.event.endswith(".success") and row.after is not None), None)
    if success is not None:
        return [describe_read_back(success, _returned_change(success, field))]
    facts = (make_fact("Batch", batch.read_back_id, ("batch", batch.read_back_id)),)
    sentence = "Pipedrive's answer contained only values that Hull had sent itself, so nothing was sent to Hull."
    return [make_step("read_back", "Read-back", sentence, at=sent.at, facts=facts)]


def _returned_change(row: SyncEvent, field: MappedField) -> ChangeShape | None:
    """Return the change of the field, by its attribute in Hull."""
    after, before = values_of(row.after), values_of(row.before)
    name = next((each for each in (field.attribute, *field.returns_as) if each in after), None)
    if name is None:
        return None
    return ChangeShape(name=field.name, label=name, before=before.get(name), after=after[name], is_first=False)


def find_write_before(session: Session, ids: RecordIds, row: SyncEvent) -> SyncEvent | None:
    """Return the write of an incoming read-back event; if their batches are deleted, the one just before it."""
    if row.cause != READ_BACK or row.batch_id is None:
        return None
    earlier = rows.latest_writes(session, ids, before_id=row.id)
    for sent in earlier:
        batch = rows.batch_of(session, sent.batch_id)
        if batch is not None and batch.read_back_id == row.batch_id:
            return sent
    is_kept = rows.batch_of(session, row.batch_id) is not None
    return next((sent for sent in earlier if not is_kept and row.at - sent.at < BESIDE), None)


def call_words(call: Mapping[str, Any] | None) -> str | None:
    """Return `PATCH /api/v2/persons/4711 → 200 · 5 tokens · 120 ms`."""
    if not call:
        return None
    tokens = f" · {call['tokens']} tokens" if call.get("tokens") else ""
    return f"{call['method']} {call['path'] or '/'} → {call['status'] or 'no answer'}{tokens} · {call['duration_ms']:,.0f} ms"
