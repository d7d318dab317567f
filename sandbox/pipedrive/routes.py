"""The route table: method, path, kind of call, cost in tokens, view.

The kind is what the counters call it and what scopes and limits go by; costs are the `x-token-cost` of the OpenAPI files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Response, g

from sandbox.company import ENTITIES, Company, Entity
from sandbox.company.model import editing_as
from sandbox.control import PREFIX, Control, fault_controls, guarded
from sandbox.pipedrive import control, fields, merge, oauth, records, search, users
from sandbox.pipedrive.sending import control as sending

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
        table += [_merge_route(company, entity, prefix) for entity in ENTITIES]
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
    table: list[Control] = [
        ("GET", "ledger", partial(control.ledger, app.ledger)),
        ("GET", "stats", partial(control.stats, app)),
        ("GET", "export", partial(control.export, company)),
        ("POST", "edit", partial(control.edit, company)),
        ("POST", "create", partial(control.create, company)),
        ("POST", "delete", partial(control.delete, company)),
        ("POST", "raw", partial(control.raw, company)),
        ("POST", "merge", partial(control.merge, company)),
        ("POST", "undelete", partial(control.undelete, company)),
        ("POST", "purge", partial(control.purge, company)),
        ("GET", "behaviour", partial(control.behaviour, company)),
        ("POST", "behaviour", partial(control.behaviour, company)),
        *fault_controls(app.faults),
        ("POST", "budget", partial(control.budget, app)),
        ("POST", "limits", partial(control.limits, app)),
        ("GET", "oauth", partial(control.show_oauth, app)),
        ("POST", "oauth", partial(control.set_oauth, app)),
        ("GET", "deliveries", partial(sending.show, app.delivery, app.subscriptions)),
        ("POST", "deliveries", partial(sending.set_trouble, app.delivery)),
        ("POST", "webhooks", partial(sending.meddle, app.delivery, app.subscriptions)),
        ("GET", "team", partial(control.show_team, app.team)),
        ("POST", "team", partial(control.set_team_to_work, app.team)),
    ]
    return [(method, f"{PREFIX}{name}", "sandbox", 0, guarded(view)) for method, name, view in table]


def _oauth_routes(app: PipedriveApp) -> list[Route]:
    token = partial(oauth.token, app.grants)
    return [
        ("GET", "/oauth/authorize", "oauth", 0, partial(oauth.authorize, app.grants, app.company.name)),
        ("POST", "/oauth/token", "oauth", 0, token),
        ("POST", "/oauth/token/", "oauth", 0, token),
        ("POST", "/oauth/revoke", "oauth", 0, partial(oauth.revoke, app.grants)),
    ]


def _merge_route(company: Company, entity: Entity, prefix: str) -> Route:
    rule = f"{prefix}/{entity}s/<int:record_id>/merge"
    return ("PUT", rule, "merge", 40, _as_caller(partial(merge.merge, company, entity)))


def _as_caller(view: View) -> View:
    """Have what a view changes be the caller's doing."""

    def run(**arguments: Any) -> Response:
        with editing_as(user_id=g.caller.user.id):
            return view(**arguments)

    return run


def _record_routes(company: Company, entity: Entity, base: str) -> list[Route]:
    one = f"{base}/<int:record_id>"
    return [
        ("GET", base, "list", 10, partial(records.list_page, company, entity)),
        ("POST", base, "create", 5, _as_caller(partial(records.create, company, entity))),
        ("GET", f"{base}/search", "search", 20, partial(search.search, company, entity)),
        ("GET", one, "get", 1, partial(records.get, company, entity)),
        ("PATCH", one, "update", 5, _as_caller(partial(records.update, company, entity))),
        ("DELETE", one, "delete", 3, _as_caller(partial(records.delete, company, entity))),
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
