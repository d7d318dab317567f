"""Operators, their keys, and the audit log: pages of admins."""

from __future__ import annotations

from typing import Any

from flask import request
from werkzeug.wrappers import Response

from db import api_key, audit
from db import connector as connectors
from db import operator as rows
from db.operator import Operator
from db.session import transaction
from pipeline.accounts import api_keys, logins, operators, second_factor
from pipeline.accounts.operators import OperatorRefused
from pipeline.domain.roles import Role
from pipeline.web.console import guard
from pipeline.web.console.frame import before_id, done, page
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
        people = rows.all_operators(session)
        keys = api_key.all_keys(session)
        names = {each.key: each.name for each in connectors.all_connectors(session)}
    shown: dict[str, Any] = {"people": people, "keys": keys, "names": names, "roles": list(Role), "mistake": mistake}
    return page("operators.html", status=status, **shown)


def add_operator() -> Response:
    guard.require_proof()
    form = request.form
    try:
        role = _role(form.get("role", ""))
        added = operators.add(form.get("name", ""), form.get("password") or None, role, by=guard.who().name)
    except OperatorRefused as refused:
        return show_operators(str(refused), 400)
    how = "Send them their first password by a safe way." if added.password_hash else "They log in by single sign-on."
    return done("/operators", f"{added.name} is an operator with the role {added.role}. {how}")


def change_operator(operator_id: int) -> Response:
    found = _get(operator_id)
    form = request.form
    state = form.get("state") or None
    try:
        if state not in (None, "active", "disabled"):
            raise OperatorRefused("an operator is active or disabled")
        role = _role(form["role"]) if form.get("role") else None
        password = form.get("password") or None
        if state != "disabled":
            guard.require_proof()
        if password is not None:
            operators.require_another(operator_id, guard.who())
        revoked = operators.change(found.name, by=guard.who().name, role=role, password=password, state=state)
    except OperatorRefused as refused:
        return show_operators(str(refused), 400)
    keys = f" Keys revoked: {revoked}." if revoked else ""
    return done("/operators", f"{found.name} is changed, and has to log in again.{keys}")


def limit(operator_id: int) -> Response:
    """`connector` names each connector by its number; `all` is every one."""
    found, form = _get(operator_id), request.form
    if form.get("all"):
        guard.require_proof()
    keys = [int(each) for each in form.getlist("connector") if each.isascii() and each.isdigit() and len(each) < 10]
    try:
        operators.limit(found.name, None if form.get("all") else keys, by=guard.who().name)
    except OperatorRefused as refused:
        return show_operators(str(refused), 400)
    return done(
        "/operators", f"{found.name} sees {'every connector' if form.get('all') else f'{len(keys)} connectors'}."
    )


def log_out_everywhere(operator_id: int) -> Response:
    name = _get(operator_id).name
    ended = operators.log_out_everywhere(name, by=guard.who().name)
    return done("/operators", f"{ended} sessions of {name} have ended.")


def unlock(operator_id: int) -> Response:
    name = _get(operator_id).name
    logins.unlock(name, by=guard.who().name)
    return done("/operators", f"The next login of {name} does not have to wait.")


def turn_off_second_factor(operator_id: int) -> Response:
    guard.require_proof()
    name = _get(operator_id).name
    try:
        operators.require_another(operator_id, guard.who())
    except OperatorRefused as refused:
        return show_operators(str(refused), 400)
    second_factor.turn_off(name, by=guard.who().name)
    return done("/operators", f"{name} logs in without a code until they set a second factor up again.")


def revoke_key(key_id: int) -> Response:
    if not api_keys.revoke_any_key(key_id, by=guard.who().name):
        raise guard.missing("There is no such key.")
    return done("/operators", "The key is revoked.")


def show_audit() -> Response:
    before = before_id()
    with transaction() as session:
        entries = audit.latest_entries(session, before_id=before, limit=ENTRIES + 1)
        names = {each.key: each.name for each in connectors.all_connectors(session)}
    more = entries[ENTRIES - 1].id if len(entries) > ENTRIES else None
    return page("audit.html", entries=entries[:ENTRIES], names=names, more=more)


def _get(operator_id: int) -> Operator:
    with transaction() as session:
        found = session.get(Operator, operator_id)
    if found is None:
        raise guard.missing("There is no such operator.")
    return found


def _role(given: str) -> Role:
    try:
        return Role(given)
    except ValueError:
        raise OperatorRefused(f"a role is one of {', '.join(Role)}") from None
