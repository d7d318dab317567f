"""The WSGI app over a company: its routes, and the tokens, scopes, limits, faults and headers around them.

Tests call it in process; `sandbox.serve` serves it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import requests
from flask import Response, g, request
from werkzeug.exceptions import HTTPException

from sandbox.app import SandboxApp, View, is_control, json_answer
from sandbox.company import ENTITIES, Company, Entity
from sandbox.company.model import editing_as
from sandbox.faults import Faults
from sandbox.pipedrive import access, answers, control, fields, oauth, records
from sandbox.pipedrive.access import API_TOKEN, AllowedTokens, ApiCaller, demand, read_caller
from sandbox.pipedrive.answers import FAULT_KINDS, ApiError
from sandbox.pipedrive.delivery import WebhookDelivery
from sandbox.pipedrive.limits import BurstWindow, DailyBudget, Gateway, Ledger
from sandbox.pipedrive.oauth import Client, Grants
from sandbox.pipedrive.sales_team import SalesTeam
from sandbox.pipedrive.webhooks import Subscriptions

_DAILY_WRITES = 10_000
Route = tuple[str, str, str, int, View]
"""(method, path, kind of call, cost, view). Counters, scopes and limits use the kind; costs are `x-token-cost` of the API."""


class PipedriveApp(SandboxApp):
    """The app, with everything that tests read and change.

    `grants.switches` changes the OAuth server. `session` sends what Pipedrive sends by itself: webhooks, and the notice that
    the app was uninstalled.
    """

    def __init__(
        self,
        company: Company,
        *,
        access: AllowedTokens,
        client: Client,
        burst_limit: int | None,
        monotonic: Callable[[], float],
        session: requests.Session,
    ) -> None:
        super().__init__("sandbox.pipedrive")
        self.company = company
        self.access = access
        self.grants = Grants(company, client)
        self.faults = Faults(FAULT_KINDS)
        self.ledger = Ledger()
        self.limiter = BurstWindow(burst_limit, monotonic)
        self.budget = DailyBudget(company.clock)
        self.gateway = Gateway(monotonic)
        self.subscriptions = Subscriptions(company)
        self.session = session
        self.delivery = WebhookDelivery(company, self.subscriptions.by_id, session)
        self.team = SalesTeam(company, seed=company.seed)
        self.retry_after_header = False
        company.listeners.append(self.delivery.take)
        self.grants.on_uninstall.append(lambda held: self.subscriptions.forget_app(held.user.id))


def create_app(
    company: Company,
    *,
    api_token: str = API_TOKEN,
    access_tokens: frozenset[str] = frozenset(),
    token_in_query: bool = True,
    burst_limit: int | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    webhook_session: requests.Session | None = None,
    client: Client | None = None,
) -> PipedriveApp:
    """Create the app over a company.

    `burst_limit` is requests per token within two seconds, None for no limit. `monotonic` is the limiter's clock.
    `webhook_session` sends webhooks, so that a test may mount its receiver on it. `client` is the one app that its OAuth server
    knows.
    """
    app = PipedriveApp(
        company,
        access=AllowedTokens(api_token=api_token, access_tokens=access_tokens, token_in_query=token_in_query),
        client=client or Client(),
        burst_limit=burst_limit,
        monotonic=monotonic,
        session=webhook_session or requests.Session(),
    )
    for method, rule, call, cost, view in _routes(app):
        app.add_url_rule(rule, f"{call}|{cost}|{method}{rule}", view, methods=[method])
    app.add_controls(control.controls(app))
    app.before_request(partial(_enter, app))
    app.after_request(partial(_leave, app))
    app.register_error_handler(ApiError, _refuse)
    app.register_error_handler(HTTPException, _http_error)
    return app


def _routes(app: PipedriveApp) -> list[Route]:
    """List the routes of an app."""
    company = app.company
    table = _oauth_routes(app)
    table.append(("GET", "/api/v2/itemSearch", "search", 20, partial(records.item_search, company)))
    for entity in ENTITIES:
        table += _record_routes(company, entity, f"/api/v2/{entity}s")
        table += _field_routes(company, entity, f"/api/v2/{entity}Fields")
    for prefix in ("/v1", "/api/v1"):
        table += [_merge_route(company, entity, prefix) for entity in ENTITIES]
        table += [
            ("GET", f"{prefix}/users/me", "user", 2, partial(access.me, company)),
            ("GET", f"{prefix}/personFields", "fields", 20, partial(fields.list_v1, company, "person")),
            ("GET", f"{prefix}/organizationFields", "fields", 20, partial(fields.list_v1, company, "organization")),
            ("GET", f"{prefix}/webhooks", "webhooks", 10, app.subscriptions.list_all),
            ("POST", f"{prefix}/webhooks", "webhooks", 10, app.subscriptions.create),
            ("DELETE", f"{prefix}/webhooks/<int:webhook_id>", "webhooks", 6, app.subscriptions.delete),
        ]
    return table


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
        ("POST", base, "create", 5, _as_caller(partial(records.create, company, entity))),
        ("GET", f"{base}/search", "search", 20, partial(records.search, company, entity)),
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


def _merge_route(company: Company, entity: Entity, prefix: str) -> Route:
    rule = f"{prefix}/{entity}s/<int:record_id>/merge"
    return ("PUT", rule, "merge", 40, _as_caller(partial(records.merge, company, entity)))


def _as_caller(view: View) -> View:
    """Make the caller the author of what a view changes."""

    def run(**arguments: Any) -> Response:
        with editing_as(user_id=g.caller.user.id):
            return view(**arguments)

    return run


def _enter(app: PipedriveApp) -> Response | None:
    """Let the request in, or answer it right away: token, limit, scope, then faults."""
    g.headers = {}
    if not is_control() and not request.path.startswith(oauth.PREFIX):
        blocked = _admit(app)
        if blocked is not None:
            return blocked
    return app.faults.before_view()


def _admit(app: PipedriveApp) -> Response | None:
    """Check token, burst limit, scope and budget; the gateway's page for a token that it blocks. Raises: ApiError."""
    caller: ApiCaller = read_caller(app.access, app.company, app.grants)
    g.caller = caller
    if not caller.by_app and app.gateway.blocks(caller.token):
        return answers.html(403, "Access denied")
    call, cost = _call()
    allowance = app.limiter.take(caller.token, search=call == "search")
    g.headers = allowance.headers()
    if not caller.by_app:
        g.headers["x-daily-requests-left"] = str(_daily_left(app))
    if not allowance.passes:
        app.gateway.note_refusal(caller.token)
        if app.retry_after_header:
            g.headers["retry-after"] = str(allowance.reset_s)
        raise answers.over_limit()
    demand(caller.scopes, call, request.method, request.path)
    is_paid = app.budget.take(cost)
    if app.budget.limit is not None:
        g.headers["x-daily-ratelimit-token-limit"] = str(app.budget.limit)
        g.headers["x-daily-ratelimit-token-remaining"] = str(max(0, app.budget.limit - app.budget.spent))
    if not is_paid:
        app.gateway.note_refusal(caller.token)
        # Only the rest of the window distinguishes a spent day from a full window.
        g.headers["x-ratelimit-remaining"] = str(max(1, allowance.remaining))
        raise answers.over_limit()
    return None


def _leave(app: PipedriveApp, answer: Response) -> Response:
    """Count the request, record what it changed, apply a fault, and add the headers."""
    if request.method != "GET" and answer.status_code < 300 and _is_mutation():
        _note(app, answer)
    answer = app.faults.after_view(answer)
    if not is_control():
        call, cost = _call()
        app.ledger.count(call, cost, answer.status_code)
        for name, value in g.get("headers", {}).items():
            answer.headers.setdefault(name, value)
    return answer


def _note(app: PipedriveApp, answer: Response) -> None:
    path_id = next(iter((request.view_args or {}).values()), None)
    data = (answer.get_json() or {}).get("data") if path_id is None else None
    app.ledger.note(
        moment=app.company.clock(),
        method=request.method,
        path=request.path,
        status=answer.status_code,
        entity_id=path_id if path_id is not None else data.get("id") if isinstance(data, dict) else None,
        body=request.get_data(),
    )


def _is_mutation() -> bool:
    """Return whether the request changed the company, which tokens and most controls do not."""
    return control.changes_company() if is_control() else not request.path.startswith(oauth.PREFIX)


def _daily_left(app: PipedriveApp) -> int:
    return max(0, _DAILY_WRITES - app.ledger.requests["create"] - app.ledger.requests["update"])


def _call() -> tuple[str, int]:
    """Return the kind and the cost of the request, which its endpoint names."""
    call, cost, _ = (request.endpoint or "unknown|0|").split("|", 2)
    return call, int(cost)


def _refuse(error: ApiError) -> Response:
    return json_answer(error.body, error.status)


def _http_error(error: HTTPException) -> Response:
    """Refuse in the words of the API what Flask refuses."""
    status = error.code or 500
    if status == 404:
        return _refuse(answers.not_found())
    return _refuse(answers.gateway(status, error.name))
