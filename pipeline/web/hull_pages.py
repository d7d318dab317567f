"""What Hull's dashboard reads: `/manifest.json`, `/readme.md`, `/logo.png`, and `/status` of one connector."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from importlib.resources import files

from flask import Blueprint, Response, current_app, jsonify

from db import connector as connectors
from db.session import transaction
from pipeline.jobs import status_report
from pipeline.sync.connectors.status import status_of
from pipeline.web import answers
from pipeline.web.doors import Doors
from pipeline.web.manifest import manifest
from pipeline.web.vouched import vouched_for
from pipeline.web.waker import Waker

GUIDE = files("pipeline.web").joinpath("guide.md")
"""The customer's guide: in a clone a link to docs/guide.md, in a wheel a copy of it."""


def room(doors: Doors, waker: Waker) -> Blueprint:
    """The routes."""
    routes = Blueprint("hull_pages", __name__)
    routes.add_url_rule("/manifest.json", view_func=show_manifest)
    routes.add_url_rule("/readme.md", view_func=show_guide)
    routes.add_url_rule("/logo.png", view_func=show_logo)
    routes.add_url_rule(
        "/status", endpoint="status", methods=["GET", "POST"], view_func=partial(show_status, doors, waker)
    )
    return routes


def show_manifest() -> Response:
    return jsonify(manifest())


def show_guide() -> Response:
    """Return the customer's guide."""
    return Response(GUIDE.read_bytes(), content_type="text/markdown; charset=utf-8")


def show_logo() -> Response:
    """The picture next to the connector's name."""
    return current_app.send_static_file("logo.png")


def show_status(doors: Doors, waker: Waker) -> Response | tuple[Response, int]:
    """Return the status of the connector in the query (`ship` or `id`, authenticated by `organization`, `secret`).

    A worker writes the status to Hull as well, where it stays until the next time.
    """
    connector_key = vouched_for(doors)
    if connector_key is None:
        return answers.error(HTTPStatus.UNAUTHORIZED, "unauthorized", "Hull's credentials are missing or wrong")
    with transaction() as session:
        found = status_of(session, connectors.get_connector(session, connector_key))
        status_report.enqueue(session, connector_key)
    waker.wake()
    return jsonify(status=found.status, messages=found.messages)
