"""The WSGI app: tokens, scopes, limits, faults, headers around the views of `sandbox.pipedrive.routes`.

In: a company. Out: a Flask app to be called in process or served by `sandbox.serve`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import requests
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map

from sandbox.company import Company
from sandbox.control import PREFIX
from sandbox.faults import Faults
from sandbox.pipedrive import answers, control, oauth
from sandbox.pipedrive.answers import ApiError
from sandbox.pipedrive.delivery import Delivery
from sandbox.pipedrive.gate.access import API_TOKEN, Access, Caller, read_caller
from sandbox.pipedrive.gate.budget import DailyBudget
from sandbox.pipedrive.gate.edge import Edge
from sandbox.pipedrive.gate.faults import STYLE
from sandbox.pipedrive.gate.grants import Client, Grants
from sandbox.pipedrive.gate.ledger import Ledger
from sandbox.pipedrive.gate.limits import BurstLimiter
from sandbox.pipedrive.gate.scopes import demand
from sandbox.pipedrive.routes import routes
from sandbox.pipedrive.team import SalesTeam
from sandbox.pipedrive.webhooks import Subscriptions

DAILY_WRITES = 10_000


class PipedriveApp(Flask):
    """The app, with what tests look at and turn.

    `company`, `faults`, `ledger`, `limiter`, `budget`, `edge`, `subscriptions`, `delivery`, `team`; `grants.switches` turns the
    OAuth server; `session` sends what Pipedrive sends by itself: webhooks, and the notice
    that the app was uninstalled.
    """

    def __init__(
        self,
        company: Company,
        *,
        access: Access,
        client: Client,
        burst_limit: int | None,
        monotonic: Callable[[], float],
        session: requests.Session,
    ) -> None:
        super().__init__("sandbox.pipedrive", static_folder=None)
        self.company = company
        self.access = access
        self.grants = Grants(company, client)
        self.faults = Faults(STYLE)
        self.ledger = Ledger()
        self.limiter = BurstLimiter(burst_limit, monotonic)
        self.budget = DailyBudget(company.clock)
        self.edge = Edge(monotonic)
        self.subscriptions = Subscriptions(company)
        self.session = session
        self.delivery = Delivery(company, self.subscriptions.by_id, session)
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
    """Make the app over a company.

    `burst_limit` is requests per token within two seconds, None for no limit. `monotonic` is the limiter's clock.
    `webhook_session` sends webhooks, so that a test may mount its receiver on it. `client` is the one app its OAuth server
    knows.
    """
    app = PipedriveApp(
        company,
        access=Access(api_token=api_token, access_tokens=access_tokens, token_in_query=token_in_query),
        client=client or Client(),
        burst_limit=burst_limit,
        monotonic=monotonic,
        session=webhook_session or requests.Session(),
    )
    _add_routes(app)
    app.before_request(partial(_enter, app))
    app.after_request(partial(_leave, app))
    app.register_error_handler(ApiError, _refuse)
    app.register_error_handler(HTTPException, _http_error)
    return app


_compiled: list[Map] = []
"""The rules of the first app of this process: all have the same, and compiling them is most of the work of making an app."""


def _add_routes(app: PipedriveApp) -> None:
    table = {f"{call}|{cost}|{method}{rule}": (method, rule, view) for method, rule, call, cost, view in routes(app)}
    if _compiled:
        app.url_map = _compiled[0]
        app.view_functions.update({endpoint: view for endpoint, (_, _, view) in table.items()})
        return
    for endpoint, (method, rule, view) in table.items():
        app.add_url_rule(rule, endpoint, view, methods=[method])
    _compiled.append(app.url_map)


def _enter(app: PipedriveApp) -> Response | None:
    """Let the request in, or answer it right away: token, limit, scope, then faults."""
    g.headers = {}
    if request.path.startswith(PREFIX):
        return None
    if not request.path.startswith(oauth.PREFIX):
        turned_away = _admit(app)
        if turned_away is not None:
            return turned_away
    return app.faults.enter()


def _admit(app: PipedriveApp) -> Response | None:
    """Judge who calls, how often, what, and at what cost; the gateway's page for who hammers on. Raises: ApiError."""
    caller: Caller = read_caller(app.access, app.company, app.grants)
    g.caller = caller
    if not caller.by_app and app.edge.shuts_out(caller.token):
        return answers.html(403, "Access denied")
    call, cost = _call()
    allowance = app.limiter.take(caller.token, search=call == "search")
    g.headers = allowance.headers()
    if not caller.by_app:
        g.headers["x-daily-requests-left"] = str(_daily_left(app))
    if not allowance.passes:
        app.edge.refuse(caller.token)
        if app.retry_after_header:
            g.headers["retry-after"] = str(allowance.reset_s)
        raise answers.over_limit()
    demand(caller.scopes, call, request.method, request.path)
    is_paid = app.budget.take(cost)
    if app.budget.limit is not None:
        g.headers["x-daily-ratelimit-token-limit"] = str(app.budget.limit)
        g.headers["x-daily-ratelimit-token-remaining"] = str(max(0, app.budget.limit - app.budget.spent))
    if not is_paid:
        app.edge.refuse(caller.token)
        # What is left of the window is all that tells a spent day from a full window.
        g.headers["x-ratelimit-remaining"] = str(max(1, allowance.remaining))
        raise answers.over_limit()
    return None


def _leave(app: PipedriveApp, answer: Response) -> Response:
    """Count the request, write down what it changed, add the headers, and spoil the answer if a fault says so."""
    if request.method != "GET" and answer.status_code < 300 and _is_mutation():
        _note(app, answer)
    answer = app.faults.leave(answer)
    if not request.path.startswith(PREFIX):
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
    """Tell whether the request changed the company: tokens and the sandbox's own switches are no part of it."""
    if request.path.startswith(PREFIX):
        return request.path.removeprefix(PREFIX) in control.MUTATIONS
    return not request.path.startswith(oauth.PREFIX)


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
