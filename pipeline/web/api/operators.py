"""Operators: who can log in, as what; their sessions and keys. Passwords are never returned; owners make keys in the console."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from flask import Response
from pydantic import BaseModel, Field

from db import api_key
from db import operator as rows
from db.connector import find_connector
from db.operator import Operator
from db.session import transaction
from pipeline.accounts import api_keys, logins, operators, passwords, second_factor
from pipeline.accounts.operators import OperatorRefused
from pipeline.domain.roles import Role
from pipeline.operations.errors import not_found
from pipeline.operations.models import Asked, Done, Shape
from pipeline.operations.values import RowId, Text
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.console.guard import require_proof, who

RoleName = Literal["viewer", "operator", "admin"]
Password = Annotated[
    str,
    Field(min_length=passwords.SHORTEST_PASSWORD, max_length=passwords.LONGEST_PASSWORD, description="Never shown."),
]


Connectors = Annotated[
    list[str] | Literal["all"] | None,
    Field(description="Ids or names of the connectors they may see and act on, or `all`; admins may see all."),
]


class OfOperator(BaseModel):
    id: RowId


class OfAnyKey(BaseModel):
    id: RowId


class OperatorShape(Shape):
    id: int
    name: str
    role: str
    state: str
    has_second_factor: bool
    connector_keys: list[int] | None
    """The connectors they may see, by number; null is all."""
    created_at: datetime


class OperatorsAnswer(BaseModel):
    operators: list[OperatorShape]


class OwnedKeyShape(BaseModel):
    """A key of an operator; the key itself is never shown again."""

    id: int
    owner: str
    name: Text
    role: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None


class OwnedKeysAnswer(BaseModel):
    keys: list[OwnedKeyShape]


class NewOperator(Asked):
    """Without a password, the operator logs in by single sign-on only."""

    name: Annotated[str, Field(min_length=1, max_length=operators.LONGEST_NAME)]
    role: RoleName
    password: Password | None = None
    connectors: Connectors = None


class ChangedOperator(Asked):
    """What is not named stays as it is."""

    role: RoleName | None = None
    state: Literal["active", "disabled"] | None = None
    password: Password | None = None
    connectors: Connectors = None


def add(operations: Operations) -> None:
    operations.get("/operators", list_operators, OperatorsAnswer, needs=Role.ADMIN)
    operations.get("/operators/keys", list_all_keys, OwnedKeysAnswer, needs=Role.ADMIN)
    operations.post("/operators/keys/<id>/revoke", revoke_any_key, Done, needs=Role.ADMIN)
    operations.post("/operators", add_operator, OperatorShape, needs=Role.ADMIN)
    operations.post("/operators/<id>", change_operator, Done, needs=Role.ADMIN)
    operations.post("/operators/<id>/log-out", log_operator_out, Done, needs=Role.ADMIN)
    operations.post("/operators/<id>/unlock", unlock_operator, Done, needs=Role.ADMIN)
    operations.post("/operators/<id>/second-factor/off", turn_off_second_factor, Done, needs=Role.ADMIN)


def list_operators() -> Response:
    """List operators."""
    with transaction() as session:
        found = rows.all_operators(session)
    return answer(OperatorsAnswer(operators=[OperatorShape.model_validate(each) for each in found]))


def list_all_keys() -> Response:
    """List the keys of all operators."""
    with transaction() as session:
        found = api_key.all_keys(session)
    shapes = [
        OwnedKeyShape(
            id=key.id,
            owner=owner.name,
            name=key.name,
            role=key.role,
            created_at=key.created_at,
            expires_at=key.expires_at,
            used_at=key.used_at,
        )
        for owner, key in found
    ]
    return answer(OwnedKeysAnswer(keys=shapes))


def revoke_any_key(path: OfAnyKey) -> Response:
    """Revoke a key of any operator."""
    if not api_keys.revoke_any_key(path.id, by=who().name):
        raise not_found("There is no such key.")
    return answer(Done(done="revoked"))


def add_operator(body: NewOperator) -> Response:
    """Add an operator; by a session whose password was entered within ten minutes, not by a key."""
    require_proof()
    keys = None if body.connectors is None else _keys(body.connectors)
    added = operators.add(body.name, body.password, Role(body.role), by=who().name, connector_keys=keys)
    return answer(OperatorShape.model_validate(added))


def change_operator(path: OfOperator, body: ChangedOperator) -> Response:
    """Change an operator's role, password, state or connectors; they have to log in again. A new password and disabling
    revoke their keys. One admin always remains. A key may only disable and limit."""
    if body.role or body.password or body.state == "active" or body.connectors == "all":
        require_proof()
    role = Role(body.role) if body.role else None
    name = _get(path.id).name
    if not (role or body.state or body.password or body.connectors is not None):
        raise OperatorRefused("say what is to change: role, state, password or connectors")
    if body.password:
        operators.require_another(path.id, who())
    keys = None if body.connectors is None else _keys(body.connectors)
    if role or body.state or body.password:
        limits: list[int] | Literal["all"] | None = keys
        if body.connectors is not None and keys is None:
            limits = "all"
        operators.change(name, by=who().name, role=role, state=body.state, password=body.password, connectors=limits)
    else:
        operators.limit(name, keys, by=who().name)
    return answer(Done(done="changed"))


def log_operator_out(path: OfOperator) -> Response:
    """End all sessions of an operator."""
    operators.log_out_everywhere(_get(path.id).name, by=who().name)
    return answer(Done(done="logged out"))


def unlock_operator(path: OfOperator) -> Response:
    """Forget an operator's failed logins, so that the next login does not have to wait."""
    logins.unlock(_get(path.id).name, by=who().name)
    return answer(Done(done="unlocked"))


def turn_off_second_factor(path: OfOperator) -> Response:
    """Turn off an operator's second factor, for a lost phone without recovery codes; not by a key."""
    require_proof()
    operators.require_another(path.id, who())
    second_factor.turn_off(_get(path.id).name, by=who().name)
    return answer(Done(done="turned off"))


def _keys(chosen: list[str] | str) -> list[int] | None:
    """None is all. Raises: OperatorRefused for a connector that is not there."""
    if isinstance(chosen, str):
        return None
    with transaction() as session:
        found = {each: find_connector(session, each) for each in chosen}
    unknown = [each for each, connector in found.items() if connector is None]
    if unknown:
        raise OperatorRefused(f"there is no connector {unknown[0]!r}")
    return [connector.key for connector in found.values() if connector is not None]


def _get(operator_id: int) -> Operator:
    with transaction() as session:
        found = session.get(Operator, operator_id)
    if found is None:
        raise not_found("There is no such operator.")
    return found
