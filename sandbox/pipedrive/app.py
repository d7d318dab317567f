"""The WSGI app: routes, tokens, limits, faults, headers.

In: a company. Out: a Flask app to be called in process or served by `sandbox.serve`. What each route is called in the counters and
what it costs in tokens is in the route table; costs are the `x-token-cost` of the OpenAPI files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import requests
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from sandbox.company import ENTITIES, Company, Entity
from sandbox.pipedrive import answers, control, fields, records, search, users
from sandbox.pipedrive.answers import ApiError
from sandbox.pipedrive.delivery import Delivery
from sandbox.pipedrive.gate.access import API_TOKEN, Access, read_token
from sandbox.pipedrive.gate.faults import Faults, spoil
from sandbox.pipedrive.gate.ledger import Ledger
from sandbox.pipedrive.gate.limits import BurstLimiter
from sandbox.pipedrive.webhooks import Subscriptions

DAILY_WRITES = 10_000

View = Callable[..., Response]
Route = tuple[str, str, str, int, View]  # method, path, kind of call, cost in tokens, view


class PipedriveApp(Flask):
    """The app, with what tests look at: `company`, `faults`, `ledger`, `limiter`, `subscriptions`, `delivery`."""

    def __init__(
        self,
        company: Company,
        *,
        access: Access,
        burst_limit: int | None,
        monotonic: Callable[[], float],
        webhook_session: requests.Session,
    ) -> None:
        super().__init__("sandbox.pipedrive", static_folder=None)
        self.company = company
        self.access = access
        self.faults = Faults()
        self.ledger = Ledger()
        self.limiter = BurstLimiter(burst_limit, monotonic)
        self.subscriptions = Subscriptions(company)
        self.delivery = Delivery(company, self.subscriptions.by_id, webhook_session)
        self.retry_after_header = False
        company.listeners.append(self.delivery.take)


def create_app(
    company: Company,
    *,
    api_token: str = API_TOKEN,
    access_tokens: frozenset[str] = frozenset(),
    token_in_query: bool = True,
    burst_limit: int | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    webhook_session: requests.Session | None = None,
) -> PipedriveApp:
    """Make the app over a company.

    `burst_limit` is requests per token within two seconds, None for no limit. `monotonic` is the limiter's clock.
    `webhook_session` sends webhooks, so that a test may mount its receiver on it.
    """
    app = PipedriveApp(
        company,
        access=Access(api_token=api_token, access_tokens=access_tokens, token_in_query=token_in_query),
        burst_limit=burst_limit,
        monotonic=monotonic,
        webhook_session=webhook_session or requests.Session(),
    )
    for method, rule, call, cost, view in _routes(app):
        app.add_url_rule(rule, f"{call}|{cost}|{method}{rule}", view, methods=[method])
    app.before_request(partial(_enter, app))
    app.after_request(partial(_leave, app))
    app.register_error_handler(ApiError, _refuse)
    app.register_error_handler(HTTPException, _http_error)
    return app


def _routes(app: PipedriveApp) -> list[Route]:
    company = app.company
    table: list[Route] = [
        ("GET", "/__sandbox__/ledger", "sandbox", 0, partial(control.ledger, app.ledger)),
        ("GET", "/__sandbox__/stats", "sandbox", 0, partial(control.stats, app.ledger, company)),
        ("GET", "/__sandbox__/export", "sandbox", 0, partial(control.export, company)),
        ("POST", "/__sandbox__/edit", "sandbox", 0, partial(control.edit, company)),
        ("POST", "/__sandbox__/create", "sandbox", 0, partial(control.create, company)),
        ("POST", "/__sandbox__/delete", "sandbox", 0, partial(control.delete, company)),
        ("POST", "/__sandbox__/raw", "sandbox", 0, partial(control.raw, company)),
        ("POST", "/__sandbox__/faults", "sandbox", 0, partial(control.faults, app.faults)),
        ("GET", "/api/v2/itemSearch", "search", 20, partial(search.item_search, company)),
    ]
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


def _enter(app: PipedriveApp) -> Response | None:
    """Let the request in, or answer it right away: token, limit, then faults."""
    g.fault = None
    g.headers = {}
    if request.path.startswith(control.PREFIX):
        return None
    token = read_token(app.access)
    allowance = app.limiter.take(token, search=_call()[0] == "search")
    g.headers = allowance.headers()
    if token == app.access.api_token:
        g.headers["x-daily-requests-left"] = str(_daily_left(app))
    if not allowance.passes:
        if app.retry_after_header:
            g.headers["retry-after"] = str(allowance.reset_s)
        raise answers.over_limit()
    fault = app.faults.due(request.method, request.path)
    if fault is None:
        return None
    if fault.after_the_call():
        g.fault = fault
        return None
    return spoil(fault, None)


def _leave(app: PipedriveApp, answer: Response) -> Response:
    """Count the request, write down what it changed, add the headers, and spoil the answer if a fault says so."""
    if request.method != "GET" and answer.status_code < 300 and _is_mutation():
        _note(app, answer)
    if g.get("fault") is not None:
        answer = spoil(g.fault, answer)
    if not request.path.startswith(control.PREFIX):
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
    return request.path != "/__sandbox__/faults"


def _daily_left(app: PipedriveApp) -> int:
    return max(0, DAILY_WRITES - app.ledger.requests["create"] - app.ledger.requests["update"])


def _call() -> tuple[str, int]:
    """Tell the kind and the cost of the request from its route."""
    call, cost, _ = (request.endpoint or "unknown|0|").split("|", 2)
    return call, int(cost)


def _refuse(error: ApiError) -> Response:
    return answers.plain(error.body, error.status)


def _http_error(error: HTTPException) -> Response:
    """Word what the router refuses as the API does."""
    status = error.code or 500
    if status == 404:
        return _refuse(answers.not_found())
    return _refuse(answers.gateway(status, error.name))
