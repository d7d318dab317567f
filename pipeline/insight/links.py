"""The steps of an explanation: each finds one cause of an event, as a sentence with facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from db import happening as rows
from db import record_events as asked
from db.happening import Origin
from db.record_events import Whose
from db.record_search import known_by
from db.sync_event import SyncEvent
from pipeline.domain.kinds import Direction, Entity
from pipeline.insight.events import ChangeShape, values_of
from pipeline.insight.mapped import ID_ATTRIBUTE, MappedField
from pipeline.transform.hull_reports import attribute_name

READ_BACK: Final = "read_back"
BESIDE: Final = timedelta(minutes=10)
"""Maximum time between a write and its read-back."""


@dataclass(frozen=True, slots=True)
class Ref:
    """What a fact points at: kind is `delivery`, `run`, `batch`, `event`, `settings` or `reason`."""

    kind: str
    id: int | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """`is_value` when it is a value of the record, which is shown with care."""

    name: str
    value: Any
    ref: Ref | None = None
    is_value: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationStep:
    """kind  `origin`, `identity`, `rule`, `call`, `read_back`, `problem` or `value`."""

    kind: str
    title: str
    sentence: str
    at: datetime | None = None
    facts: tuple[Fact, ...] = ()
    change: ChangeShape | None = None


def origin(session: Session, row: SyncEvent, change: ChangeShape | None) -> ExplanationStep:
    """The webhook, notification or fetch with the record."""
    found = rows.origin_of(session, row.connector_key, row.delivery_id, row.run_id, row.batch_id)
    facts = [
        Fact(name="Delivery", value=row.delivery_id, ref=Ref("delivery", row.delivery_id)),
        Fact(name="Run", value=row.run_id, ref=Ref("run", row.run_id)),
        Fact(name="Batch", value=row.batch_id, ref=Ref("batch", row.batch_id)),
        Fact(name="Read by", value=call_words(found.asked)),
        Fact(name="Event", value=row.id, ref=Ref("event", row.id)),
    ]
    return ExplanationStep(
        kind="origin",
        title=_origin_title(row),
        sentence=_origin_sentence(row, found),
        at=found.received_at or found.started_at or row.at,
        facts=_there(facts),
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


def rule(session: Session, row: SyncEvent, field: MappedField, direction: Direction) -> ExplanationStep:
    """The deciding mapping, and the settings in force."""
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
        Fact(name="Field", value=f"{field.label} ({field.code})" if field.label else field.code),
        Fact(name="When empty", value=(found or {}).get("on_null", "clear") if found else None),
        Fact(
            name="Last word",
            value=(found or {}).get("owner", "hull") if found and direction is Direction.OUTGOING else None,
        ),
        Fact(
            name="Settings",
            value=f"version {version.version}, by {version.author}" if version else None,
            ref=Ref("settings", version.version) if version else None,
        ),
    ]
    at = version.created_at if version else None
    return ExplanationStep(kind="rule", title="The rule", sentence=sentence, at=at, facts=_there(facts))


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
    """How two records were joined, in a sentence."""
    if not matched_by:
        return "It is joined to no record of the other side."
    return MATCHED.get(matched_by, f"The two were matched by {matched_by.replace('_', ' ')}.")


def identity(session: Session, whose: Whose, row: SyncEvent) -> ExplanationStep:
    """The record on the other side, and the claim that matched."""
    mapping = rows.joined(session, whose.connector_key, whose.entity, whose.pipedrive_id, whose.hull_id)
    claims = known_by(session, whose.connector_key, whose.entity, whose.pipedrive_id) if whose.pipedrive_id else []
    facts = [
        Fact(name="Pipedrive id", value=whose.pipedrive_id),
        Fact(name="Hull id", value=whose.hull_id),
        *(Fact(name=each.claim, value=each.value, is_value=True) for each in claims if each.holds),
        Fact(name="Why it was sent", value=_why_sent(row.detail) if row.event.startswith("outgoing") else None),
    ]
    return ExplanationStep(
        kind="identity",
        title="The claim",
        sentence=matched_words(mapping.matched_by if mapping else None),
        at=mapping.first_seen_at if mapping else None,
        facts=_there(facts),
    )


TRIGGERS: Final[Mapping[str, str]] = {
    "export": "it was sent manually",
    "entered_segment": "it entered a synchronised segment",
    "account_linked": "it was linked to an Account",
    "never_synced": "it is in a synchronised segment and was not known in Pipedrive",
    "in_segment": "it is in a synchronised segment, and a mapped field differed",
}


def _why_sent(detail: str | None) -> str | None:
    """Trigger and match, from an outgoing event."""
    parts = [TRIGGERS.get(part, part) for part in (detail or "").split("; ") if part]
    return "; ".join(parts) or None


def told_hull(session: Session, row: SyncEvent) -> ExplanationStep:
    """The call that sent it to Hull: one for a whole batch."""
    batch = rows.batch_of(session, row.batch_id)
    forgotten = batch is None and row.batch_id is not None
    sentence = "It was sent to Hull's firehose, with the rest of the batch."
    facts = [
        Fact(name="Call", value=call_words(batch.told if batch else None)),
        Fact(name="Records in the batch", value=batch.records if batch else None),
        Fact(name="Celery task", value=batch.task_id if batch else None),
    ]
    more = " The batch itself is past its retention, thirty days." if forgotten else ""
    return ExplanationStep(
        kind="call", title="The message to Hull", sentence=sentence + more, at=row.at, facts=_there(facts)
    )


def written(session: Session, row: SyncEvent, change: ChangeShape | None) -> ExplanationStep:
    """The write to Pipedrive, and its answer."""
    batch = rows.batch_of(session, row.batch_id)
    call = json.loads(row.exchange) if row.exchange else None
    sentence = (
        f"{call['method']} was answered with {call['status']} within {call['duration_ms']:,.0f} ms."
        if call
        else "Pipedrive took the write; the call itself was not kept."
    )
    others = [name for name in values_of(row.after) if change is None or name != change.name]
    facts = [
        Fact(name="Call", value=call_words(call)),
        Fact(name="Fields of the write", value=len(others)),
        Fact(name="Batch", value=row.batch_id, ref=Ref("batch", row.batch_id)),
        Fact(name="Celery task", value=batch.task_id if batch else None),
        Fact(name="Event", value=row.id, ref=Ref("event", row.id)),
    ]
    return ExplanationStep(
        kind="call", title="The write to Pipedrive", sentence=sentence, at=row.at, facts=_there(facts), change=change
    )


def read_back(row: SyncEvent, change: ChangeShape | None) -> ExplanationStep:
    """Pipedrive's value then, sent to Hull."""
    facts = (
        Fact(name="Batch", value=row.batch_id, ref=Ref("batch", row.batch_id)),
        Fact(name="Event", value=row.id, ref=Ref("event", row.id)),
    )
    sentence = "Pipedrive's answer is the whole record as it stood then; what Hull did not have yet was told to it."
    return ExplanationStep(
        kind="read_back", title="The read-back", sentence=sentence, at=row.at, facts=facts, change=change
    )


def read_back_of(session: Session, whose: Whose, sent: SyncEvent, field: MappedField) -> list[ExplanationStep]:
    """The other half of a write: what came back of it."""
    batch = rows.batch_of(session, sent.batch_id)
    if batch is None or batch.read_back_id is None:
        return []  # past its retention: the read-back has a separate event
    found = asked.events_of_batch(session, whose, batch.read_back_id)
    told = next((row for row in found if row.event.endswith(".success") and row.after is not None), None)
    if told is not None:
        return [read_back(told, _came_back(told, field))]
    facts = (Fact(name="Batch", value=batch.read_back_id, ref=Ref("batch", batch.read_back_id)),)
    sentence = "Pipedrive's answer held nothing that Hull had not said itself, so Hull was told nothing."
    return [ExplanationStep(kind="read_back", title="The read-back", sentence=sentence, at=sent.at, facts=facts)]


def _came_back(told: SyncEvent, field: MappedField) -> ChangeShape | None:
    """The field, under whichever attribute it comes to Hull."""
    after, before = values_of(told.after), values_of(told.before)
    name = next((each for each in (field.attribute, *field.heard) if each in after), None)
    if name is None:
        return None
    return ChangeShape(name=field.name, label=name, before=before.get(name), after=after[name], is_first=False)


def write_before(session: Session, whose: Whose, row: SyncEvent) -> SyncEvent | None:
    """Return the write of an incoming read-back event; if their batches are deleted, the one just before it."""
    if row.cause != READ_BACK or row.batch_id is None:
        return None
    earlier = asked.last_sent(session, whose, before_id=row.id)
    for sent in earlier:
        batch = rows.batch_of(session, sent.batch_id)
        if batch is not None and batch.read_back_id == row.batch_id:
            return sent
    is_kept = rows.batch_of(session, row.batch_id) is not None
    return next((sent for sent in earlier if not is_kept and row.at - sent.at < BESIDE), None)


def call_words(call: Mapping[str, Any] | None) -> str | None:
    """`PATCH /api/v2/persons/4711 → 200 · 5 tokens · 120 ms`."""
    if not call:
        return None
    tokens = f" · {call['tokens']} tokens" if call.get("tokens") else ""
    return f"{call['method']} {call['path']} → {call['status'] or 'no answer'}{tokens} · {call['duration_ms']:,.0f} ms"


def _there(facts: list[Fact]) -> tuple[Fact, ...]:
    return tuple(each for each in facts if each.value is not None)
