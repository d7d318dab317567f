"""Routes for Hull's dashboard.

- `/manifest.json`, `/readme.md`, `/logo.png`, and `/status` of one connector.
- Actions: the button "Fetch All", and the lists of Pipedrive's fields for the settings. Answers have the format of the
  connector being replaced: `{"status": "deferred"}`, `{"options": [{"value", "label"}]}`, and for an error
  `{"message", "error"}`. The browser that shows the dashboard may call these routes directly, so they have CORS headers.
  Source: packages/hull/src/handlers of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from importlib.resources import files

from flask import Blueprint, Response, current_app, jsonify, request
from redis.exceptions import RedisError

from db import connector as connectors
from db.authorisation import connection_of
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS, describe
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable
from pipeline.jobs import status_report
from pipeline.sync import definitions
from pipeline.sync.connectors.status import status_of
from pipeline.sync.runs import runs
from pipeline.telemetry import logger
from pipeline.web import answers
from pipeline.web.credentials_check import CredentialsCheck
from pipeline.web.deliveries import Notifier
from pipeline.web.manifest import manifest

GUIDE = files("pipeline.web").joinpath("guide.md")
"""The customer's guide: in a clone a link to docs/guide.md, in a wheel a copy of it."""

Answer = Response | tuple[Response, int]

FETCHES = {"/personFetchAll": Entity.PERSON, "/orgFetchAll": Entity.ORGANIZATION}
FIELDS = {
    "/fields-pipedrive-person-in": (Entity.PERSON, False),
    "/fields-pipedrive-person-out": (Entity.PERSON, True),
    "/fields-pipedrive-org-in": (Entity.ORGANIZATION, False),
    "/fields-pipedrive-account-out": (Entity.ORGANIZATION, True),
}
"""Route → (entity of the fields, whether only writable fields are listed)."""


class Unauthenticated(Exception):
    """The request has no valid credentials."""


def pages_blueprint(credentials: CredentialsCheck, notifier: Notifier) -> Blueprint:
    """Return the routes of the manifest, the guide, the logo and the status."""
    routes = Blueprint("hull_pages", __name__)
    routes.add_url_rule("/manifest.json", view_func=show_manifest)
    routes.add_url_rule("/readme.md", view_func=show_guide)
    routes.add_url_rule("/logo.png", view_func=show_logo)
    routes.add_url_rule(
        "/status", endpoint="status", methods=["GET", "POST"], view_func=partial(show_status, credentials, notifier)
    )
    return routes


def actions_blueprint(credentials: CredentialsCheck) -> Blueprint:
    """Return the routes of the dashboard's actions."""
    routes = Blueprint("actions", __name__)
    for rule, entity in FETCHES.items():
        routes.add_url_rule(rule, rule, partial(start_fetch, credentials, entity), methods=["POST"])
    for rule, (entity, writable) in FIELDS.items():
        view = partial(list_fields, credentials, entity, writable=writable)
        routes.add_url_rule(rule, rule, view, methods=["POST"])
    routes.register_error_handler(Unauthenticated, _unauthorized)
    routes.register_error_handler(PipelineError, _refusal)
    routes.register_error_handler(RedisError, _no_redis)
    routes.after_request(_allow_browsers)
    return routes


def show_manifest() -> Response:
    """Return the manifest."""
    return jsonify(manifest())


def show_guide() -> Response:
    """Return the customer's guide."""
    return Response(GUIDE.read_bytes(), content_type="text/markdown; charset=utf-8")


def show_logo() -> Response:
    """Return the connector's logo."""
    return current_app.send_static_file("logo.png")


def show_status(credentials: CredentialsCheck, notifier: Notifier) -> Answer:
    """Return the status of the connector in the query, and have a worker write it to Hull too."""
    connector_key = credentials.authenticate_dashboard(request.values)
    if connector_key is None:
        return answers.error(HTTPStatus.UNAUTHORIZED, "unauthorized", "Hull's credentials are missing or wrong")
    with transaction() as session:
        found = status_of(session, connectors.get_connector(session, connector_key))
        status_report.enqueue(session, connector_key)
    notifier.notify()
    return jsonify(status=found.status, messages=found.messages)


def start_fetch(credentials: CredentialsCheck, entity: Entity) -> Answer:
    """Start a fetch of everything, like the command `pipeline fetch`, unless one is already in flight."""
    connector_key = _require_active(credentials)
    try:
        run_id = runs.start_run(connector_key, entity, cause="hull")
    except runs.RunInProgress as running:
        message = f"A fetch of {entity.plural.capitalize()} is already running: run {running.run_id}."
        return jsonify(status="deferred", run=running.run_id, message=message)
    return jsonify(status="deferred", run=run_id)


def list_fields(credentials: CredentialsCheck, entity: Entity, *, writable: bool) -> Answer:
    """List all fields of Pipedrive."""
    return jsonify(options=definitions.list_offered(_require_connector(credentials), entity, writable=writable))


def _require_connector(credentials: CredentialsCheck) -> int:
    connector_key = credentials.authenticate_dashboard(request.values)
    if connector_key is None:
        raise Unauthenticated
    return connector_key


def _require_active(credentials: CredentialsCheck) -> int:
    """Return the connector's key. Raises ConfigurationError with the reason why the connector does not work."""
    connector_key = _require_connector(credentials)
    with transaction() as session:
        connector = connectors.get_connector(session, connector_key)
        how = connection_of(session, connector).how
    if how is None:
        raise ConfigurationError("not_connected")
    if connector.state != "active":
        reason = connector.pause_reason
        raise ConfigurationError(reason if reason in REASONS else "connector_paused")
    return connector_key


def _unauthorized(_raised: Unauthenticated) -> Answer:
    return _error("unauthorized", "Hull's credentials are missing or wrong.", HTTPStatus.UNAUTHORIZED)


def _refusal(refused: PipelineError) -> Answer:
    logger().warning("dashboard.refused", reason=refused.reason, detail=refused.detail)
    status, error = next(found for family, found in _STATUSES.items() if isinstance(refused, family))
    return _error(error, describe(refused.reason), status)


def _no_redis(_raised: RedisError) -> Answer:
    return _refusal(Retryable("redis_unavailable"))


def _error(error: str, message: str, status: HTTPStatus) -> Answer:
    return jsonify(message=message, error=error), status


def _allow_browsers(answer: Response) -> Response:
    """Allow any origin: the credentials are in the query, so a page that has them could also call from its server."""
    answer.headers["Access-Control-Allow-Origin"] = "*"
    answer.headers["Access-Control-Allow-Methods"] = "POST"
    answer.headers["Access-Control-Allow-Headers"] = "Content-Type"
    return answer


_STATUSES: dict[type[PipelineError], tuple[HTTPStatus, str]] = {
    ConfigurationError: (HTTPStatus.UNAUTHORIZED, "configuration-error"),
    Retryable: (HTTPStatus.SERVICE_UNAVAILABLE, "transient-error"),
    Rejected: (HTTPStatus.BAD_GATEWAY, "refused"),
    PipelineError: (HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error"),
}
"""Class of the error → (status, code); the first match counts."""
