"""Coming and going: `/setup` for the first person, `/login`, `/logout`, `/theme`."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from flask import redirect, request
from werkzeug.wrappers import Response

from db import operator as rows
from db.session import transaction
from pipeline import operators
from pipeline.domain.roles import Role
from pipeline.operators import LoginRefused, OperatorRefused
from pipeline.web.console import guard
from pipeline.web.console.frame import THEME, THEMES, done, page
from pipeline.web.console.guard import Pages

YEAR_S = 365 * 86_400


def add(pages: Pages) -> None:
    """The routes that need nobody to be logged in are the blueprint's own; see `open_routes`."""
    pages.action("/logout", log_out, needs=Role.VIEWER)
    pages.action("/theme", choose_theme, needs=Role.VIEWER)


def open_routes() -> tuple[tuple[str, Callable[[], Response], list[str]], ...]:
    """(rule, view, methods) of what anybody may ask for."""
    return (
        ("/login", show_login, ["GET"]),
        ("/login", log_in, ["POST"]),
        ("/setup", show_setup, ["GET"]),
        ("/setup", set_up, ["POST"]),
    )


def show_login() -> Response:
    with transaction() as session:
        is_empty = not rows.any_operator(session)
    return page("login.html", is_empty=is_empty, wanted=guard.safe_path(request.args.get("next")))


def log_in() -> Response:
    guard.require_same_origin()
    request.max_content_length = request.max_form_memory_size = guard.MAX_PENDING_BYTES
    wanted = guard.safe_path(request.form.get("next"))
    guard.require_storable(request.form.values())
    pending = request.form.get("pending", "")
    name, password = request.form.get("name", ""), request.form.get("password", "")
    try:
        token, _ = operators.log_in(name, password, request.remote_addr or "")
    except LoginRefused as refused:
        wait_s = round(refused.wait_s)
        sentence = f"Too many tries. Wait {wait_s} seconds, then try again." if wait_s else "Name or password is wrong."
        status = HTTPStatus.TOO_MANY_REQUESTS if wait_s else HTTPStatus.UNAUTHORIZED
        answer = guard.login_page(wanted, pending, status=status, mistake=sentence, name=name[:100])
        if wait_s:
            answer.headers["Retry-After"] = str(wait_s)
        return answer
    form = guard.read_pending(pending)
    return _welcome(token, wanted) if form is None else _show_pending(token, wanted, *form)


def _show_pending(token: str, wanted: str, path: str, fields: list[tuple[str, str]]) -> Response:
    """Show what waited for the login, with a button that sends it; nothing is sent before."""
    answer = page("pending.html", path=path, fields=fields, wanted=wanted, csrf=operators.csrf_of(token))
    return _with_session(answer, token)


def log_out() -> Response:
    operators.log_out(guard.token())
    answer = redirect("/login", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(guard.cookie_name(), secure=guard.is_secure(), httponly=True, samesite="Lax")
    return answer


def choose_theme() -> Response:
    """Light, dark, or as the system has it; kept by the browser."""
    theme = request.form.get("theme", "")
    answer = done(guard.safe_path(request.form.get("next")))
    if theme in THEMES:
        answer.set_cookie(THEME, theme, max_age=YEAR_S, httponly=True, samesite="Lax", secure=guard.is_secure())
    else:
        answer.delete_cookie(THEME)
    return answer


def show_setup() -> Response:
    """The page that `pipeline up` names while nobody has been let in yet."""
    code = request.args.get("code", "")
    _require_first(code)
    return page("setup.html", code=code)


def set_up() -> Response:
    guard.require_same_origin()
    code, name = request.form.get("code", ""), request.form.get("name", "")
    _require_first(code)
    try:
        operator = operators.add_first(name, request.form.get("password", ""))
    except OperatorRefused as refused:
        return page("setup.html", status=HTTPStatus.BAD_REQUEST, code=code, name=name[:100], mistake=str(refused))
    with transaction() as session:
        token = operators.open_session(session, operator)
    return _welcome(token, "/")


def _require_first(code: str) -> None:
    with transaction() as session:
        is_taken = rows.any_operator(session)
    if is_taken or not operators.is_first_code(code):
        raise guard.refusal(
            "first_code",
            "This link does not let anybody in: it is wrong, or the first operator exists already.",
            "`pipeline operators first` prints the link while there is no operator.",
        )


def _welcome(token: str, wanted: str) -> Response:
    """A new session has a new token: whoever planted one before the login has nothing of it."""
    return _with_session(done(wanted), token)


def _with_session(answer: Response, token: str) -> Response:
    answer.set_cookie(guard.cookie_name(), token, httponly=True, samesite="Lax", secure=guard.is_secure(), path="/")
    return answer
