"""Operators, their keys, and the audit log: pages of admins."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import request
from werkzeug.wrappers import Response

from db import api_key, audit
from db import connector as connectors
from db import operator as rows
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.operations import operators as people
from pipeline.operations.errors import OperationError
from pipeline.operations.registry import Operation
from pipeline.web.console import guard
from pipeline.web.console.calls import perform, sentence_of
from pipeline.web.console.frame import before_id, done, page, plural
from pipeline.web.console.guard import Pages

ENTRIES = 100


def add(pages: Pages) -> None:
    pages.page("/operators", show_operators, needs=Role.ADMIN)
    pages.action("/operators", add_operator, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>", change_operator, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>/limit", limit, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>/log-out", log_out_everywhere, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>/unlock", unlock, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>/second-factor/off", turn_off_second_factor, needs=Role.ADMIN)
    pages.action("/operators/keys/<int:key_id>/revoke", revoke_key, needs=Role.ADMIN)
    pages.page("/audit", show_audit, needs=Role.ADMIN)


def show_operators(mistake: str = "", status: int = 200) -> Response:
    with transaction() as session:
        found = rows.all_operators(session)
        keys = api_key.all_keys(session)
        names = {each.key: each.name for each in connectors.all_connectors(session)}
    shown: dict[str, Any] = {"people": found, "keys": keys, "names": names, "roles": list(Role), "mistake": mistake}
    return page("operators.html", status=status, **shown)


def add_operator() -> Response:
    """Add an operator."""
    form = request.form
    fields = {"name": form.get("name", ""), "role": form.get("role", ""), "password": form.get("password") or None}
    try:
        added = perform(people.add_operator, **fields)
    except OperationError as error:
        return show_operators(sentence_of(error), 400)
    how = "Send them their first password by a safe way." if fields["password"] else "They log in by single sign-on."
    return done("/operators", f"{added.name} is an operator with the role {added.role}. {how}")


def change_operator(operator_id: int) -> Response:
    """Change a role or password, or by the other button the state alone: disabling is an emergency and needs no proof."""
    form = request.form
    given = {name: form[name] for name in ("role", "password") if form.get(name)}
    if form.get("state"):
        given = {"state": form["state"]}
    said = "The operator is changed, and has to log in again."
    return _act(people.change_operator, operator_id, said, **given)


def limit(operator_id: int) -> Response:
    """`connector` names each connector by its number; `all` is every one."""
    if request.form.get("all"):
        return _act(people.change_operator, operator_id, "The operator sees every connector.", connectors="all")
    with transaction() as session:
        ids = {str(each.key): each.id for each in connectors.all_connectors(session)}
    chosen = [ids.get(each, each) for each in request.form.getlist("connector")]
    said = f"The operator sees {plural(len(chosen), 'connector')}."
    return _act(people.change_operator, operator_id, said, connectors=chosen)


def log_out_everywhere(operator_id: int) -> Response:
    return _act(people.log_operator_out, operator_id, "All sessions of the operator have ended.")


def unlock(operator_id: int) -> Response:
    return _act(people.unlock_operator, operator_id, "The next login of the operator does not have to wait.")


def turn_off_second_factor(operator_id: int) -> Response:
    said = "The operator logs in without a code until they set a second factor up again."
    return _act(people.turn_off_second_factor, operator_id, said)


def revoke_key(key_id: int) -> Response:
    return _act(people.revoke_any_key, key_id, "The key is revoked.")


def show_audit() -> Response:
    before = before_id()
    with transaction() as session:
        entries = audit.latest_entries(session, before_id=before, limit=ENTRIES + 1)
        names = {each.key: each.name for each in connectors.all_connectors(session)}
    more = entries[ENTRIES - 1].id if len(entries) > ENTRIES else None
    return page("audit.html", entries=entries[:ENTRIES], names=names, more=more)


def _act(declared: Operation[Any, Any], row_id: int, said: str, **fields: Any) -> Response:
    try:
        perform(declared, id=row_id if declared is people.revoke_any_key else str(row_id), **fields)
    except OperationError as error:
        if error.status is HTTPStatus.NOT_FOUND:
            raise guard.missing(error.message) from None
        return show_operators(sentence_of(error), 400)
    return done("/operators", said)
