"""A Hull organization with one connector: `create_app` returns the WSGI app, `app.extensions["hull"]` its state.

It is an independent witness, built from Hull's documentation and its clients' code: nothing here is imported from the
pipeline. An organization may start with Users and Accounts, the same ones for the same seed. Every second Account has the
domain of an Organization that the sandbox's Pipedrive generates; the other Accounts and all Users are Hull's own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from flask import Flask

from sandbox.app import SandboxApp
from sandbox.company import names
from sandbox.faults import Faults
from sandbox.hull.answers import FAULT_KINDS
from sandbox.hull.api import api, firehose
from sandbox.hull.control import CONTROLS, files
from sandbox.hull.firehose import TokenVerifier
from sandbox.hull.identity import Claims, HullRecord, Kind
from sandbox.hull.notifier import HullNotifier
from sandbox.hull.state import HullState, iso

_RECEIVED_LIMIT = 200_000  # messages kept for listing; totals are kept for all
_MAX_BODY_BYTES = 50_000_000
_PLANS = ("free", "team", "business")
_OWN_DOMAINS = 1_000_000  # numbers from here on are no Organization's


def create_app(
    *,
    seed: int = 1,
    users: int = 0,
    accounts: int = 0,
    connector_id: str,
    secret: str,
    organization: str,
    received_limit: int = _RECEIVED_LIMIT,
) -> Flask:
    """Return a Hull with `users` Users and `accounts` Accounts, the same for the same `seed`."""
    connector = _connector(connector_id, secret, organization)
    state = HullState(connector=connector, clock=time.time, received_limit=received_limit)
    notifier, faults = HullNotifier(state), Faults(FAULT_KINDS)
    state.listener, state.connector_listener = notifier.record_changed, notifier.connector_changed
    populate(state, seed=seed, users=users, accounts=accounts)
    app = SandboxApp(__name__)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY_BYTES
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


def populate(state: HullState, *, seed: int, users: int, accounts: int) -> None:
    """Make the records; four Users in five belong to an Account where there are any."""
    draw, now = random.Random(seed), state.clock()
    domains = [_add_account(state, draw, number, now) for number in range(1, accounts + 1)]
    for number in range(1, users + 1):
        _add_user(state, draw, number, domains, now)


def _add_account(state: HullState, draw: random.Random, number: int, now: float) -> str:
    domain = names.domain(number if number % 2 else _OWN_DOMAINS + number)
    sector = draw.choice(names.SECTORS)
    name = f"{domain.partition('-')[0].capitalize()} {sector}"
    attributes = {"name": name, "industry": sector, "employees": draw.randrange(5, 5_000)}
    _add(state, "account", Claims(None, None, domain, None), attributes, now)
    return domain


def _add_user(state: HullState, draw: random.Random, number: int, domains: list[str], now: float) -> None:
    first, last = draw.choice(names.FIRST_NAMES), draw.choice(names.LAST_NAMES)
    domain = draw.choice(domains) if domains and draw.random() < 0.8 else draw.choice(names.MAIL_PROVIDERS)
    email = next(address for address in _addresses(first, last, domain) if not any(state.users.holders(address)))
    attributes = {"first_name": first, "last_name": last, "plan": draw.choice(_PLANS), "sessions": draw.randrange(300)}
    user = _add(state, "user", Claims(None, f"app-{number}", email, None), attributes, now)
    account = next(iter(state.accounts.holders(domain)), None)
    if account is not None:
        state.link(user, account, now)


def _addresses(first: str, last: str, domain: str) -> Iterator[str]:
    """ada.berg@…, ada.berg2@…, ada.berg3@…"""
    name = f"{names.slug(first)}.{names.slug(last)}"
    yield f"{name}@{domain}"
    yield from (f"{name}{number}@{domain}" for number in count(2))


def _add(state: HullState, kind: Kind, claims: Claims, attributes: dict[str, Any], now: float) -> HullRecord:
    found = state.identify(kind, claims, create=True, now=now)
    if found is None:
        raise ValueError(f"nothing identifies {attributes}")
    state.write(found.entity, attributes, now=now, problems=[])
    return found.entity
