"""Operators: their accounts, roles, sessions and API keys. Passwords are never returned; owners create keys in the console."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import operator as rows
from db.connector import find_connector
from db.operator import Operator
from db.session import transaction
from pipeline.accounts import logins, operators, passwords, second_factor
from pipeline.accounts.operators import OperatorRefused
from pipeline.domain.kinds import Role
from pipeline.operations.call import Call
from pipeline.operations.errors import conflict, impossible, not_found
from pipeline.operations.models import LARGEST_ID, Done, FromFile, NoRequest, RequestModel, RowId, Shape, Text, shape_of
from pipeline.operations.registry import operation
from pipeline.settings import settings

RoleName = Annotated[
    Literal["viewer", "operator", "admin"],
    Field(description="A viewer reads, an operator acts, an admin also changes settings and operators."),
]
Password = Annotated[
    str,
    Field(min_length=passwords.SHORTEST_PASSWORD, max_length=passwords.LONGEST_PASSWORD, description="Never shown."),
    FromFile(),
]
Connectors = Annotated[
    list[str] | Literal["all"] | None,
    Field(description="Ids or names of the connectors the operator may use, or `all`; admins may use all."),
]


class OperatorRequest(RequestModel):
    """An operator, by id or name."""

    id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=operators.LONGEST_NAME,
            description="The operator's id (a number) or name. A number that is the id of one and the name of another is refused.",
        ),
    ]


class KeyRequest(RequestModel):
    id: RowId


class NewOperator(RequestModel):
    """Without a password, the operator logs in by single sign-on only."""

    name: Annotated[str, Field(min_length=1, max_length=operators.LONGEST_NAME)]
    role: RoleName
    password: Password | None = None
    connectors: Connectors = None


class ChangedOperator(OperatorRequest):
    """Omitted fields stay as they are."""

    role: RoleName | None = None
    state: Annotated[Literal["active", "disabled"] | None, Field(description="Whether they can log in.")] = None
    password: Password | None = None
    connectors: Connectors = None


class OperatorShape(Shape):
    id: int
    name: str
    role: str
    state: str
    has_second_factor: bool
    connector_keys: list[int] | None
    """Keys of the connectors the operator may see; null means all."""
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


class LinkAnswer(BaseModel):
    link: str


@operation("", role=Role.ADMIN, command="operators first")
def first_link(_call: Call, _request: NoRequest) -> LinkAnswer:
    """Show the link with which the first operator is added. It works until there is an operator."""
    with transaction() as session:
        if rows.any_operator(session):
            raise impossible("An operator already exists.", "Add others: pipeline operators add NAME --role ROLE")
    return LinkAnswer(link=f"{settings().public_url}/setup?code={operators.first_code()}")


@operation("GET /operators", role=Role.ADMIN, command="operators list")
def list_operators(_call: Call, _request: NoRequest) -> OperatorsAnswer:
    """List operators."""
    with transaction() as session:
        found = rows.all_operators(session)
    return OperatorsAnswer(operators=[OperatorShape.model_validate(each) for each in found])


@operation("GET /operators/keys", role=Role.ADMIN, command="operators keys")
def list_all_keys(_call: Call, _request: NoRequest) -> OwnedKeysAnswer:
    """List the keys of all operators."""
    with transaction() as session:
        found = rows.all_keys(session)
    return OwnedKeysAnswer(keys=[shape_of(OwnedKeyShape, key, owner=owner.name) for owner, key in found])


@operation(
    "POST /operators/keys/<id>/revoke", role=Role.ADMIN, audit_action="key.revoke", command="operators revoke-key ID"
)
def revoke_any_key(call: Call, request: KeyRequest) -> Done:
    """Revoke a key of any operator."""
    with call.transaction() as session:
        name = rows.revoke_key(session, request.id)
        if name is None:
            raise not_found("There is no such key.", "Look at the list of keys.")
        call.note(session, name, detail={"key": request.id})
    return Done(done="revoked")


@operation(
    "POST /operators",
    role=Role.ADMIN,
    audit_action="operator.add",
    command="operators add NAME",
    example="ana@acme.example --role operator --password-file ana.password",
)
def add_operator(call: Call, request: NewOperator) -> OperatorShape:
    """Add an operator. Needs a login with the password entered in the last ten minutes; API keys are refused."""
    call.require_proof()
    role, password = Role(request.role), request.password
    hashed = passwords.NO_PASSWORD if password is None else operators.hash_password(password, request.name)
    with call.transaction() as session:
        keys = _connector_keys(session, request.connectors)
        added = operators.add(session, request.name, hashed, role, connector_keys=keys)
        detail: dict[str, Any] = {"role": request.role} | ({} if keys is None else {"connectors": keys})
        call.note(session, added.name, detail=detail)
        return OperatorShape.model_validate(added)


@operation(
    "POST /operators/<id>",
    role=Role.ADMIN,
    audit_action="operator.change",
    command="operators change ID",
    example="ana@acme.example --role admin",
)
def change_operator(call: Call, request: ChangedOperator) -> Done:
    """Change an operator's role, password, state or connectors.

    A new role, password or state ends the operator's sessions; a new password or disabling revokes the API keys. The
    last admin cannot be removed. With an API key you can only disable an operator and limit the connectors.
    """
    role, state, limits = request.role, request.state, request.connectors
    if role or request.password or state == "active" or limits == "all":
        call.require_proof()
    with transaction() as session:
        found = _get(session, request.id)
    if not (role or state or request.password or limits is not None):
        raise OperatorRefused("nothing to change: give role, state, password or connectors")
    if request.password:
        operators.require_another(found.id, call.caller)
    hashed = operators.hash_password(request.password, found.name) if request.password else None
    detail: dict[str, Any] = {"role": role, "state": state, "password": "changed" if hashed else None}
    with call.transaction() as session:
        operator, revoked = operators.get_locked(session, found.id), 0
        if role or state or hashed:
            revoked = operators.change(session, operator, role=Role(role) if role else None, hashed=hashed, state=state)
        if limits is not None:
            operators.limit(operator, _connector_keys(session, limits))
            detail["connectors"] = "all" if operator.connector_keys is None else operator.connector_keys
        detail["keys"] = revoked or None
        call.note(session, operator.name, detail={name: each for name, each in detail.items() if each is not None})
    return Done(done="changed")


@operation(
    "POST /operators/<id>/log-out",
    role=Role.ADMIN,
    audit_action="operator.logout",
    command="operators log-out ID",
    example="ana@acme.example",
)
def log_operator_out(call: Call, request: OperatorRequest) -> Done:
    """End all sessions of an operator."""
    with call.transaction() as session:
        operator = _get(session, request.id)
        ended = rows.close_sessions_of(session, operator.id)
        call.note(session, operator.name, detail={"sessions": ended})
    return Done(done="logged out")


@operation(
    "POST /operators/<id>/unlock",
    role=Role.ADMIN,
    audit_action="operator.unlock",
    command="operators unlock ID",
    example="ana@acme.example",
)
def unlock_operator(call: Call, request: OperatorRequest) -> Done:
    """Reset an operator's failed logins, so that the next login does not have to wait."""
    with call.transaction() as session:
        operator = _get(session, request.id)
        logins.unlock(session, operator.name)
        call.note(session, operator.name)
    return Done(done="unlocked")


@operation(
    "POST /operators/<id>/second-factor/off",
    role=Role.ADMIN,
    audit_action="second_factor.off",
    command="operators turn-off-second-factor ID",
    example="ana@acme.example",
)
def turn_off_second_factor(call: Call, request: OperatorRequest) -> Done:
    """Turn off an operator's second factor, for a lost phone without recovery codes. API keys are refused."""
    call.require_proof()
    with transaction() as session:
        operator = _get(session, request.id)
        operators.require_another(operator.id, call.caller)
        if second_factor.turn_off(operator):
            call.note(session, operator.name)
        else:
            call.found_nothing_to_do()
    return Done(done="turned off")


def _connector_keys(session: Session, chosen: list[str] | str | None) -> list[int] | None:
    """Return the keys of these connectors; None for all. Raises OperatorRefused for a connector that does not exist."""
    if chosen is None or isinstance(chosen, str):
        return None
    found = {each: find_connector(session, each) for each in chosen}
    unknown = [each for each, connector in found.items() if connector is None]
    if unknown:
        raise OperatorRefused(f"there is no connector {unknown[0]!r}")
    return [connector.key for connector in found.values() if connector is not None]


def _get(session: Session, id_or_name: str) -> Operator:
    """Return the operator with this id or name. A name that is another operator's id is refused."""
    is_number = id_or_name.isascii() and id_or_name.isdigit()
    by_id = session.get(Operator, int(id_or_name)) if is_number and int(id_or_name) <= LARGEST_ID else None
    by_name = rows.find_operator(session, id_or_name)
    if by_id is not None and by_name is not None and by_id.id != by_name.id:
        message = f"{id_or_name} is the id of one operator and the name of another."
        raise conflict(
            "ambiguous", message, f"Give the id {by_name.id}, or the name of the operator with id {by_id.id}."
        )
    found = by_id or by_name
    if found is None:
        raise not_found("There is no such operator.", "Look at the list of operators.")
    return found
