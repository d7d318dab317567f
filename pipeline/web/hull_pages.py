"""What Hull's dashboard reads: `/manifest.json`, `/readme.md`, and `/status` of one connector."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request

from db import connector as connectors
from db.session import transaction
from pipeline.settings import PROJECT_DIR
from pipeline.web import answers
from pipeline.web.doors import Doors
from pipeline.web.manifest import manifest
from pipeline.web.status import status_of

GUIDE = PROJECT_DIR / "docs" / "guide.md"


def room(doors: Doors) -> Blueprint:
    """The routes."""
    routes = Blueprint("hull_pages", __name__)
    routes.add_url_rule("/manifest.json", view_func=show_manifest)
    routes.add_url_rule("/readme.md", view_func=show_guide)
    routes.add_url_rule("/status", endpoint="status", methods=["GET", "POST"], view_func=partial(show_status, doors))
    return routes


def show_manifest() -> Response:
    return jsonify(manifest())


def show_guide() -> Response | tuple[Response, int]:
    """The customer's guide, where it is installed."""
    if not GUIDE.is_file():
        return answers.error(HTTPStatus.NOT_FOUND, "no_guide", "The guide is not installed")
    return Response(GUIDE.read_bytes(), content_type="text/markdown; charset=utf-8")


def show_status(doors: Doors) -> Response | tuple[Response, int]:
    """The status of the connector that the query names (`ship` or `id`) and proves (`organization`, `secret`)."""
    given = request.args
    connector_key = doors.admit_hull(
        given.get("ship") or given.get("id") or "", given.get("organization", ""), given.get("secret", "")
    )
    if connector_key is None:
        return answers.error(HTTPStatus.UNAUTHORIZED, "unauthorized", "Hull's credentials are missing or wrong")
    with transaction() as session:
        found = status_of(session, connectors.get_connector(session, connector_key))
    return jsonify(status=found.status, messages=found.messages)
