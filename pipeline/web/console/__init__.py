"""The console: all pages and forms. `pages` registers each with its role, `layout` renders them."""

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
"""The modules with pages; each has `add(pages)`."""


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
    """Show why a request is refused; a script of Flower gets a line of text, because it shows the answer in a small box."""
    if request.headers.get("X-Requested-With") == "XMLHttpRequest":
        return Response(f"{refused.sentence} {refused.next_step}".rstrip(), refused.status, mimetype="text/plain")
    return layout.page(
        "refused.html", connector=g.get("connector"), tab="refused", status=refused.status, refused=refused
    )


def _refuse_operation(error: OperationError) -> Response:
    """Show an error that the view did not handle."""
    return _refuse(Refused(error.status, error.message, error.next_step))


def _not_found(_error: NotFound) -> Response | tuple[Response, int]:
    """Answer an unknown address: with a page for a logged-in operator, with a line of text for others."""
    is_browser = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    g.operator = present() if is_browser else None
    if g.operator is None:
        return error(HTTPStatus.NOT_FOUND, "not_found")
    return _refuse(
        Refused(HTTPStatus.NOT_FOUND, "This address does not exist.", "Check the address, or choose a connector.")
    )
