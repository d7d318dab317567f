"""The console: all pages and actions. `pages` registers each with its role, `layout` draws what is around it."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Flask, g, request
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from pipeline.operations.errors import OperationError
from pipeline.web.answers import error
from pipeline.web.auth import Refused, present
from pipeline.web.console import (
    accounts,
    actions,
    add_connector,
    credentials,
    failures,
    jobs,
    layout,
    login,
    logs,
    overview,
    plans,
    records,
    replays,
    runs,
    settings,
    webhooks,
    workers,
)
from pipeline.web.console.pages import Pages, RowNumber

SUBJECTS = (
    *(login, overview, settings, plans, credentials, add_connector, runs, jobs, actions, logs, failures),
    *(replays, records, webhooks, workers, accounts),
)
"""The modules of pages; each has `add(pages)`."""


def add_to(app: Flask) -> None:
    """Register the console on an app."""
    layout.register_layout(app)
    app.url_map.converters["int"] = RowNumber
    routes = Blueprint("console", __name__)
    for rule, view, methods in login.open_routes():
        routes.add_url_rule(rule, view.__name__, view, methods=methods)
    pages = Pages(routes)
    for subject in SUBJECTS:
        subject.add(pages)
    app.register_blueprint(routes)
    app.register_error_handler(Refused, _refuse)
    app.register_error_handler(OperationError, _refuse_operation)
    app.register_error_handler(NotFound, _not_found)


def _refuse(refused: Refused) -> Response:
    """A page of another program shows this answer in a corner, which has no space for a complete page."""
    if request.headers.get("X-Requested-With") == "XMLHttpRequest":
        return Response(f"{refused.sentence} {refused.next_step}".rstrip(), refused.status, mimetype="text/plain")
    return layout.page(
        "refused.html", connector=g.get("connector"), tab="refused", status=refused.status, refused=refused
    )


def _refuse_operation(error: OperationError) -> Response:
    """Errors that a page does not explain itself."""
    return _refuse(Refused(error.status, error.message, error.next_step))


def _not_found(_error: NotFound) -> Response | tuple[Response, int]:
    """Answer an unknown address: a logged-in person gets a page with a link back, anybody else one line."""
    is_browser = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    g.operator = present() if is_browser else None
    if g.operator is None:
        return error(HTTPStatus.NOT_FOUND, "not_found")
    return _refuse(
        Refused(HTTPStatus.NOT_FOUND, "There is nothing at this address.", "Follow a link, or search for a record.")
    )
