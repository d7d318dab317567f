"""The web app: a WSGI factory that lists its rooms.

Served by `granian --interface wsgi --factory pipeline.web.app:create_app`; docs/decisions/0004-web-server.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flask import Flask
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.middleware.proxy_fix import ProxyFix

from pipeline import wiring
from pipeline.environment import begin_or_exit
from pipeline.settings import settings
from pipeline.tasks.control import wake_control
from pipeline.web import (
    actions,
    answers,
    api,
    authorisation,
    batches,
    console,
    hull_pages,
    notifications,
    operations,
    watchman,
    webhooks,
)
from pipeline.web.doors import Doors
from pipeline.web.request_limit import RequestLimit
from pipeline.web.waker import Waker

MAX_BYTES = 64 * 1024
"""Of any body whose door names no other limit."""


def create_app(*, wake: Callable[[], None] | None = None, has_console: bool = True) -> Flask:
    """Make the app of this process.

    wake         tells the workers that a delivery was stored; by default through the broker, and only then does this process
                 see to it that alerts are judged
    has_console  False leaves out what people and their scripts use: only the doors for Hull and Pipedrive are there
    """
    begin_or_exit()
    app = OpenAPI(
        __name__,
        info=Info(title="Hull and Pipedrive", version="1", description=api.DESCRIPTION),
        doc_ui=False,
        validation_error_status=422,
        validation_error_model=api.Problem,
        validation_error_callback=api.malformed,
    )
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # as its documentation says
        app.wsgi_app, x_for=settings().trusted_proxies, x_proto=0, x_host=0, x_port=0, x_prefix=0
    )
    app.wsgi_app = RequestLimit(app.wsgi_app)  # type: ignore[method-assign]  # the same
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the provider Flask brings
    answers.furnish(app)
    doors, waker = Doors(), Waker(wake or partial(wake_control, "dispatch"))
    app.register_blueprint(webhooks.room(doors, waker))
    app.register_blueprint(notifications.room(doors, waker, wiring.notification_verifier()))
    app.register_blueprint(hull_pages.room(doors, waker))
    app.register_blueprint(actions.room(doors))
    app.register_blueprint(batches.room(doors, waker))
    app.register_blueprint(authorisation.room(doors))
    app.register_blueprint(operations.room())
    if has_console:
        console.add_to(app)
        api.add_to(app)
    if wake is None:
        watchman.start()
    return app
