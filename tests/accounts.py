"""Operators of tests: added and changed without a person who asks for it."""

from __future__ import annotations

from collections.abc import Collection

from db import operator as rows
from db.operator import Operator
from db.session import transaction
from pipeline.accounts import operators, passwords
from pipeline.domain.kinds import Role


def add(name: str, password: str | None, role: Role, *, connector_keys: Collection[int] | None = None) -> Operator:
    """Add an operator; without a password it logs in by single sign-on only."""
    hashed = passwords.NO_PASSWORD if password is None else operators.hash_password(password, name)
    with transaction() as session:
        return operators.add(session, name, hashed, role, connector_keys=connector_keys)


def change(name: str, *, role: Role | None = None, password: str | None = None, state: str | None = None) -> None:
    """Change the role, password or state of an operator."""
    hashed = None if password is None else operators.hash_password(password, name)
    with transaction() as session:
        operators.change(session, operators.get_locked(session, find(name).id), role=role, hashed=hashed, state=state)


def limit(name: str, connector_keys: Collection[int] | None) -> None:
    """Limit an operator to some connectors."""
    with transaction() as session:
        operators.limit(session.get_one(Operator, find(name).id), connector_keys)


def find(name: str) -> Operator:
    """Return an operator."""
    with transaction() as session:
        found = rows.find_operator(session, name)
    assert found is not None
    return found
