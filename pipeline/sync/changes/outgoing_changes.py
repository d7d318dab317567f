"""Turn Hull's messages into outgoing changes: many messages about one record become one change.

Waiting changes are read, coalesced with the new messages and written again, in two statements for any number of records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.orm import Session

from db import change_writer
from db import sync_event as events
from db.change_writer import OutgoingReport, WaitingReport
from pipeline.domain.json_text import read_lenient, write_lenient
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.errors import Rejected
from pipeline.sync.changes.hull_messages import HullMessage, fold_together, read_message
from pipeline.sync.changes.linked_accounts import linked_accounts
from pipeline.sync.event_recorder import EventRecorder
from pipeline.transform.hull_reports import fold_messages

BYTES_AT_ONCE: Final = 8 * 1024 * 1024
RECORDS_AT_ONCE: Final = 2_000
"""What one statement carries at most, though always one record: PostgreSQL takes a thousand megabytes and no more."""


def fold_messages_of(
    session: Session,
    connector_key: int,
    entity: Entity,
    messages: Iterable[Any],
    *,
    cause: str,
    is_export: bool,
    rank: int,
) -> int:
    """Coalesce messages about Users or Accounts of one connector; a message without an id becomes an event. Return how
    many were coalesced.

    cause      why they are sent, for the log
    is_export  sent manually, ignoring all filters
    rank       when they were received, in milliseconds since the epoch
    """
    taken, refused = take_messages(connector_key, entity, messages, cause=cause, is_export=is_export, rank=rank)
    fold_all(session, taken)
    name = event_name(Direction.OUTGOING, entity, Outcome.ERROR)
    recorder = EventRecorder()
    for each in refused:
        event = events.NewEvent(
            connector_key=connector_key, event=name, entity=entity, cause=cause, reason=each.reason, detail=each.detail
        )
        recorder.add(event, detail=each.detail)
    recorder.write(session)
    return len(taken)


def take_messages(
    connector_key: int,
    entity: Entity,
    messages: Iterable[Any],
    *,
    cause: str,
    is_export: bool,
    rank: int,
    delivery_id: int | None = None,
) -> tuple[list[HullMessage], list[Rejected]]:
    """Take messages as they came; those that cannot be used do not keep the others back."""
    taken: list[HullMessage] = []
    refused: list[Rejected] = []
    for message in messages:
        body = {**message, "is_export": is_export} if isinstance(message, dict) else message
        try:
            message_read = read_message(connector_key, entity, body, cause=cause, rank=rank)
            taken.append(replace(message_read, delivery_id=delivery_id))
        except Rejected as each:
            refused.append(each)
    return taken, refused


def fold_all(session: Session, messages: Sequence[HullMessage]) -> None:
    """Coalesce messages into the waiting changes, also those of Accounts that the Users link to."""
    folded = fold_together(messages)
    folded = fold_together([*linked_accounts(session, folded.values()), *folded.values()])
    said = [
        OutgoingReport(
            connector_key=each.connector_key,
            entity=each.entity,
            record_id=each.hull_id,
            cause=each.cause,
            payload=write_lenient(each.body),
            rank=each.rank,
            delivery_id=each.delivery_id,
        )
        for _, each in sorted(folded.items())
    ]
    for some in _portions(said):
        waiting = change_writer.write_reports(session, some)
        mine = ((waiting.get((each.connector_key, each.entity, each.record_id)), each) for each in some)
        change_writer.put_payloads(
            session, [(found.id, _together(found, each), each.rank) for found, each in mine if found is not None]
        )


def _portions(said: Sequence[OutgoingReport]) -> Iterator[list[OutgoingReport]]:
    """Cut into what one statement carries, in the same order."""
    portion: list[OutgoingReport] = []
    size = 0
    for each in said:
        if portion and (size + len(each.payload) > BYTES_AT_ONCE or len(portion) == RECORDS_AT_ONCE):
            yield portion
            portion, size = [], 0
        portion.append(each)
        size += len(each.payload)
    if portion:
        yield portion


def _together(waiting: WaitingReport, said: OutgoingReport) -> bytes:
    """Combine the waiting message and the new one; an unreadable waiting payload is dropped."""
    try:
        before = read_lenient(waiting.payload)
    except (ValueError, RecursionError):
        return said.payload
    if not isinstance(before, dict):
        return said.payload
    now = read_lenient(said.payload)
    return write_lenient(fold_messages(before, now) if waiting.rank <= said.rank else fold_messages(now, before))
