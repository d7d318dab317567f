"""An operator's own account: password, second factor, sessions and API keys. For admins: operators, their keys, audit log."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import request
from markupsafe import Markup
from werkzeug.wrappers import Response

from db import connector as connectors
from db import operator as rows
from db.operator import Operator
from db.session import transaction
from pipeline.accounts import logins, operators, second_factor
from pipeline.accounts.logins import LoginRefused
from pipeline.accounts.operators import OperatorRefused
from pipeline.domain.kinds import Role
from pipeline.operations import operators as operations
from pipeline.operations import people
from pipeline.operations.errors import OperationError
from pipeline.operations.registry import Operation
from pipeline.web import auth
from pipeline.web.console.layout import before_id, done, page, plural, split_page
from pipeline.web.console.pages import Pages, perform, sentence_of

ENTRIES = 100


def add(pages: Pages) -> None:
    pages.page("/account", show_account)
    pages.action("/account/confirm", confirm, needs=Role.VIEWER)
    pages.action("/account/password", change_password, needs=Role.VIEWER)
    pages.action("/account/second-factor", begin_second_factor, needs=Role.VIEWER)
    pages.action("/account/second-factor/confirm", confirm_second_factor, needs=Role.VIEWER)
    pages.action("/account/second-factor/off", turn_off_second_factor, needs=Role.VIEWER)
    pages.action("/account/sessions/others/end", end_other_sessions, needs=Role.VIEWER)
    pages.action("/account/sessions/<int:session_id>/end", end_session, needs=Role.VIEWER)
    pages.action("/account/keys", add_key, needs=Role.VIEWER)
    pages.action("/account/keys/<int:key_id>/revoke", revoke_key, needs=Role.VIEWER)
    pages.page("/operators", show_operators, needs=Role.ADMIN)
    pages.action("/operators", add_operator, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>", change_operator, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>/limit", limit, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>/log-out", log_out_everywhere, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>/unlock", unlock, needs=Role.ADMIN)
    pages.action("/operators/<int:operator_id>/second-factor/off", turn_off_operators_factor, needs=Role.ADMIN)
    pages.action("/operators/keys/<int:key_id>/revoke", revoke_any_key, needs=Role.ADMIN)
    pages.page("/audit", show_audit, needs=Role.ADMIN)


def show_account(mistake: str = "", status: int = 200, **shown: Any) -> Response:
    """Show the account. `shown` are values that are shown only once: a new key, a new second factor, recovery codes."""
    me = auth.who()
    with transaction() as session:
        account = session.get_one(Operator, me.id)
        values: dict[str, Any] = {
            "sessions": rows.sessions_of(session, me.id),
            "has_password": bool(account.password_hash),
            "has_second_factor": account.has_second_factor,
            "recovery_codes_left": len(account.recovery_digests),
        }
    values |= {
        "keys": perform(people.list_keys).keys,
        "usual_days": operators.USUAL_DAYS,
        "most_days": operators.MOST_DAYS,
    }
    values |= {"own_digest": operators.digest_of(auth.token()), "mistake": mistake}
    values["roles"] = [each for each in Role if Role(me.role).may(each)]
    return page("account.html", status=status, **values, **shown)


def confirm() -> Response:
    """Confirm the password; for the next ten minutes the operator can change who can log in."""
    try:
        _prove("password")
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    return done(auth.safe_path(request.form.get("next")), "Password confirmed. Now try again.")


def change_password() -> Response:
    """Change the password, end all other sessions and keys, and renew the token of this session."""
    me, renewal = auth.who(), operators.renewal_of(auth.token())
    try:
        proved = _prove("old")
        revoked = operators.change_own_password(me, request.form.get("new", ""), proved=proved, renewal=renewal)
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    keys = f" API keys revoked: {revoked}. Create new ones." if revoked else ""
    answer = done("/account", f"Password changed. All other sessions have ended.{keys}")
    return auth.keep_token(answer, renewal.new)


def begin_second_factor() -> Response:
    """Create a second factor, and show its QR code once."""
    try:
        _prove("password")
        enrolment = second_factor.begin(auth.who())
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    return show_account(secret=enrolment.secret, qr_code=Markup(enrolment.svg))  # noqa: S704  # drawn by segno


def confirm_second_factor() -> Response:
    """Turn on the second factor if the code is right, end all other sessions, and show the recovery codes once."""
    renewal = operators.renewal_of(auth.token())
    try:
        codes = second_factor.confirm(auth.who(), request.form.get("code", ""), renewal)
    except OperatorRefused as refused:
        return show_account(f"{refused}. Set up the second factor again.", status=400)
    auth.renew(renewal)
    return auth.keep_token(show_account(recovery_codes=codes), renewal.new)


def turn_off_second_factor() -> Response:
    """Turn off the operator's own second factor."""
    try:
        _prove("password")
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    second_factor.turn_off_own(auth.who())
    return done("/account", "Second factor turned off.")


def end_other_sessions() -> Response:
    """End all other sessions of the operator."""
    renewal = operators.renewal_of(auth.token())
    ended = operators.log_out_elsewhere(auth.who(), renewal)
    return auth.keep_token(done("/account", f"{plural(ended, 'other session')} ended."), renewal.new)


def end_session(session_id: int) -> Response:
    """End one of the operator's sessions."""
    if not operators.end_session(auth.who(), session_id):
        raise auth.missing("You have no such session.")
    return done("/account", "Session ended.")


def add_key() -> Response:
    """Create a key and show it once: it is in no address and no cookie."""
    form = request.form
    try:
        proved = _prove("password")
        role = Role(form["role"]) if form.get("role") in list(Role) else None
        days = form.get("days", "")
        if not (days.isascii() and days.isdigit() and len(days) <= len(str(operators.MOST_DAYS))):
            raise OperatorRefused(f"a key expires after 1 to {operators.MOST_DAYS} days")
        key = operators.create_key(auth.who(), form.get("name", ""), role=role, days=int(days), proved=proved)
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    return show_account(new_key=key)


def revoke_key(key_id: int) -> Response:
    """Revoke one of the operator's keys."""
    try:
        perform(people.revoke_key, id=key_id)
    except OperationError as error:
        raise auth.missing(error.message) from None
    return done("/account", "API key revoked.")


def _prove(field: str) -> Operator:
    """Verify the operator's password, because a stolen session must not be enough, and return the operator.

    Raises: OperatorRefused.
    """
    me = auth.who()
    with transaction() as session:
        account = session.get_one(Operator, me.id)
        age_s = rows.proof_age_s(session, operators.digest_of(auth.token()))
    if not account.password_hash:
        if age_s is None or age_s > auth.FRESH_PROOF_S:
            raise OperatorRefused("your login is older than ten minutes: log out and in again, then try again")
        return account
    try:
        proved = logins.prove(me.name, request.form.get(field, ""), auth.caller())
    except LoginRefused as refused:
        wait = f" Wait {round(refused.wait_s)} seconds, then try again." if refused.wait_s else ""
        raise OperatorRefused(f"the current password is wrong.{wait}") from None
    operators.note_proof(me, auth.token())
    return proved


def show_operators(mistake: str = "", status: int = 200) -> Response:
    with transaction() as session:
        known = connectors.all_connectors(session)
    return page(
        "operators.html",
        status=status,
        people=perform(operations.list_operators).operators,
        keys=perform(operations.list_all_keys).keys,
        connectors=known,
        roles=list(Role),
        mistake=mistake,
    )


def add_operator() -> Response:
    """Add an operator."""
    form = request.form
    fields = {"name": form.get("name", ""), "role": form.get("role", ""), "password": form.get("password") or None}
    try:
        added = perform(operations.add_operator, **fields)
    except OperationError as error:
        return show_operators(sentence_of(error), 400)
    how = "Send them their first password in a safe way." if fields["password"] else "They log in by single sign-on."
    return done("/operators", f"Added operator {added.name} with the role {added.role}. {how}")


def change_operator(operator_id: int) -> Response:
    """Change the role or password. If the form has a state, change only the state: disabling needs no confirmed password."""
    form = request.form
    given = {name: form[name] for name in ("role", "password") if form.get(name)}
    if form.get("state"):
        given = {"state": form["state"]}
    notice = "Operator changed. They have to log in again."
    return _perform(operations.change_operator, operator_id, notice, **given)


def limit(operator_id: int) -> Response:
    """Limit an operator to the connectors with the chosen ids, or allow all."""
    if request.form.get("all"):
        return _perform(
            operations.change_operator, operator_id, "The operator can see all connectors.", connectors="all"
        )
    chosen = request.form.getlist("connector")
    notice = f"The operator can see {plural(len(chosen), 'connector')}."
    return _perform(operations.change_operator, operator_id, notice, connectors=chosen)


def log_out_everywhere(operator_id: int) -> Response:
    return _perform(operations.log_operator_out, operator_id, "All sessions of the operator have ended.")


def unlock(operator_id: int) -> Response:
    return _perform(operations.unlock_operator, operator_id, "Login unlocked: the operator can log in without waiting.")


def turn_off_operators_factor(operator_id: int) -> Response:
    notice = "Second factor turned off. The operator logs in without a code until they set it up again."
    return _perform(operations.turn_off_second_factor, operator_id, notice)


def revoke_any_key(key_id: int) -> Response:
    return _perform(operations.revoke_any_key, key_id, "API key revoked.")


def show_audit() -> Response:
    entries = perform(people.list_audit, before=before_id(), limit=ENTRIES + 1).entries
    shown, more = split_page(entries, ENTRIES)
    return page("audit.html", entries=shown, more=more)


def _perform(declared: Operation[Any, Any], row_id: int, notice: str, **fields: Any) -> Response:
    try:
        perform(declared, id=row_id if declared is operations.revoke_any_key else str(row_id), **fields)
    except OperationError as error:
        if error.status is HTTPStatus.NOT_FOUND:
            raise auth.missing(error.message) from None
        return show_operators(sentence_of(error), 400)
    return done("/operators", notice)
