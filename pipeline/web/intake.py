"""The intake process: it receives the requests of Pipedrive and Hull, separately from the web process.

    granian --interface rsgi --factory pipeline.web.intake:create_server

It is a separate process, so that a slow page, a password hash or a remote system never delays a webhook. It serves
PATHS of PUBLIC_URL. `pipeline.web.app` serves the same paths, so a small installation does not need this process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from pipeline import wiring
from pipeline.environment import begin_or_exit
from pipeline.settings import settings
from pipeline.tasks.canvases import wake_control
from pipeline.web import answers, batches, monitoring, notifications, webhooks
from pipeline.web.credentials_check import CredentialsCheck
from pipeline.web.deliveries import Notifier
from pipeline.web.request_body import UNAUTHENTICATED_BYTES, BodyLimits
from pipeline.web.server import Server, allow_connections

PATHS: Final = ("/webhooks/", "/smart-notifier", "/batch", "/batch-accounts")
"""Paths that a reverse proxy routes to this process."""


def create_server() -> Server:
    """Return the application for granian."""
    allow_connections()
    app, limits = create_app()
    return Server(app, limits)


def create_app(*, wake: Callable[[], None] | None = None) -> tuple[Flask, BodyLimits]:
    """Return the app of this process, and the body limits of its senders.

    wake  notifies the workers that a delivery was stored; by default through the broker
    """
    begin_or_exit()
    app = Flask(__name__)
    prepare(app)
    return app, add_routes(app, CredentialsCheck(), notifier_of(wake))


def prepare(app: Flask) -> None:
    """Configure what all our apps share: body limits, proxies and error answers."""
    app.config["MAX_CONTENT_LENGTH"] = UNAUTHENTICATED_BYTES
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # its documentation assigns it like this
        app.wsgi_app, x_for=settings().trusted_proxies, x_proto=0, x_host=0, x_port=0, x_prefix=0
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the provider Flask brings
    answers.register_answers(app)


def add_routes(app: Flask, credentials: CredentialsCheck, notifier: Notifier) -> BodyLimits:
    """Add the routes of this process, and return the body limits of their senders."""
    verifier = wiring.notification_verifier()
    app.register_blueprint(webhooks.blueprint(credentials, notifier))
    app.register_blueprint(notifications.blueprint(credentials, notifier, verifier))
    app.register_blueprint(batches.blueprint(credentials, notifier))
    app.register_blueprint(monitoring.blueprint())
    of = {
        "webhooks": partial(webhooks.body_limit, credentials),
        "notifications": partial(notifications.body_limit, verifier),
        "batches": partial(batches.body_limit, credentials),
    }
    return BodyLimits(app, of)


def notifier_of(wake: Callable[[], None] | None) -> Notifier:
    """Return the notifier of the workers, by default through the broker."""
    return Notifier(wake or partial(wake_control, "dispatch"))
