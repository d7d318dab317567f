"""Log in and out: `/setup` for the first operator, `/login`, `/login/code`, `/logout`, `/theme`."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from flask import redirect, request
from werkzeug.wrappers import Response

from db import operator as rows
from db.session import transaction
from pipeline.accounts import logins, operators
from pipeline.accounts.logins import LoggedIn, LoginRefused
from pipeline.accounts.operators import OperatorRefused
from pipeline.domain.kinds import Role
from pipeline.settings import settings
from pipeline.telemetry import logger
from pipeline.web import auth, request_origin
from pipeline.web.console.layout import THEME, THEMES, done, page
from pipeline.web.console.pages import Pages, login_page, read_pending
from pipeline.web.request_origin import cookie_named, delete_cookie, is_secure, set_cookie

YEAR_S = 365 * 86_400
PROBE: Final = "probe"
"""A cookie that tests whether the browser keeps cookies, and the parameter of the request that checks it."""


def add(pages: Pages) -> None:
    """Add the routes that need a login; `open_routes` returns the others."""
    pages.action("/logout", log_out, needs=Role.VIEWER)
    pages.action("/theme", choose_theme, needs=Role.VIEWER)


def open_routes() -> tuple[tuple[str, Callable[[], Response], list[str]], ...]:
    """Return (rule, view, methods) of the routes that need no login."""
    return (
        ("/login", show_login, ["GET"]),
        ("/login", log_in, ["POST"]),
        ("/login/code", log_in_with_code, ["POST"]),
        ("/setup", show_setup, ["GET"]),
        ("/setup", set_up, ["POST"]),
    )


def show_login() -> Response:
    """Show the login page. With single sign-on, log in the operator that the proxy names, unless another page embeds
    this one."""
    if (elsewhere := _require_cookies()) is not None:
        return elsewhere
    wanted = auth.safe_path(request.args.get("next"))
    named = request_origin.named_operator()
    if named is not None and auth.present() is not None:
        return done(wanted)
    if named is not None and request.headers.get("Sec-Fetch-Dest", "document") == "document":
        try:
            found = logins.log_in_by_proxy(named, auth.caller(), earlier=auth.token())
        except LoginRefused:
            mistake = f"Single sign-on names {named}, who is not an active operator. Ask an admin to add you."
            return page("login.html", status=HTTPStatus.FORBIDDEN, wanted=wanted, mistake=mistake)
        return _with_session(done(wanted), found)
    with transaction() as session:
        is_empty = not rows.any_operator(session)
    return page("login.html", is_empty=is_empty, wanted=wanted)


def log_in() -> Response:
    """Check name and password; then request a code from an operator with a second factor."""
    wanted, pending = _read_form()
    name, password = request.form.get("name", ""), request.form.get("password", "")
    try:
        found = logins.log_in(name, password, auth.caller(), earlier=auth.token())
    except LoginRefused as refused:
        mistake, status = _refusal(refused, "Name or password is wrong.")
        answer = login_page(wanted, pending, status=status, mistake=mistake, name=name[:100])
        return _with_wait(answer, refused)
    if isinstance(found, str):
        return page("login_code.html", ticket=found, wanted=wanted, pending=pending)
    return _finish_login(found, wanted, pending)


def log_in_with_code() -> Response:
    """Check the code of the second factor."""
    wanted, pending = _read_form()
    ticket = request.form.get("ticket", "")
    try:
        found = logins.log_in_with_code(ticket, request.form.get("code", ""), auth.caller(), earlier=auth.token())
    except LoginRefused as refused:
        mistake, status = _refusal(
            refused, "The code is wrong or was used already, or this page is older than five minutes."
        )
        answer = page("login_code.html", status=status, ticket=ticket, wanted=wanted, pending=pending, mistake=mistake)
        return _with_wait(answer, refused)
    return _finish_login(found, wanted, pending)


def log_out() -> Response:
    """End this session."""
    operators.log_out(auth.token())
    answer = redirect("/login", HTTPStatus.SEE_OTHER)
    delete_cookie(answer, auth.SESSION)
    answer.headers["Clear-Site-Data"] = '"cache", "storage"'
    return answer


def choose_theme() -> Response:
    """Store light, dark or the system's colours in a cookie."""
    theme = request.form.get("theme", "")
    answer = done(auth.safe_path(request.form.get("next")))
    if theme in THEMES:
        set_cookie(answer, THEME, theme, max_age=YEAR_S)
    else:
        delete_cookie(answer, THEME)
    return answer


def show_setup() -> Response:
    """Show the form for the first operator; `pipeline up` prints its link."""
    if (elsewhere := _require_cookies()) is not None:
        return elsewhere
    code = request.args.get("code", "")
    _require_first(code)
    return page("setup.html", code=code)


def set_up() -> Response:
    """Add the first operator and log them in."""
    auth.require_same_origin()
    code, name, password = (request.form.get(each, "") for each in ("code", "name", "password"))
    _require_first(code)
    try:
        operators.add_first(name, password)
        found = logins.log_in(name.strip(), password, auth.caller())
    except OperatorRefused as refused:
        return page("setup.html", status=HTTPStatus.BAD_REQUEST, code=code, name=name[:100], mistake=str(refused))
    except LoginRefused:
        return done("/login", "The operator was added. Log in.")
    assert isinstance(found, LoggedIn)  # noqa: S101  # a new operator has no second factor
    return _finish_login(found, "/", "")


def _require_cookies() -> Response | None:
    """Return None if the browser keeps our cookies, otherwise a page with the address to use.

    With an https PUBLIC_URL browsers reject the cookies over plain http, and a login would lead back to the login. A
    request does not show reliably how the browser reached us, so a cookie is set and read in a second request.
    """
    names = (auth.SESSION, auth.MARK, auth.DEVICE, PROBE)
    if not is_secure() or any(cookie_named(name) in request.cookies for name in names):
        return None
    if PROBE in request.args:
        logger().warning("console.refused", why="cookie_not_kept", operation=request.endpoint)
        answer = page("wrong_address.html", status=HTTPStatus.FORBIDDEN, public_url=settings().public_url)
    else:
        query = urlencode([*request.args.items(multi=True), (PROBE, "1")])
        answer = redirect(f"{request.path}?{query}", HTTPStatus.SEE_OTHER)
    set_cookie(answer, PROBE, "1")
    return answer


def _read_form() -> tuple[str, str]:
    """Return the path to open after the login, and the form that was kept until then."""
    auth.require_same_origin()
    if auth.was_logged_in():
        request.max_content_length = request.max_form_memory_size = auth.MAX_PENDING_BYTES
    auth.require_storable(request.form.values())
    return auth.safe_path(request.form.get("next")), request.form.get("pending", "")


def _refusal(refused: LoginRefused, wrong: str) -> tuple[str, HTTPStatus]:
    if refused.wait_s:
        return f"Too many attempts. Wait {round(refused.wait_s)} seconds, then try again.", HTTPStatus.TOO_MANY_REQUESTS
    return wrong, HTTPStatus.UNAUTHORIZED


def _with_wait(answer: Response, refused: LoginRefused) -> Response:
    if refused.wait_s:
        answer.headers["Retry-After"] = str(round(refused.wait_s))
    return answer


def _require_first(code: str) -> None:
    with transaction() as session:
        is_taken = rows.any_operator(session)
    if is_taken or not operators.is_first_code(code):
        raise auth.refusal(
            "first_code",
            "This link is invalid, or the first operator exists already.",
            "`pipeline operators first` prints the link while there is no operator.",
        )


def _finish_login(found: LoggedIn, wanted: str, pending: str) -> Response:
    """Open the requested page, or show the form that was kept, with a button that sends it."""
    form = read_pending(pending)
    if form is None:
        return _with_session(done(wanted), found)
    path, fields = form
    csrf = operators.csrf_of(found.token)
    return _with_session(page("pending.html", path=path, fields=fields, wanted=wanted, csrf=csrf), found)


def _with_session(answer: Response, found: LoggedIn) -> Response:
    """Set the cookies of the session and the device. A login always gets a new token, so a planted one is useless."""
    auth.keep_token(answer, found.token)
    set_cookie(answer, auth.DEVICE, found.device, max_age=YEAR_S, samesite="Strict")
    set_cookie(answer, auth.MARK, logins.new_mark(), max_age=logins.DAYS * 86_400)
    return answer
