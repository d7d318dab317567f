"""Notification bodies: what stands pending, shown as Hull shows it.

Source: https://github.com/hull/hull-connectors (packages/hull/src/types/notifications.js,
packages/hull/src/middlewares/full-context-body.js)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sandbox.hull.notify.pending import Moves, Pending
from sandbox.hull.records.entity import Entity, Kind
from sandbox.hull.state import HullState
from sandbox.hull.web.reports import account_report, segment_object, user_report


def notification(state: HullState, channel: str, messages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The whole body, without `kraken`, which counts the tries."""
    connector = state.connector
    return {
        "notification_id": str(uuid4()),
        "configuration": {name: connector[name] for name in ("id", "organization", "secret")},
        "channel": channel,
        "connector": {name: value for name, value in connector.items() if name != "secret"},
        "segments": _segments(state, "user"),
        "accounts_segments": _segments(state, "account"),
        "is_export": False,
        "messages": list(messages),
    }


def message(state: HullState, pending: Pending) -> dict[str, Any]:
    """One user:update or account:update message."""
    entity = pending.entity
    account = state.account_of(entity) if entity.kind == "user" else entity
    changes: dict[str, Any] = {
        "is_new": pending.is_new,
        "account": pending.account,
        "account_segments": _moves(state, "account", pending.account_segments),
    }
    shown = {
        "message_id": str(uuid4()),
        "account": {} if account is None else account_report(state, account),
        **_membership(state, "account_segments", "account_segment_ids", account),
        "changes": changes,
    }
    if entity.kind == "account":
        return shown
    changes |= {"user": pending.user, "segments": _moves(state, "user", pending.segments)}
    user = user_report(state, entity)
    del user["account"]
    return {**shown, "user": user, **_membership(state, "segments", "segment_ids", entity), "events": []}


def _segments(state: HullState, kind: Kind) -> list[dict[str, Any]]:
    return [segment_object(segment) for segment in state.segments.of_kind(kind)]


def _membership(state: HullState, name: str, ids_name: str, entity: Entity | None) -> dict[str, Any]:
    held = [] if entity is None else state.segments.holding(entity.kind, entity.id)
    return {name: [segment_object(segment) for segment in held], ids_name: [segment.id for segment in held]}


def _moves(state: HullState, kind: Kind, moves: Moves) -> dict[str, Any]:
    known = {segment.id: segment_object(segment) for segment in state.segments.of_kind(kind)}
    return {
        "entered": [known[segment_id] for segment_id in moves.entered],
        "left": [known[segment_id] for segment_id in moves.left],
    }
