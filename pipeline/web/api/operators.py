"""Operators: who may come in, as what. Passwords are taken and never told; keys are made in the console, by their owner."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from flask import Response
from pydantic import BaseModel, Field

from db import operator as rows
from db.session import transaction
from pipeline import operators
from pipeline.domain.roles import Role
from pipeline.operators import OperatorRefused
from pipeline.web.api.door import Operations, answer, missing
from pipeline.web.api.shapes import Asked, Done, Shape
from pipeline.web.api.values import RowId
from pipeline.web.console.guard import who

RoleName = Literal["viewer", "operator", "admin"]
Password = Annotated[
    str,
    Field(min_length=operators.SHORTEST_PASSWORD, max_length=operators.LONGEST_PASSWORD, description="Never shown."),
]


class OfOperator(BaseModel):
    id: RowId


class OperatorShape(Shape):
    id: int
    name: str
    role: str
    state: str
    created_at: datetime


class OperatorsAnswer(BaseModel):
    operators: list[OperatorShape]


class NewOperator(Asked):
    name: Annotated[str, Field(min_length=1, max_length=operators.LONGEST_NAME)]
    role: RoleName
    password: Password


class ChangedOperator(Asked):
    """What is not named stays as it is."""

    role: RoleName | None = None
    state: Literal["active", "disabled"] | None = None
    password: Password | None = None


def add(operations: Operations) -> None:
    operations.get("/operators", list_operators, OperatorsAnswer, needs=Role.ADMIN)
    operations.post("/operators", add_operator, OperatorShape, needs=Role.ADMIN)
    operations.post("/operators/<id>", change_operator, Done, needs=Role.ADMIN)


def list_operators() -> Response:
    """List who may come in."""
    with transaction() as session:
        found = rows.all_operators(session)
    return answer(OperatorsAnswer(operators=[OperatorShape.model_validate(each) for each in found]))


def add_operator(body: NewOperator) -> Response:
    """Let somebody in."""
    added = operators.add(body.name, body.password, Role(body.role), by=who().name)
    return answer(OperatorShape.model_validate(added))


def change_operator(path: OfOperator, body: ChangedOperator) -> Response:
    """Change somebody's role, password or state; they have to log in again. The last admin stays one."""
    with transaction() as session:
        found = session.get(rows.Operator, path.id)
    if found is None:
        raise missing("There is no such operator.")
    role = Role(body.role) if body.role else None
    if not (role or body.state or body.password):
        raise OperatorRefused("say what is to change: role, state or password")
    operators.change(found.name, by=who().name, role=role, state=body.state, password=body.password)
    return answer(Done(done="changed"))
