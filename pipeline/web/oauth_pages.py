"""OAuth with Pipedrive, and Pipedrive's notice that the app was uninstalled.

`GET|POST /auth`, `/auth/pipedrive`  redirect to Pipedrive, with Hull's credentials (`ship` or `id`, `organization`,
`secret`) or an invitation
`GET /auth/status`                   return whether the connector is connected, as JSON
`GET /auth/callback`                 finish, and show the result
`DELETE /auth/callback`              uninstall: https://pipedrive.readme.io/docs/app-uninstallation
"""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, jsonify, make_response, redirect, render_template, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wrappers import Response as AnyResponse

from db import connector as connectors
from db.authorisation import connection_of
from db.session import transaction
from pipeline.domain.reasons import REASONS
from pipeline.errors import PipelineError, Retryable
from pipeline.sync.connectors import authorisation
from pipeline.telemetry import logger
from pipeline.web import request_origin
from pipeline.web.credentials_check import CredentialsCheck
from pipeline.web.request_body import BodyRefused, read_object

MAX_BYTES = 16 * 1024
RELOAD_S = 2
BROWSER: Final = "authorisation"
"""The cookie of the browser that began an authorisation, as long as the authorisation is valid."""
BROWSER_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
Page = tuple[str, int]


def blueprint(credentials: CredentialsCheck) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("authorisation", __name__, url_prefix="/auth")
    for rule in ("", "/", "/pipedrive"):
        routes.add_url_rule(
            rule, f"begin{rule}", partial(begin, credentials), methods=["GET", "POST"], strict_slashes=False
        )
    routes.add_url_rule("/status", "status", partial(show_status, credentials), methods=["GET", "POST"])
    routes.add_url_rule("/callback", "finish", finish, methods=["GET"])
    routes.add_url_rule("/callback", "withdraw", withdraw, methods=["DELETE"])
    return routes


def begin(credentials: CredentialsCheck) -> AnyResponse | Page:
    """Redirect a person with Hull's credentials to Pipedrive; show an invited person a page with a button.

    A HEAD starts nothing.
    """
    connector_key = credentials.authenticate_dashboard(request.values)
    invitation = None
    if connector_key is None:
        invitation = authorisation.find_invitation(
            request.values.get("connector", ""), request.values.get("invitation", "")
        )
    try:
        if connector_key is not None:
            return _begin_from_hull(connector_key)
        if invitation is not None:
            return _begin_invited(invitation)
    except PipelineError as refused:
        return _refusal(refused)
    logger().warning("connector.authorisation.refused", reason="authorisation_expired")
    return _page("authorisation_expired", HTTPStatus.UNAUTHORIZED)


def _begin_from_hull(connector_key: int) -> AnyResponse:
    """Redirect to Pipedrive; from another host than PUBLIC_URL, to an invitation at PUBLIC_URL first.

    Pipedrive redirects back to PUBLIC_URL, and the browser sends our cookie to its own host only.
    """
    if request.method == "HEAD":
        return Response()
    if not request_origin.is_public_host():
        with transaction() as session:
            connector = connectors.get_connector(session, connector_key)
        return redirect(authorisation.invite(connector), HTTPStatus.SEE_OTHER)
    browser = _browser() or authorisation.new_browser()
    return _with_browser(redirect(authorisation.begin(connector_key, browser), HTTPStatus.FOUND), browser)


def _begin_invited(invitation: authorisation.Invitation) -> AnyResponse:
    """Show a page with a button; after a click, a page that redirects to Pipedrive.

    A GET starts nothing, because link previews and mail scanners send one, and neither does a form of another site.
    The second page redirects by a header: our content policy blocks forms that redirect to another site.
    """
    browser = _browser() or authorisation.new_browser()
    is_click = request.headers.get("Sec-Fetch-Site") in (None, "same-origin", "none")
    if request.method != "POST" or not is_click:
        authorisation.require_unused(invitation, browser)
        return make_response(
            render_template(
                "authorisation_start.html",
                connector=invitation.connector,
                given={name: request.values[name] for name in ("connector", "invitation")},
            )
        )
    link = authorisation.begin(invitation.connector_key, browser, invitation)
    answer = make_response(render_template("authorisation_start.html", connector=invitation.connector, link=link))
    answer.headers["Refresh"] = f"0; url={link}"
    return _with_browser(answer, browser)


def finish() -> AnyResponse | Page:
    """Finish the authorisation and show the result; a repeated request gets the same page. A HEAD does not use up the state."""
    if request.method == "HEAD":
        return Response()
    try:
        done = authorisation.finish(request.query_string.decode("latin-1"), _browser())
    except PipelineError as refused:
        return _refusal(refused)
    except SQLAlchemyError as failed:
        return _refusal(Retryable("database_unavailable", type(failed).__name__))
    waits_for = REASONS.get(done.waits_for or "")
    return render_template("authorisation.html", done=done, waits_for=waits_for), HTTPStatus.OK


def _browser() -> str:
    """Return the secret in this browser's cookie, or an empty text."""
    given = request.cookies.get(request_origin.cookie_named(BROWSER), "")
    return given if BROWSER_SECRET.fullmatch(given) else ""


def _with_browser(answer: AnyResponse, browser: str) -> AnyResponse:
    """Set the browser's cookie. It is `Lax`, so that the browser sends it when Pipedrive redirects back."""
    request_origin.set_cookie(answer, BROWSER, browser, max_age=authorisation.INVITATION_S)
    return answer


def withdraw() -> Response | tuple[Response, int]:
    """Handle Pipedrive's notice that the app was uninstalled. The answer does not reveal whether the company is known."""
    given = request.authorization
    if not authorisation.is_known_app((given and given.username) or "", (given and given.password) or ""):
        logger().warning("connector.uninstall.refused", reason="unauthorized")
        answer = jsonify(error="unauthorized")
        answer.headers["WWW-Authenticate"] = 'Basic realm="app", charset="UTF-8"'
        return answer, HTTPStatus.UNAUTHORIZED
    try:
        notice = read_object(MAX_BYTES)
    except BodyRefused as refused:
        return jsonify(error=refused.code), HTTPStatus.BAD_REQUEST
    company_id, user_id = _number(notice.get("company_id")), _number(notice.get("user_id"))
    if company_id is not None:
        authorisation.withdraw(company_id, user_id)
    return jsonify(status="ok")


def show_status(credentials: CredentialsCheck) -> tuple[Response, int]:
    """Return whether the connector is connected, with the messages of the connector being replaced."""
    connector_key = credentials.authenticate_dashboard(request.values)
    if connector_key is None:
        return jsonify(error="unauthorized"), HTTPStatus.UNAUTHORIZED
    with transaction() as session:
        how = connection_of(session, connectors.get_connector(session, connector_key)).how
    if how is None:
        return jsonify(message="Please authenticate"), HTTPStatus.BAD_REQUEST
    return jsonify(message="Connected"), HTTPStatus.OK


def _refusal(refused: PipelineError) -> Response:
    logger().warning("connector.authorisation.refused", reason=refused.reason, detail=refused.detail)
    is_temporary = isinstance(refused, Retryable)
    status = HTTPStatus.SERVICE_UNAVAILABLE if is_temporary else HTTPStatus.BAD_REQUEST
    answer = Response(*_page(refused.reason, status, refused.detail, is_temporary=is_temporary))
    if refused.reason == "authorisation_in_progress":
        answer.headers["Refresh"] = str(RELOAD_S)
    return answer


def _page(reason: str, status: HTTPStatus, detail: str = "", *, is_temporary: bool = False) -> Page:
    shown = {"reason": REASONS[reason], "code": reason, "detail": detail, "is_temporary": is_temporary}
    return render_template("authorisation.html", done=None, **shown), status


def _number(value: object) -> int | None:
    """Return an id that is a number or a text of digits; Pipedrive does not document which."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
