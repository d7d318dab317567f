"""The doors of OAuth: `/auth` sends a person to Pipedrive, `/auth/callback` takes them back, Pipedrive tells there of an uninstall.

`GET|POST /auth`, `/auth/pipedrive`  for whom Hull vouches (`ship` or `id`, `organization`, `secret`), or who was invited
`GET /auth/status`                   whether the connector is connected, as JSON
`GET /auth/callback`                 the page a person sees in the end
`DELETE /auth/callback`              https://pipedrive.readme.io/docs/app-uninstallation
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from flask import Blueprint, Response, jsonify, redirect, render_template, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wrappers import Response as AnyResponse

from db import connector as connectors
from db.authorisation import connection_of
from db.session import transaction
from pipeline.domain.reasons import REASONS
from pipeline.errors import PipelineError, Retryable
from pipeline.tasks import authorisation
from pipeline.telemetry import logger
from pipeline.web.bodies import BodyRefused, read_object
from pipeline.web.doors import Doors
from pipeline.web.vouched import vouched_for

MAX_BYTES = 16 * 1024
LOOK_AGAIN_S = 2
Page = tuple[str, int]


def room(doors: Doors) -> Blueprint:
    """The routes."""
    routes = Blueprint("authorisation", __name__, url_prefix="/auth")
    for rule in ("", "/", "/pipedrive"):
        routes.add_url_rule(rule, f"begin{rule}", partial(begin, doors), methods=["GET", "POST"], strict_slashes=False)
    routes.add_url_rule("/status", "status", partial(show_status, doors), methods=["GET", "POST"])
    routes.add_url_rule("/callback", "finish", finish, methods=["GET"])
    routes.add_url_rule("/callback", "withdraw", withdraw, methods=["DELETE"])
    return routes


def begin(doors: Doors) -> AnyResponse | Page:
    """Send the person to Pipedrive."""
    connector_key = vouched_for(doors) or authorisation.invited(
        request.values.get("connector", ""), request.values.get("invitation", "")
    )
    if connector_key is None:
        logger().warning("connector.authorisation.refused", reason="authorisation_expired")
        return _page("authorisation_expired", HTTPStatus.UNAUTHORIZED)
    try:
        return redirect(authorisation.begin(connector_key), HTTPStatus.FOUND)
    except PipelineError as refused:
        return _refusal(refused)


def finish() -> AnyResponse | Page:
    """Take the person back. Whoever only looks whether the address answers (HEAD) does not use the state up, and a browser that
    comes twice is told the same twice."""
    if request.method == "HEAD":
        return Response()
    try:
        done = authorisation.finish(request.query_string.decode("latin-1"))
    except PipelineError as refused:
        return _refusal(refused)
    except SQLAlchemyError as failed:
        return _refusal(Retryable("database_unavailable", type(failed).__name__))
    waits_for = REASONS.get(done.waits_for or "")
    return render_template("authorisation.html", done=done, waits_for=waits_for), HTTPStatus.OK


def withdraw() -> Response | tuple[Response, int]:
    """Pipedrive says that the app was uninstalled. Who proves to be Pipedrive is told nothing but that it was heard."""
    given = request.authorization
    if not authorisation.is_known_app((given and given.username) or "", (given and given.password) or ""):
        logger().warning("connector.uninstall.refused", reason="unauthorized")
        answer = jsonify(error="unauthorized")
        answer.headers["WWW-Authenticate"] = 'Basic realm="app", charset="UTF-8"'
        return answer, HTTPStatus.UNAUTHORIZED
    try:
        _, told = read_object(MAX_BYTES)
    except BodyRefused as refused:
        return jsonify(error=refused.code), HTTPStatus.BAD_REQUEST
    company_id, user_id = _number(told.get("company_id")), _number(told.get("user_id"))
    if company_id is not None:
        authorisation.withdraw(company_id, user_id)
    return jsonify(status="ok")


def show_status(doors: Doors) -> tuple[Response, int]:
    """In the words of the connector this one replaces."""
    connector_key = vouched_for(doors)
    if connector_key is None:
        return jsonify(error="unauthorized"), HTTPStatus.UNAUTHORIZED
    with transaction() as session:
        how = connection_of(session, connectors.get_connector(session, connector_key)).how
    if how is None:
        return jsonify(message="Please authenticate"), HTTPStatus.BAD_REQUEST
    return jsonify(message="Connected"), HTTPStatus.OK


def _refusal(refused: PipelineError) -> Response:
    logger().warning("connector.authorisation.refused", reason=refused.reason, detail=refused.detail)
    is_passing = isinstance(refused, Retryable)
    status = HTTPStatus.SERVICE_UNAVAILABLE if is_passing else HTTPStatus.BAD_REQUEST
    answer = Response(*_page(refused.reason, status, refused.detail, is_passing=is_passing))
    if refused.reason == "authorisation_in_progress":
        answer.headers["Refresh"] = str(LOOK_AGAIN_S)
    return answer


def _page(reason: str, status: HTTPStatus, detail: str = "", *, is_passing: bool = False) -> Page:
    shown = {"reason": REASONS[reason], "code": reason, "detail": detail, "is_passing": is_passing}
    return render_template("authorisation.html", done=None, **shown), status


def _number(value: object) -> int | None:
    """As a number or as digits: which of them is documented nowhere."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
