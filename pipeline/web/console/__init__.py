"""The console: what people see and press. Every page is behind `guard`, drawn by `frame`, and answers one question first.

A room of pages is a module with `add(pages)`, and a `TAB` where it is one of a connector's; this list is all there is.
"""

from __future__ import annotations

from flask import Blueprint, Flask
from werkzeug.wrappers import Response

from pipeline.web.console import failure_acts, failures, frame, home, login, people, replays
from pipeline.web.console.guard import Pages, Refused

ROOMS = (login, home, failures, failure_acts, replays, people)


def add_to(app: Flask) -> None:
    """Give an app the console."""
    frame.furnish(app, [room.TAB for room in ROOMS if hasattr(room, "TAB")])
    routes = Blueprint("console", __name__)
    for rule, view, methods in login.open_routes():
        routes.add_url_rule(rule, view.__name__, view, methods=methods)
    pages = Pages(routes)
    for room in ROOMS:
        room.add(pages)
    app.register_blueprint(routes)
    app.register_error_handler(Refused, _refuse)


def _refuse(refused: Refused) -> Response:
    return frame.page("refused.html", status=refused.status, refused=refused)
