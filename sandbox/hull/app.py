"""A Hull organization with one connector, in one process: `create_app` gives the WSGI app, `app.extensions["hull"]`
its state.

Nothing here is imported from the pipeline: an independent witness, built from Hull's documentation and its clients'
code.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.routing import Map

from sandbox import control
from sandbox.faults import Faults
from sandbox.hull.notify.notifier import Notifier
from sandbox.hull.seeding import populate
from sandbox.hull.state import HullState, iso
from sandbox.hull.web.api import api, firehose
from sandbox.hull.web.control import CONTROLS
from sandbox.hull.web.faults import STYLE, install
from sandbox.hull.web.files import files
from sandbox.hull.web.token import TokenVerifier

RECEIVED_LIMIT = 200_000  # messages kept for listing; totals are kept for all
MAX_BODY_BYTES = 50_000_000


_compiled: list[Map] = []
"""The routes of the first app of this process: all apps have the same, and compiling them is most of the work of making one."""


class HullApp(Flask):
    """A Flask app that compiles its routes only if it is the first of its process."""

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Register a view; its rule too, unless another app did."""
        if not _compiled:
            super().add_url_rule(rule, endpoint, view_func, provide_automatic_options, **options)
        elif endpoint and view_func:
            self.view_functions[endpoint] = view_func


def create_app(
    *,
    seed: int = 1,
    users: int = 0,
    accounts: int = 0,
    connector_id: str,
    secret: str,
    organization: str,
    received_limit: int = RECEIVED_LIMIT,
) -> Flask:
    """Make a Hull whose organization holds `users` Users and `accounts` Accounts, the same ones for the same `seed`."""
    connector = _connector(connector_id, secret, organization)
    state = HullState(connector=connector, clock=time.time, received_limit=received_limit)
    notifier, faults = Notifier(state), Faults(STYLE)
    state.listener, state.connector_listener = notifier.record_changed, notifier.connector_changed
    populate(state, seed=seed, users=users, accounts=accounts)
    app = HullApp(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.extensions["hull"] = state
    app.extensions["hull_verifier"] = TokenVerifier(connector_id, secret)
    app.extensions["hull_notifier"] = notifier
    app.extensions["hull_faults"] = faults
    install(app, faults)
    app.register_blueprint(firehose)
    app.register_blueprint(api)
    control.add(app, [*CONTROLS, *control.fault_controls(faults)])
    app.register_blueprint(files)
    if not _compiled:
        app.url_map.redirect_defaults = False  # two paths may mean one kind; neither redirects to the other
        _compiled.append(app.url_map)
    app.url_map = _compiled[0]
    return app


def _connector(connector_id: str, secret: str, organization: str) -> dict[str, Any]:
    """The object `GET app` answers, as a fresh installation has it."""
    now = iso(time.time())
    return {
        "id": connector_id,
        "name": "Pipedrive",
        "type": "ship",
        "description": "",
        "organization": organization,
        "secret": secret,
        "tags": ["incoming", "outgoing", "batch", "batch-accounts", "kraken-exports"],
        "source_url": "",
        "index": "",
        "manifest_url": "",
        "homepage_url": "",
        "picture": "",
        "extra": {},
        "settings": {},
        "private_settings": {},
        "manifest": {},
        "status": {},
        "accept_incoming_webhooks": True,
        "created_at": now,
        "updated_at": now,
    }
