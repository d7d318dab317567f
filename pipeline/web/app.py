"""The web app: all routes for Hull, Pipedrive, people and scripts, in one process.

    granian --interface rsgi --factory pipeline.web.app:create_server

docs/decisions/0004-web-server.md has the figures. In a larger installation `pipeline.web.intake` receives the requests
of Pipedrive and Hull; this app serves the same paths, but a reverse proxy routes them to that process.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from pipeline.environment import begin_or_exit
from pipeline.web import api, auth, console, hull_dashboard, intake, monitoring, oauth_pages
from pipeline.web.credentials_check import CredentialsCheck
from pipeline.web.request_body import BodyLimits
from pipeline.web.server import Server, allow_connections


def create_server() -> Server:
    """Return the application for granian, and start the watchdog, which evaluates alerts while no worker does."""
    allow_connections()
    app, limits = _build(None, has_console=True)
    monitoring.start_watchdog()
    return Server(app, limits)


def create_app(*, wake: Callable[[], None] | None = None, has_console: bool = True) -> Flask:
    """Return the app without the server, as tests call it.

    wake         notifies the workers that a delivery was stored; by default through the broker
    has_console  False omits the console and the API
    """
    return _build(wake, has_console=has_console)[0]


def _build(wake: Callable[[], None] | None, *, has_console: bool) -> tuple[Flask, BodyLimits]:
    begin_or_exit()
    app = OpenAPI(
        __name__,
        info=Info(title="Hull and Pipedrive", version="1", description=api.DESCRIPTION),
        doc_ui=False,
        validation_error_status=422,
        validation_error_model=api.Problem,
        validation_error_callback=api.malformed,
    )
    intake.prepare(app)
    credentials, notifier = CredentialsCheck(), intake.notifier_of(wake)
    limits = intake.add_routes(app, credentials, notifier)
    app.register_blueprint(hull_dashboard.pages_blueprint(credentials, notifier))
    app.register_blueprint(hull_dashboard.actions_blueprint(credentials))
    app.register_blueprint(oauth_pages.blueprint(credentials))
    if has_console:
        console.add_to(app)
        api.add_to(app)
        limits.add({"console": auth.body_limit, "api": api.body_limit})
    return app, limits
