"""Messages about Users and Accounts as Hull sends them, and their results.

A journey calls `send_messages(system, user(...))` and then checks `writes(system)` and `outgoing_events(system)`.
"""

from __future__ import annotations

import json
from typing import Any

from db.failure_filter import find_failures
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.wiring import open_connector
from tests.deliveries import notify
from tests.journeys.pipedrive_records import age_records
from tests.system import SyncSystem

ANN, BEN, ACME, GLOBEX = "a" * 24, "b" * 24, "c" * 24, "d" * 24
"""Hull ids of two Users and two Accounts."""


def user(hull_id: str = ANN, *, segments: tuple[str, ...] = ("vip",), **attributes: Any) -> dict[str, Any]:
    """Return a message about a User. `account`, `account_segments` and `changes` are members of the message."""
    beside = {name: attributes.pop(name) for name in ("account", "account_segments", "changes") if name in attributes}
    return {"user": {"id": hull_id, **attributes}, "segments": as_segments(segments), "changes": {}, **beside}


def account(hull_id: str = ACME, *, segments: tuple[str, ...] = ("vip",), **attributes: Any) -> dict[str, Any]:
    """Return a message about an Account. `changes` is a member of the message."""
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
    """Deliver a notification with these messages and run all due work. The first message decides the channel."""
    channel = "user:update" if "user" in messages[0] else "account:update"
    number = len(system.rows("SELECT 1 FROM deliveries"))
    notify(system, *messages, channel=channel, key=f"n{number}", **more)
    system.work()


def work_until_idle(system: SyncSystem) -> None:
    """End all pauses and run the work that is due then, three times."""
    for _ in range(3):
        system.end_pauses()
        system.work()


def fetch_everything(system: SyncSystem) -> None:
    """Run a full fetch of both entities, look up all Hull ids, and count writes from here on."""
    for entity in Entity:
        age_records(system, entity)
        system.fetch(entity)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    system.pipedrive.ledger.mutations.clear()


def stop_hull_id_lookups(system: SyncSystem) -> None:
    """Stop the look-up of Hull ids: no fetched record is joined with a User or an Account."""
    system.change_rows("UPDATE id_mappings SET resolve_at = NULL WHERE hull_id IS NULL")


def write_in_hull(system: SyncSystem, kind: str, claims: dict[str, str], attributes: dict[str, Any]) -> str:
    """Write attributes to Hull as another source does. Return the Hull id of the User or Account."""
    with transaction() as session:
        hull = open_connector(session, system.connector_key).hull
    writer = hull.writer()
    hull.post_batches([(writer.user_traits if kind == "user" else writer.account_traits)(claims, attributes)])
    found = [each for each in system.hull_records(kind) if claims.items() <= each.items()]
    assert len(found) == 1
    return str(found[0]["id"])


def writes(system: SyncSystem, entity: str = "") -> list[tuple[str, Any, Any]]:
    """Return (method, Pipedrive id, body) of all writes, or of those to `persons` or `organizations`."""
    notes = system.pipedrive.ledger.mutations
    return [(each.method, each.entity_id, json.loads(each.body)) for each in notes if f"/{entity}" in each.path]


def outgoing_events(system: SyncSystem) -> list[tuple[str, str | None]]:
    """Return (event, reason) of all outgoing events."""
    return [(event, reason) for event, reason, _ in system.events() if event.startswith("outgoing")]


def event_details(system: SyncSystem, reason: str) -> list[str]:
    """Return the details of the events with one reason."""
    return [row.detail for row in system.rows("SELECT detail FROM sync_events WHERE reason = :r ORDER BY id", r=reason)]


def failures(system: SyncSystem) -> list[tuple[str | None, str]]:
    """Return (record, reason) of all open failures."""
    with transaction() as session:
        return [(each.record_id, each.reason) for each in find_failures(session)]


def is_idle(system: SyncSystem) -> bool:
    """Return whether no change waits and no record is being created."""
    return not any(
        system.rows(f"SELECT 1 FROM {what}")  # noqa: S608 - constants
        for what in (
            "changes",
            "identifiers WHERE role = 'reserved'",
            "id_mappings WHERE state IN ('creating', 'unknown')",
        )
    )


def pipedrive_id_of(system: SyncSystem, hull_id: str) -> int | None:
    """Return the Pipedrive id that is joined with a Hull id."""
    rows = system.rows("SELECT pipedrive_id FROM id_mappings WHERE hull_id = :h AND state = 'full'", h=hull_id)
    return rows[0].pipedrive_id if rows else None


def person(system: SyncSystem, pipedrive_id: int | None) -> dict[str, Any]:
    """Return a Person as Pipedrive stores it."""
    return _record(system, "person", pipedrive_id)


def organization(system: SyncSystem, pipedrive_id: int | None) -> dict[str, Any]:
    """Return an Organization as Pipedrive stores it."""
    return _record(system, "organization", pipedrive_id)


def _record(system: SyncSystem, entity: Any, pipedrive_id: int | None) -> dict[str, Any]:
    found = system.company.record(entity, pipedrive_id or 0)
    assert found is not None
    return dict(found)


def field_code(system: SyncSystem, entity: Any, name: str) -> str:
    """Return the code of the custom field with this name."""
    return next(field.code for field in system.company.custom_fields(entity) if field.name == name)
