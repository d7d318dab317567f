"""Turn Hull's messages into outgoing changes: many messages about one record become one change.

A message comes from a notification, from an export, or from a User with an Account: Accounts are sent before the Users that link to
them, so a User may require a change of its Account. Waiting changes are read, coalesced with the new messages and written
again, in two statements for any number of records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

from sqlalchemy.orm import Session

from db import change_writer, id_mapping, joining
from db import sync_event as events
from db.change_writer import OutgoingReport, WaitingReport
from db.deletion import find_current
from pipeline.domain.json_text import is_nested_deeper, read_lenient, write_lenient
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.domain.settings import ConnectorSettings, SettingsRefused
from pipeline.errors import Rejected
from pipeline.sync.compiled import compiled_for
from pipeline.sync.event_recorder import EventRecorder
from pipeline.transform.hull_reports import REPORTED_VALUES, combine_messages, hull_id_of, pipedrive_id_of
from pipeline.transform.outgoing_filter import account_to_send

LEVELS: Final = 100
"""Deepest nesting of a message: far more than Hull's messages have, and less than what later stages cannot write."""
LINKED_USER: Final = "linked_user"
"""Cause of the change of an Account that a User requires."""
BYTES_AT_ONCE: Final = 8 * 1024 * 1024
RECORDS_AT_ONCE: Final = 2_000
"""Limits of one statement, which has at least one record: PostgreSQL accepts a thousand megabytes."""


def coalesce_messages(
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
    write_messages(session, taken)
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
    """Return (messages, why others cannot be used)."""
    taken: list[HullMessage] = []
    refused: list[Rejected] = []
    for message in messages:
        body = {**message, "is_export": is_export} if isinstance(message, dict) else message
        try:
            taken.append(read_message(connector_key, entity, body, cause=cause, rank=rank, delivery_id=delivery_id))
        except Rejected as each:
            refused.append(each)
    return taken, refused


def write_messages(session: Session, messages: Sequence[HullMessage]) -> None:
    """Coalesce messages into the waiting changes, also those of Accounts that the Users link to."""
    by_record = coalesce_by_record(messages)
    by_record = coalesce_by_record([*linked_accounts(session, by_record.values()), *by_record.values()])
    reports = [
        OutgoingReport(
            connector_key=each.connector_key,
            entity=each.entity,
            record_id=each.hull_id,
            cause=each.cause,
            payload=write_lenient(each.body),
            rank=each.rank,
            delivery_id=each.delivery_id,
        )
        for _, each in sorted(by_record.items())
    ]
    for portion in _portions(reports):
        waiting = change_writer.write_reports(session, portion)
        pairs = ((waiting.get((each.connector_key, each.entity, each.record_id)), each) for each in portion)
        change_writer.put_payloads(
            session, [(found.id, _combine(found, each), each.rank) for found, each in pairs if found is not None]
        )


def _portions(reports: Sequence[OutgoingReport]) -> Iterator[list[OutgoingReport]]:
    """Split into what one statement carries, in the same order."""
    portion: list[OutgoingReport] = []
    size = 0
    for each in reports:
        if portion and (size + len(each.payload) > BYTES_AT_ONCE or len(portion) == RECORDS_AT_ONCE):
            yield portion
            portion, size = [], 0
        portion.append(each)
        size += len(each.payload)
    if portion:
        yield portion


def _combine(waiting: WaitingReport, report: OutgoingReport) -> bytes:
    """Combine the waiting message and the new one; an unreadable waiting payload is dropped."""
    try:
        before = read_lenient(waiting.payload)
    except (ValueError, RecursionError):
        return report.payload
    if not isinstance(before, dict):
        return report.payload
    now = read_lenient(report.payload)
    return write_lenient(
        combine_messages(before, now) if waiting.rank <= report.rank else combine_messages(now, before)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HullMessage:
    """One message about a User or Account.

    rank         when it was received, in milliseconds since the epoch
    delivery_id  the notification that contained it, if any
    """

    connector_key: int
    entity: Entity
    hull_id: str
    body: dict[str, Any]
    cause: str
    rank: int
    delivery_id: int | None = None

    @property
    def key(self) -> tuple[int, str, str]:
        """Return the key of the message's record. Records are written in the order of these keys."""
        return self.connector_key, self.entity.value, self.hull_id


def read_message(
    connector_key: int, entity: Entity, body: Any, *, cause: str, rank: int, delivery_id: int | None = None
) -> HullMessage:
    """Return a message of Hull.

    Raises: Rejected("no_hull_id") or Rejected("nested_too_deeply").
    """
    report = body.get(entity.hull) if isinstance(body, dict) else None
    if not isinstance(report, dict):
        raise Rejected("no_hull_id", f"a message carries no {entity.hull}")
    hull_id = hull_id_of(report)
    body = {name: value for name, value in body.items() if name != REPORTED_VALUES}
    if is_nested_deeper(body, LEVELS):
        raise Rejected("nested_too_deeply", f"the message about {hull_id} has more than {LEVELS} levels")
    return HullMessage(
        connector_key=connector_key,
        entity=entity,
        hull_id=hull_id,
        body=body,
        cause=cause,
        rank=rank,
        delivery_id=delivery_id,
    )


def coalesce_by_record(messages: Iterable[HullMessage]) -> dict[tuple[int, str, str], HullMessage]:
    """Return one message for each record, coalesced from all messages about it in the order of receipt."""
    found: dict[tuple[int, str, str], HullMessage] = {}
    for message in messages:
        earlier = found.get(message.key)
        found[message.key] = message if earlier is None else _coalesce(earlier, message)
    return found


def _coalesce(earlier: HullMessage, later: HullMessage) -> HullMessage:
    if earlier.rank > later.rank:
        earlier, later = later, earlier
    return replace(later, body=combine_messages(earlier.body, later.body))


def linked_accounts(session: Session, messages: Iterable[HullMessage]) -> list[HullMessage]:
    """Return messages about the Accounts of these Users that are not in Pipedrive yet, with a few statements per connector."""
    of_users = sorted((each for each in messages if each.entity is Entity.PERSON), key=_connector_key)
    found: list[HullMessage] = []
    for connector_key, mine in groupby(of_users, _connector_key):
        try:
            settings = compiled_for(session, connector_key, Entity.PERSON).settings
        except SettingsRefused:  # they were valid once; the next stages report what is wrong
            continue
        found += accounts_of(session, connector_key, list(mine), settings)
    return found


def _connector_key(message: HullMessage) -> int:
    return message.connector_key


def accounts_of(
    session: Session, connector_key: int, users: Iterable[HullMessage], settings: ConnectorSettings
) -> list[HullMessage]:
    """Return the same for Users of one connector, under settings that may not be in force."""
    if not settings.link_users_in_service:
        return []
    accounts = [
        read_message(user.connector_key, Entity.ORGANIZATION, body, cause=LINKED_USER, rank=user.rank)
        for user in users
        if (body := account_to_send(user.body, settings)) is not None
    ]
    return _without_organization(session, connector_key, accounts) if accounts else []


def _without_organization(session: Session, connector_key: int, accounts: list[HullMessage]) -> list[HullMessage]:
    """Return the Accounts without an existing Organization, by the id map and by their reports."""
    hull_ids = sorted({each.hull_id for each in accounts})
    mapped = id_mapping.find_by_hull_ids(session, connector_key, Entity.ORGANIZATION, hull_ids)
    reported = {each.hull_id: pipedrive_id_of(each.body["account"]) for each in accounts if each.hull_id not in mapped}
    named = {pipedrive_id for pipedrive_id in reported.values() if pipedrive_id is not None}
    current = find_current(session, connector_key, Entity.ORGANIZATION, named) if named else {}
    return [each for each in accounts if each.hull_id in reported and current.get(reported[each.hull_id] or 0) is None]


def send_waiting_users(session: Session, connector_key: int, account_ids: Iterable[str]) -> None:
    """Send the Users of these Accounts again, as last reported, because the Accounts have an Organization now."""
    users = joining.take_awaiting(session, connector_key, account_ids)
    scope = (connector_key, Direction.OUTGOING, Entity.PERSON)
    change_writer.write_changes(session, *scope, users, cause="account_mapped")
