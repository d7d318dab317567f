"""A Hull organization with one connector, in one process: `create_app` gives the WSGI app, `app.extensions["hull"]`
its state.

Nothing here is imported from the pipeline: an independent witness, built from Hull's documentation and its clients'
code.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Flask

from sandbox.app import SandboxApp
from sandbox.faults import Faults
from sandbox.hull.notify.notifier import Notifier
from sandbox.hull.seeding import populate
from sandbox.hull.state import HullState, iso
from sandbox.hull.web.api import api, firehose
from sandbox.hull.web.control import CONTROLS
from sandbox.hull.web.faults import FAULT_KINDS
from sandbox.hull.web.files import files
from sandbox.hull.web.token import TokenVerifier

RECEIVED_LIMIT = 200_000  # messages kept for listing; totals are kept for all
MAX_BODY_BYTES = 50_000_000


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
    notifier, faults = Notifier(state), Faults(FAULT_KINDS)
    state.listener, state.connector_listener = notifier.record_changed, notifier.connector_changed
    populate(state, seed=seed, users=users, accounts=accounts)
    app = SandboxApp(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.extensions["hull"] = state
    app.extensions["hull_verifier"] = TokenVerifier(connector_id, secret)
    app.extensions["hull_notifier"] = notifier
    app.extensions["hull_faults"] = faults
    app.before_request(faults.before_view)
    app.after_request(faults.after_view)
    app.register_blueprint(firehose)
    app.register_blueprint(api)
    app.add_controls([*CONTROLS, *faults.controls()])
    app.register_blueprint(files)
    app.url_map.redirect_defaults = False  # two paths may mean one kind; neither redirects to the other
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
