"""Who asks, by which keys, and what was done. Keys are made in the console, by their owner."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Response
from pydantic import BaseModel

from db import api_key, audit
from db import connector as connectors
from db.audit import AuditEntry
from db.session import transaction
from pipeline.accounts import api_keys
from pipeline.domain.roles import Role
from pipeline.operations.errors import not_found
from pipeline.operations.models import Done, Listed, Shape
from pipeline.operations.values import RowId, Text
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.console.guard import who


class MeShape(BaseModel):
    """Whose key this is."""

    name: str
    role: str


class KeyShape(Shape):
    """One of your keys, by the name it was given; the key itself is never shown again."""

    id: int
    name: Text
    role: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None


class KeysAnswer(BaseModel):
    keys: list[KeyShape]


class OfKey(BaseModel):
    id: RowId


class EntryShape(Shape):
    """One thing that somebody did."""

    id: int
    at: datetime
    operator: str
    connector: str | None
    action: str
    subject: str
    why: str | None
    origin: str | None
    """The address and key, or the command line's host."""
    detail: dict[str, Any] | None


class AuditAnswer(BaseModel):
    entries: list[EntryShape]


def add(operations: Operations) -> None:
    operations.get("/me", show_me, MeShape)
    operations.get("/me/keys", list_keys, KeysAnswer)
    operations.post("/me/keys/<id>/revoke", revoke_key, Done, needs=Role.VIEWER)
    operations.get("/audit", list_audit, AuditAnswer, needs=Role.ADMIN)


def show_me() -> Response:
    """Show whose key this is, and what it may do."""
    return answer(MeShape(name=who().name, role=who().role))


def list_keys() -> Response:
    """List your keys."""
    with transaction() as session:
        return answer(KeysAnswer(keys=[KeyShape.model_validate(each) for each in api_key.keys_of(session, who().id)]))


def revoke_key(path: OfKey) -> Response:
    """Revoke one of your keys, this one too."""
    if not api_keys.revoke_own_key(who(), path.id):
        raise not_found("You have no such key.")
    return answer(Done(done="revoked"))


def list_audit(query: Listed) -> Response:
    """List what operators have done, newest first."""
    with transaction() as session:
        found = audit.latest_entries(session, before_id=query.before, limit=query.limit)
        names = {each.key: each.name for each in connectors.all_connectors(session)}
    return answer(AuditAnswer(entries=[_entry(each, names) for each in found]))


def _entry(entry: AuditEntry, names: dict[int, str]) -> EntryShape:
    told = {name: getattr(entry, name) for name in EntryShape.model_fields if name != "connector"}
    return EntryShape(**told, connector=names.get(entry.connector_key or 0))
