"""Messages about Users and Accounts as Hull sends them, and their results.

A journey calls `send_messages(system, user(...))` and then checks `writes(system)` and `outgoing_events(system)`.
"""

from __future__ import annotations

import json
from typing import Any

from db.failure_filter import find_failures
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import notify
from tests.journeys.pipedrive_records import age_records
from tests.system import SyncSystem

ANN, BEN, ACME, GLOBEX = "a" * 24, "b" * 24, "c" * 24, "d" * 24
"""Hull ids of two Users and two Accounts."""


def user(hull_id: str = ANN, *, segments: tuple[str, ...] = ("vip",), **attributes: Any) -> dict[str, Any]:
    """A message about a User. `account`, `account_segments` and `changes` go beside its report, all else into it."""
    beside = {name: attributes.pop(name) for name in ("account", "account_segments", "changes") if name in attributes}
    return {"user": {"id": hull_id, **attributes}, "segments": as_segments(segments), "changes": {}, **beside}


def account(hull_id: str = ACME, *, segments: tuple[str, ...] = ("vip",), **attributes: Any) -> dict[str, Any]:
    """A message about an Account."""
    beside = {name: attributes.pop(name) for name in ("changes",) if name in attributes}
    return {
        "account": {"id": hull_id, **attributes},
        "account_segments": as_segments(segments),
        "changes": {},
        **beside,
    }


def as_segments(ids: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"id": each, "name": each} for each in ids]


def send_messages(system: SyncSystem, *messages: dict[str, Any], **more: Any) -> None:
    """Notify of these, and let everything be done that is due. The channel follows from what the first one is about."""
    channel = "user:update" if "user" in messages[0] else "account:update"
    told = len(system.rows("SELECT 1 FROM deliveries"))
    notify(system, *messages, channel=channel, key=f"n{told}", **more)
    system.work()


def work_until_idle(system: SyncSystem) -> None:
    """Let all pauses pass, and do what is due then."""
    for _ in range(3):
        system.end_pauses()
        system.work()


def fetch_everything(system: SyncSystem) -> None:
    """A first full fetch of both comes to its end, and Hull's ids are learnt. What is written from here on is news."""
    for entity in Entity:
        age_records(system, entity)
        system.fetch(entity)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    system.pipedrive.ledger.mutations.clear()


def stop_hull_id_lookups(system: SyncSystem) -> None:
    """What was fetched is nobody's in Hull, as if it had never been brought there."""
    system.change_rows("UPDATE id_mappings SET resolve_at = NULL WHERE hull_id IS NULL")


def writes(system: SyncSystem, entity: str = "") -> list[tuple[str, Any, Any]]:
    """(method, Pipedrive id, body) of every write, or of those to Persons or to Organizations."""
    notes = system.pipedrive.ledger.mutations
    return [(each.method, each.entity_id, json.loads(each.body)) for each in notes if f"/{entity}" in each.path]


def outgoing_events(system: SyncSystem) -> list[tuple[str, str | None]]:
    """(event, reason) of everything outgoing."""
    return [(event, reason) for event, reason, _ in system.events() if event.startswith("outgoing")]


def event_details(system: SyncSystem, reason: str) -> list[str]:
    """What the events of one reason say."""
    return [row.detail for row in system.rows("SELECT detail FROM sync_events WHERE reason = :r ORDER BY id", r=reason)]


def failures(system: SyncSystem) -> list[tuple[str | None, str]]:
    """(record, reason) of what waits for a person."""
    with transaction() as session:
        return [(each.record_id, each.reason) for each in find_failures(session)]


def is_idle(system: SyncSystem) -> bool:
    """Nothing waits any more, and nothing is about to be made."""
    return not any(
        system.rows(f"SELECT 1 FROM {what}")  # noqa: S608 - the names stand here
        for what in (
            "changes",
            "identifiers WHERE role = 'reserved'",
            "id_mappings WHERE state IN ('creating', 'unknown')",
        )
    )


def pipedrive_id_of(system: SyncSystem, hull_id: str) -> int | None:
    """The Pipedrive id a Hull id is joined to."""
    rows = system.rows("SELECT pipedrive_id FROM id_mappings WHERE hull_id = :h AND state = 'full'", h=hull_id)
    return rows[0].pipedrive_id if rows else None


def person(system: SyncSystem, pipedrive_id: int | None) -> dict[str, Any]:
    """A Person as Pipedrive has it."""
    return _record(system, "person", pipedrive_id)


def organization(system: SyncSystem, pipedrive_id: int | None) -> dict[str, Any]:
    return _record(system, "organization", pipedrive_id)


def _record(system: SyncSystem, entity: Any, pipedrive_id: int | None) -> dict[str, Any]:
    found = system.company.record(entity, pipedrive_id or 0)
    assert found is not None
    return dict(found)


def field_code(system: SyncSystem, entity: Any, name: str) -> str:
    """Code of a custom field by its name."""
    return next(field.code for field in system.company.custom_fields(entity) if field.name == name)
