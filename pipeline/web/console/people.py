"""Operators, one's own account, and the audit log."""

from __future__ import annotations

from flask import request
from werkzeug.wrappers import Response

from db import audit
from db import connector as connectors
from db import operator as rows
from db.session import transaction
from pipeline import operators
from pipeline.domain.roles import Role
from pipeline.operators import OperatorRefused
from pipeline.web.console import guard
from pipeline.web.console.frame import before_id, done, page
from pipeline.web.console.guard import Pages

ENTRIES = 100


def add(pages: Pages) -> None:
    pages.page("/operators", show_operators, needs=Role.ADMIN)
    pages.action("/operators", add_operator, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>", change_operator, needs=Role.ADMIN)
    pages.page("/account", show_account)
    pages.action("/account/password", change_password, needs=Role.VIEWER)
    pages.action("/account/keys", add_key, needs=Role.VIEWER)
    pages.action("/account/keys/<int:key_id>/drop", drop_key, needs=Role.VIEWER)
    pages.page("/audit", show_audit, needs=Role.ADMIN)


def show_operators(mistake: str = "", status: int = 200) -> Response:
    with transaction() as session:
        people = rows.all_operators(session)
    return page("operators.html", status=status, people=people, roles=list(Role), mistake=mistake)


def add_operator() -> Response:
    form = request.form
    try:
        role = _role(form.get("role", ""))
        added = operators.add(form.get("name", ""), form.get("password", ""), role, by=guard.who().name)
    except OperatorRefused as refused:
        return show_operators(str(refused), 400)
    return done(
        "/operators", f"{added.name} may come in as {added.role}. Tell them their first password by a safe way."
    )


def change_operator(operator_id: int) -> Response:
    with transaction() as session:
        found = session.get(rows.Operator, operator_id)
    if found is None:
        raise guard.missing("There is no such operator.")
    form = request.form
    state = form.get("state") or None
    try:
        if state not in (None, "active", "disabled"):
            raise OperatorRefused("an operator is active or disabled")
        role = _role(form["role"]) if form.get("role") else None
        password = form.get("password") or None
        operators.change(found.name, by=guard.who().name, role=role, password=password, state=state)
    except OperatorRefused as refused:
        return show_operators(str(refused), 400)
    return done("/operators", f"{found.name} is changed, and has to log in again.")


def show_account(mistake: str = "", key: str = "", status: int = 200) -> Response:
    with transaction() as session:
        keys = rows.keys_of(session, guard.who().id)
    return page("account.html", status=status, keys=keys, new_key=key, mistake=mistake)


def change_password() -> Response:
    form, me = request.form, guard.who()
    try:
        operators.prove(me.name, form.get("old", ""), request.remote_addr or "")
        operators.change(me.name, by=me.name, password=form.get("new", ""))
    except operators.LoginRefused:
        return show_account("The present password is wrong.", status=400)
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    return done("/login", "The password is changed. Log in with the new one.")


def add_key() -> Response:
    """The key stands on the answer itself, once: it is in no address and no cookie."""
    name = request.form.get("name", "").strip()[:100] or "script"
    return show_account(key=operators.make_key(guard.who().id, name, by=guard.who().name))


def drop_key(key_id: int) -> Response:
    with transaction() as session:
        if not rows.drop_key(session, guard.who().id, key_id):
            raise guard.missing("There is no such key of yours.")
        audit.note(session, guard.who().name, "key.drop", str(key_id))
    return done("/account", "The key opens nothing any more.")


def show_audit() -> Response:
    before = before_id()
    with transaction() as session:
        entries = audit.latest_entries(session, before_id=before, limit=ENTRIES + 1)
        names = {each.key: each.name for each in connectors.all_connectors(session)}
    more = entries[ENTRIES - 1].id if len(entries) > ENTRIES else None
    return page("audit.html", entries=entries[:ENTRIES], names=names, more=more)


def _role(given: str) -> Role:
    try:
        return Role(given)
    except ValueError:
        raise OperatorRefused(f"a role is one of {', '.join(Role)}") from None
