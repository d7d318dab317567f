"""The caller, the caller's API keys, and the audit log. Owners create keys in the console."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from db import audit, operator
from db import connector as connectors
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.operations.call import Call
from pipeline.operations.errors import not_found
from pipeline.operations.models import Done, NoRequest, PageRequest, RequestModel, RowId, Shape, Text, shape_of
from pipeline.operations.registry import operation


class MeShape(BaseModel):
    """The operator that the key belongs to."""

    name: str
    role: str


class KeyShape(Shape):
    """One of your API keys; the key itself is never shown again."""

    id: int
    name: Text
    role: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None


class KeysAnswer(BaseModel):
    keys: list[KeyShape]


class OwnKeyRequest(RequestModel):
    id: RowId


class EntryShape(Shape):
    """One action of an operator."""

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


@operation("GET /me", role=Role.VIEWER)
def show_me(call: Call, _request: NoRequest) -> MeShape:
    """Show the operator that the key belongs to, and the role."""
    return MeShape(name=call.caller.name, role=call.caller.role)


@operation("GET /me/keys", role=Role.VIEWER)
def list_keys(call: Call, _request: NoRequest) -> KeysAnswer:
    """List your keys."""
    with transaction() as session:
        found = operator.keys_of(session, call.caller.id)
    return KeysAnswer(keys=[KeyShape.model_validate(each) for each in found])


@operation("POST /me/keys/<id>/revoke", role=Role.VIEWER, audit_action="key.revoke")
def revoke_key(call: Call, request: OwnKeyRequest) -> Done:
    """Revoke one of your keys; you may revoke the one you use."""
    with call.transaction() as session:
        name = operator.revoke_key(session, request.id, operator_id=call.caller.id)
        if name is None:
            raise not_found("You have no such key.")
        call.note(session, name, detail={"key": request.id})
    return Done(done="revoked")


@operation("GET /audit", role=Role.ADMIN, command="audit list")
def list_audit(_call: Call, request: PageRequest) -> AuditAnswer:
    """List the audit log, newest first."""
    with transaction() as session:
        found = audit.latest_entries(session, before_id=request.before, limit=request.limit)
        names = {each.key: each.name for each in connectors.all_connectors(session)}
    entries = [shape_of(EntryShape, each, connector=names.get(each.connector_key or 0)) for each in found]
    return AuditAnswer(entries=entries)
