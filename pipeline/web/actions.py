"""Actions of Hull's dashboard: the button "Fetch All", and Pipedrive's fields for its tables.

Answers have the format of the connector being replaced: `{"status": "deferred"}`, `{"options": [{"value", "label"}]}`,
and for an error `{"message", "error"}`. The browser that shows the dashboard may call these routes directly, so they
have CORS headers.
Source: packages/hull/src/handlers of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from flask import Blueprint, Response, jsonify
from redis.exceptions import RedisError

from db import connector as connectors
from db.authorisation import connection_of
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS, describe
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable
from pipeline.sync.connectors import field_lists
from pipeline.sync.runs import runs
from pipeline.telemetry import logger
from pipeline.web.doors import Doors
from pipeline.web.vouched import vouched_for

Answer = Response | tuple[Response, int]

FETCHES = {"/personFetchAll": Entity.PERSON, "/orgFetchAll": Entity.ORGANIZATION}
FIELDS = {
    "/fields-pipedrive-person-in": (Entity.PERSON, False),
    "/fields-pipedrive-person-out": (Entity.PERSON, True),
    "/fields-pipedrive-org-in": (Entity.ORGANIZATION, False),
    "/fields-pipedrive-account-out": (Entity.ORGANIZATION, True),
}
"""Route → (entity of the fields, whether only writable fields are listed)."""


class Unproven(Exception):
    """The request has no valid credentials."""


def room(doors: Doors) -> Blueprint:
    """The routes."""
    routes = Blueprint("actions", __name__)
    for rule, entity in FETCHES.items():
        routes.add_url_rule(rule, rule, partial(start_fetch, doors, entity), methods=["POST"])
    for rule, (entity, writable) in FIELDS.items():
        view = partial(list_fields, doors, entity, writable=writable)
        routes.add_url_rule(rule, rule, view, methods=["POST"])
    routes.register_error_handler(Unproven, _unproven)
    routes.register_error_handler(PipelineError, _refusal)
    routes.register_error_handler(RedisError, _no_redis)
    routes.after_request(_let_browsers_ask)
    return routes


def start_fetch(doors: Doors, entity: Entity) -> Answer:
    """Start to send everything again, like the command `pipeline fetch`; do nothing if such a run is already in flight."""
    connector_key = _require_active(doors)
    try:
        run_id = runs.start_run(connector_key, entity, cause="hull")
    except runs.RunInProgress as under_way:
        message = f"A fetch of {entity.plural.capitalize()} is already in flight: run {under_way.run_id}."
        return jsonify(status="deferred", run=under_way.run_id, message=message)
    return jsonify(status="deferred", run=run_id)


def list_fields(doors: Doors, entity: Entity, *, writable: bool) -> Answer:
    """Always a list, however many there are."""
    return jsonify(options=field_lists.offered(_require_vouched(doors), entity, writable=writable))


def _require_vouched(doors: Doors) -> int:
    connector_key = vouched_for(doors)
    if connector_key is None:
        raise Unproven
    return connector_key


def _require_active(doors: Doors) -> int:
    """Raises: ConfigurationError under the reason why the connector does nothing at present."""
    connector_key = _require_vouched(doors)
    with transaction() as session:
        connector = connectors.get_connector(session, connector_key)
        how = connection_of(session, connector).how
    if how is None:
        raise ConfigurationError("not_connected")
    if connector.state != "active":
        reason = connector.pause_reason
        raise ConfigurationError(reason if reason in REASONS else "connector_paused")
    return connector_key


def _unproven(_nobody: Unproven) -> Answer:
    return _error("unauthorized", "Hull's credentials are missing or wrong.", HTTPStatus.UNAUTHORIZED)


def _refusal(refused: PipelineError) -> Answer:
    logger().warning("dashboard.refused", reason=refused.reason, detail=refused.detail)
    status, error = next(found for family, found in _STATUSES.items() if isinstance(refused, family))
    return _error(error, describe(refused.reason), status)


def _no_redis(_away: RedisError) -> Answer:
    return _refusal(Retryable("redis_unavailable"))


def _error(error: str, message: str, status: HTTPStatus) -> Answer:
    return jsonify(message=message, error=error), status


def _let_browsers_ask(answer: Response) -> Response:
    """Credentials are in the query string only, so any page that has them could call from its own server as well."""
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
"""By the family of the error, the first that fits."""
