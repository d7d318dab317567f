"""An operator's own account: password, second factor, sessions, keys for scripts."""

from __future__ import annotations

from typing import Any

from flask import request
from markupsafe import Markup
from werkzeug.wrappers import Response

from db import api_key, audit
from db import operator as rows
from db.operator import Operator
from db.session import transaction
from pipeline.accounts import logins, operators, second_factor
from pipeline.accounts.logins import LoginRefused
from pipeline.accounts.operators import OperatorRefused
from pipeline.domain.kinds import Role
from pipeline.operations import people
from pipeline.operations.errors import OperationError
from pipeline.web.console import guard
from pipeline.web.console.calls import perform
from pipeline.web.console.frame import done, page
from pipeline.web.console.guard import Pages


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


def show_account(mistake: str = "", status: int = 200, **shown: Any) -> Response:
    """The page. `shown` is what appears only now: a new key, a new second factor, recovery codes."""
    me = guard.who()
    with transaction() as session:
        account = session.get_one(Operator, me.id)
        values: dict[str, Any] = {
            "keys": api_key.keys_of(session, me.id),
            "sessions": rows.sessions_of(session, me.id),
            "has_password": bool(account.password_hash),
            "has_second_factor": account.has_second_factor,
            "recovery_codes_left": len(account.recovery_digests),
        }
    values |= {"usual_days": operators.USUAL_DAYS, "most_days": operators.MOST_DAYS}
    values |= {"own_digest": operators.digest_of(guard.token()), "mistake": mistake}
    values["roles"] = [each for each in Role if Role(me.role).may(each)]
    return page("account.html", status=status, **values, **shown)


def confirm() -> Response:
    """Enter the password again; for the next ten minutes operators may be changed."""
    try:
        _prove("password")
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    return done(guard.safe_path(request.form.get("next")), "Confirmed. Now repeat what you wanted to do.")


def change_password() -> Response:
    """End all other sessions and keys; this session continues with a new token."""
    me, renewal = guard.who(), operators.renewal_of(guard.token())
    try:
        proved = _prove("old")
        revoked = operators.change_own_password(me, request.form.get("new", ""), proved=proved, renewal=renewal)
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    keys = f" Keys revoked: {revoked}; make new ones." if revoked else ""
    answer = done("/account", f"The password is changed, and every other session has ended.{keys}")
    return guard.keep_token(answer, renewal.new)


def begin_second_factor() -> Response:
    """Show the QR code, on this answer only."""
    try:
        _prove("password")
        enrolment = second_factor.begin(guard.who())
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    return show_account(secret=enrolment.secret, qr_code=Markup(enrolment.svg))  # noqa: S704  # drawn by segno


def confirm_second_factor() -> Response:
    """Turn it on once a code is right, and end every other session; the recovery codes are on this answer only."""
    renewal = operators.renewal_of(guard.token())
    try:
        codes = second_factor.confirm(guard.who(), request.form.get("code", ""), renewal)
    except OperatorRefused as refused:
        return show_account(f"{refused}. Set the second factor up again.", status=400)
    guard.renew(renewal)
    return guard.keep_token(show_account(recovery_codes=codes), renewal.new)


def turn_off_second_factor() -> Response:
    """Turn it off."""
    me = guard.who()
    try:
        _prove("password")
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    with transaction() as session:
        if second_factor.turn_off(session.get_one(Operator, me.id)):
            audit.note(session, me.name, "second_factor.off", me.name)
    return done("/account", "The second factor is off.")


def end_other_sessions() -> Response:
    """Log out everywhere else."""
    renewal = operators.renewal_of(guard.token())
    ended = operators.log_out_elsewhere(guard.who(), renewal)
    return guard.keep_token(done("/account", f"{ended} other sessions have ended."), renewal.new)


def end_session(session_id: int) -> Response:
    """End one session."""
    if not operators.end_session(guard.who(), session_id):
        raise guard.missing("You have no such session.")
    return done("/account", "The session has ended.")


def add_key() -> Response:
    """Make a key. It is on this answer only: in no address and no cookie."""
    form = request.form
    try:
        proved = _prove("password")
        role = Role(form["role"]) if form.get("role") in list(Role) else None
        days = form.get("days", "")
        if not (days.isascii() and days.isdigit() and len(days) <= len(str(operators.MOST_DAYS))):
            raise OperatorRefused(f"a key expires after 1 to {operators.MOST_DAYS} days")
        key = operators.make_key(guard.who(), form.get("name", ""), role=role, days=int(days), proved=proved)
    except OperatorRefused as refused:
        return show_account(str(refused), status=400)
    return show_account(new_key=key)


def revoke_key(key_id: int) -> Response:
    """Revoke one of the operator's keys."""
    try:
        perform(people.revoke_key, id=key_id)
    except OperationError as error:
        raise guard.missing(error.message) from None
    return done("/account", "The key is revoked.")


def _prove(field: str) -> Operator:
    """Verify the person's password: a stolen session alone must not be enough.

    Return the operator as verified. Raises: OperatorRefused.
    """
    me = guard.who()
    with transaction() as session:
        account = session.get_one(Operator, me.id)
        age_s = rows.proof_age_s(session, operators.digest_of(guard.token()))
    if not account.password_hash:
        if age_s is None or age_s > guard.FRESH_PROOF_S:
            raise OperatorRefused("your login is older than ten minutes: log out and in again, then repeat this")
        return account
    try:
        proved = logins.prove(me.name, request.form.get(field, ""), guard.caller())
    except LoginRefused as refused:
        wait = f" Wait {round(refused.wait_s)} seconds, then try again." if refused.wait_s else ""
        raise OperatorRefused(f"the present password is wrong.{wait}") from None
    with transaction() as session:
        rows.note_proof(session, operators.digest_of(guard.token()))
        audit.note(session, me.name, "operator.confirm", me.name)
    return proved
