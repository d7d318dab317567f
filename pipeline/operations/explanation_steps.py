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
    """Return the webhook, notification or fetch that brought the record."""
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
        _origin_title(row),
        _origin_sentence(row, found),
        at=found.received_at or found.started_at or row.at,
        facts=facts,
        change=change,
    )


TITLES: Final[Mapping[str, str]] = {
    "webhook": "A webhook of Pipedrive reported it",
    "notification": "Hull reported it",
    "fetch": "A fetch read it",
    READ_BACK: "Pipedrive's answer to a write",
    "backfill": "New settings reached what was stored",
    "linked_user": "A User that links to it was reported",
    "owned_by_pipedrive": "Hull had said otherwise, and Pipedrive has the last word",
    "look_up": "It was listed before something was created",
    "merged": "Another record was merged into it",
}


def _origin_title(row: SyncEvent) -> str:
    return TITLES.get(row.cause, f"It was carried over: {row.cause.replace('_', ' ')}")


def _origin_sentence(row: SyncEvent, found: Origin) -> str:
    if row.run_id is not None:
        what = f"{found.run_kind} fetch" if found.run_kind in ("full", "incremental") else found.run_kind or "fetch"
        return f"The {what} of {Entity(row.entity).plural.capitalize()}, begun by {found.run_cause or 'somebody'}, read the record."
    if row.delivery_id is not None:
        if found.received_at is None:
            return "Its delivery is past its retention, thirty days."
        return "It was stored as received, acknowledged, then processed."
    if row.cause == READ_BACK:
        return "What Pipedrive holds after a write comes back to Hull; the write itself is not kept any more."
    return "No delivery is noted with it." if row.cause in ("webhook", "notification") else "It came by no delivery."


def find_rule(session: Session, row: SyncEvent, field: MappedField, direction: Direction) -> StepShape:
    """Return the mapping that decided, and the settings that were in force."""
    version = rows.settings_at(session, row.connector_key, row.settings_version, row.at)
    found = _row_of(version.document if version else {}, row.entity, field, direction)
    side = "incoming" if direction is Direction.INCOMING else "outgoing"
    if found:
        arrow = "←" if direction is Direction.INCOMING else "→"
        sentence = f"The {side} row {found.get('hull')} {arrow} {field.label or field.code} said to carry it over."
    elif field.attribute == ID_ATTRIBUTE:
        sentence = "The id is said with every record, whatever is mapped."
    else:
        sentence = (
            "No row of the settings of then names it: it identifies the record, or went along with another field."
        )
    facts = [
        make_fact("Field", f"{field.label} ({field.code})" if field.label else field.code),
        make_fact("When empty", (found or {}).get("on_null", "clear") if found else None),
        make_fact(
            "Last word",
            (found or {}).get("owner", "hull") if found and direction is Direction.OUTGOING else None,
        ),
        make_fact(
            "Settings",
            f"version {version.version}, by {version.author}" if version else None,
            ("settings", version.version) if version else None,
        ),
    ]
    at = version.created_at if version else None
    return make_step("rule", "The rule", sentence, at=at, facts=facts)


def _row_of(
    document: Mapping[str, Any], entity: str, field: MappedField, direction: Direction
) -> Mapping[str, Any] | None:
    table = document.get(f"{direction}_{Entity(entity).hull}_attributes") or []
    mine = [row for row in table if isinstance(row, dict)]
    exact = [row for row in mine if attribute_name(str(row.get("hull"))) == field.attribute]
    if direction is Direction.OUTGOING:  # also the row that writes a field which comes back as this attribute
        exact += [row for row in mine if row.get("service") in (field.code, field.key)]
    beside = [row for row in mine if field.attribute.startswith(f"{attribute_name(str(row.get('hull')))}_")]
    return next(iter([*exact, *beside]), None)


MATCHED: Final[Mapping[str, str]] = {
    "fetched": "It came from Pipedrive, and Hull knows it by its Pipedrive id.",
    "webhook": "It came from Pipedrive, and Hull knows it by its Pipedrive id.",
    "referenced": "A Person named its Organization; Hull knows it by its Pipedrive id.",
    "report": "Hull itself names the Pipedrive record.",
    "created": "It was made in Pipedrive for this record of Hull.",
    "sync_key": "Its key in Pipedrive is the Hull id.",
}


def matched_words(matched_by: str | None) -> str:
    """Return how two records were matched, as a sentence."""
    if not matched_by:
        return "It is joined to no record of the other side."
    return MATCHED.get(matched_by, f"The two were matched by {matched_by.replace('_', ' ')}.")


def find_identity(session: Session, whose: RecordIds, row: SyncEvent) -> StepShape:
    """Return the record on the other side, and the claim that matched."""
    mapping = rows.find_record_mapping(session, whose.connector_key, whose.entity, whose.pipedrive_id, whose.hull_id)
    claims = (
        list_identifiers(session, whose.connector_key, whose.entity, whose.pipedrive_id) if whose.pipedrive_id else []
    )
    facts = [
        make_fact("Pipedrive id", whose.pipedrive_id),
        make_fact("Hull id", whose.hull_id),
        *(make_fact(each.claim, each.value) for each in claims if each.holds),
        make_fact("Why it was sent", _why_sent(row.detail) if row.event.startswith("outgoing") else None),
    ]
    return make_step(
        "identity",
        "The claim",
        matched_words(mapping.matched_by if mapping else None),
        at=mapping.first_seen_at if mapping else None,
        facts=facts,
    )


TRIGGERS: Final[Mapping[str, str]] = {
    "export": "it was sent manually",
    "entered_segment": "it entered a synchronised segment",
    "account_linked": "it was linked to an Account",
    "never_synced": "it is in a synchronised segment and was not known in Pipedrive",
    "in_segment": "it is in a synchronised segment, and a mapped field differed",
}


def _why_sent(detail: str | None) -> str | None:
    """Return the trigger and the match of an outgoing event."""
    parts = [TRIGGERS.get(part, part) for part in (detail or "").split("; ") if part]
    return "; ".join(parts) or None


def find_message(session: Session, row: SyncEvent) -> StepShape:
    """Return the call that sent it to Hull, one for a whole batch."""
    batch = rows.batch_of(session, row.batch_id)
    forgotten = batch is None and row.batch_id is not None
    sentence = "It was sent to Hull's firehose, with the rest of the batch."
    facts = [
        make_fact("Call", call_words(batch.load_call if batch else None)),
        make_fact("Records in the batch", batch.records if batch else None),
        make_fact("Celery task", batch.task_id if batch else None),
    ]
    more = " The batch itself is past its retention, thirty days." if forgotten else ""
    return make_step("call", "The message to Hull", sentence + more, at=row.at, facts=facts)


def find_write(session: Session, row: SyncEvent, change: ChangeShape | None) -> StepShape:
    """Return the write to Pipedrive, and its answer."""
    batch = rows.batch_of(session, row.batch_id)
    call = json.loads(row.exchange) if row.exchange else None
    sentence = (
        f"{call['method']} was answered with {call['status']} within {call['duration_ms']:,.0f} ms."
        if call
        else "Pipedrive took the write; the call itself was not kept."
    )
    others = [name for name in values_of(row.after) if change is None or name != change.name]
    facts = [
        make_fact("Call", call_words(call)),
        make_fact("Fields of the write", len(others)),
        make_fact("Batch", row.batch_id, ("batch", row.batch_id)),
        make_fact("Celery task", batch.task_id if batch else None),
        make_fact("Event", row.id, ("event", row.id)),
    ]
    return make_step("call", "The write to Pipedrive", sentence, at=row.at, facts=facts, change=change)


def describe_read_back(row: SyncEvent, change: ChangeShape | None) -> StepShape:
    """Return the read-back: Pipedrive's value after the write, sent to Hull."""
    facts = (
        make_fact("Batch", row.batch_id, ("batch", row.batch_id)),
        make_fact("Event", row.id, ("event", row.id)),
    )
    sentence = "Pipedrive's answer is the whole record as it stood then; what Hull did not have yet was told to it."
    return make_step("read_back", "The read-back", sentence, at=row.at, facts=facts, change=change)


def find_read_back(session: Session, whose: RecordIds, sent: SyncEvent, field: MappedField) -> list[StepShape]:
    """Return the read-back of a write; empty if its batch is past its retention."""
    batch = rows.batch_of(session, sent.batch_id)
    if batch is None or batch.read_back_id is None:
        return []  # past its retention: the read-back has a separate event
    found = rows.batch_events(session, whose, batch.read_back_id)
    success = next((row for row in found if row.event.endswith(".success") and row.after is not None), None)
    if success is not None:
        return [describe_read_back(success, _returned_change(success, field))]
    facts = (make_fact("Batch", batch.read_back_id, ("batch", batch.read_back_id)),)
    sentence = "Pipedrive's answer held nothing that Hull had not said itself, so Hull was told nothing."
    return [make_step("read_back", "The read-back", sentence, at=sent.at, facts=facts)]


def _returned_change(row: SyncEvent, field: MappedField) -> ChangeShape | None:
    """Return the change of the field, under the attribute in which it returns to Hull."""
    after, before = values_of(row.after), values_of(row.before)
    name = next((each for each in (field.attribute, *field.returns_as) if each in after), None)
    if name is None:
        return None
    return ChangeShape(name=field.name, label=name, before=before.get(name), after=after[name], is_first=False)


def find_write_before(session: Session, whose: RecordIds, row: SyncEvent) -> SyncEvent | None:
    """Return the write of an incoming read-back event; if their batches are deleted, the one just before it."""
    if row.cause != READ_BACK or row.batch_id is None:
        return None
    earlier = rows.latest_writes(session, whose, before_id=row.id)
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
    return f"{call['method']} {call['path']} → {call['status'] or 'no answer'}{tokens} · {call['duration_ms']:,.0f} ms"
