"""The route table: method, path, kind of call, cost in tokens, view.

The kind is what the counters call it and what scopes and limits go by; costs are the `x-token-cost` of the OpenAPI files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from flask import Response

from sandbox.company import ENTITIES, Company, Entity
from sandbox.pipedrive import control, fields, oauth, records, search, users

if TYPE_CHECKING:
    from sandbox.pipedrive.app import PipedriveApp

View = Callable[..., Response]
Route = tuple[str, str, str, int, View]


def routes(app: PipedriveApp) -> list[Route]:
    """List every route of an app."""
    company = app.company
    table = [*_control_routes(app), *_oauth_routes(app)]
    table.append(("GET", "/api/v2/itemSearch", "search", 20, partial(search.item_search, company)))
    for entity in ENTITIES:
        table += _record_routes(company, entity, f"/api/v2/{entity}s")
        table += _field_routes(company, entity, f"/api/v2/{entity}Fields")
    for prefix in ("/v1", "/api/v1"):
        table += [
            ("GET", f"{prefix}/users/me", "user", 2, partial(users.me, company)),
            ("GET", f"{prefix}/personFields", "fields", 20, partial(fields.list_v1, company, "person")),
            ("GET", f"{prefix}/organizationFields", "fields", 20, partial(fields.list_v1, company, "organization")),
            ("GET", f"{prefix}/webhooks", "webhooks", 10, app.subscriptions.list_all),
            ("POST", f"{prefix}/webhooks", "webhooks", 10, app.subscriptions.create),
            ("DELETE", f"{prefix}/webhooks/<int:webhook_id>", "webhooks", 6, app.subscriptions.delete),
        ]
    return table


def _control_routes(app: PipedriveApp) -> list[Route]:
    company = app.company
    table: list[tuple[str, str, View]] = [
        ("GET", "ledger", partial(control.ledger, app.ledger)),
        ("GET", "stats", partial(control.stats, app)),
        ("GET", "export", partial(control.export, company)),
        ("POST", "edit", partial(control.edit, company)),
        ("POST", "create", partial(control.create, company)),
        ("POST", "delete", partial(control.delete, company)),
        ("POST", "raw", partial(control.raw, company)),
        ("POST", "faults", partial(control.faults, app.faults)),
        ("GET", "oauth", partial(control.show_oauth, app)),
        ("POST", "oauth", partial(control.set_oauth, app)),
    ]
    return [(method, f"{control.PREFIX}{name}", "sandbox", 0, view) for method, name, view in table]


def _oauth_routes(app: PipedriveApp) -> list[Route]:
    token = partial(oauth.token, app.grants)
    return [
        ("GET", "/oauth/authorize", "oauth", 0, partial(oauth.authorize, app.grants, app.company.name)),
        ("POST", "/oauth/token", "oauth", 0, token),
        ("POST", "/oauth/token/", "oauth", 0, token),
        ("POST", "/oauth/revoke", "oauth", 0, partial(oauth.revoke, app.grants)),
    ]


def _record_routes(company: Company, entity: Entity, base: str) -> list[Route]:
    one = f"{base}/<int:record_id>"
    return [
        ("GET", base, "list", 10, partial(records.list_page, company, entity)),
        ("POST", base, "create", 5, partial(records.create, company, entity)),
        ("GET", f"{base}/search", "search", 20, partial(search.search, company, entity)),
        ("GET", one, "get", 1, partial(records.get, company, entity)),
        ("PATCH", one, "update", 5, partial(records.update, company, entity)),
        ("DELETE", one, "delete", 3, partial(records.delete, company, entity)),
    ]


def _field_routes(company: Company, entity: Entity, base: str) -> list[Route]:
    one, options = f"{base}/<code>", f"{base}/<code>/options"
    return [
        ("GET", base, "fields", 10, partial(fields.list_v2, company, entity)),
        ("POST", base, "fields", 5, partial(fields.create, company, entity)),
        ("GET", one, "fields", 1, partial(fields.get_v2, company, entity)),
        ("PATCH", one, "fields", 5, partial(fields.update, company, entity)),
        ("DELETE", one, "fields", 3, partial(fields.delete, company, entity)),
        ("POST", options, "fields", 5, partial(fields.add_options, company, entity)),
        ("PATCH", options, "fields", 5, partial(fields.rename_options, company, entity)),
        ("DELETE", options, "fields", 3, partial(fields.remove_options, company, entity)),
    ]
