"""One call to Pipedrive: its burst slot, its price, its credentials, and an error for every answer that is not 2xx."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

import orjson
import requests

from pipeline.clients.http_answers import (
    BURST_PAUSE_S,
    RECORD_STATUSES,
    STATUSES,
    Statuses,
    error_for,
    names_in,
    rate_headers,
    texts_of,
)
from pipeline.clients.http_transport import DEADLINE_S, MAX_BODY_BYTES, Gate, HttpTransport, OnCall, Request, Response
from pipeline.clients.limits import BurstLimiter, TokenBudget
from pipeline.domain.budget import TOKEN_COSTS
from pipeline.domain.paging import MAX_LIMIT
from pipeline.errors import Rejected, Retryable
from pipeline.slow_work import REMOTE

Headers = Mapping[str, str]


PAGE_MAX_BYTES = 64 * 1024 * 1024
PAGE_DEADLINE_S = 120.0
SMALL_DEADLINE_S = 15.0
"""Deadline of a call that reads one record: it takes a fraction of a second, and blocks its worker."""
SEARCH_DEADLINE_S = 30.0
_PAGES = frozenset({"list", "fields"})
_OF_ONE_RECORD = frozenset({"get", "update", "delete", "delete_webhook"})
"""Their path ends in an id, so a 404 is about that record."""
LONGEST_SHARED_PAUSE_S = 60.0
"""After a burst 429 or an HTML 403 all workers pause: Pipedrive's edge would block continued calls."""


class PipedriveCalls:
    """Sends the calls of one connector.

    base_url    origin of the company, for example `https://acme.pipedrive.com`
    auth        headers that authenticate (`Authorization` or `x-api-token`), or a callable that returns them for each call
    renew       given the headers that a 401 refused, returns others for one more attempt, or None
    limiter     shared burst limits; None sends immediately
    budget      the company's daily budget; None spends without counting
    gate        delays calls while Pipedrive does not answer
    deadline_s  maximum duration of one call, if a person waits for it; None: the maximum of its kind
    """

    def __init__(  # noqa: PLR0913 - each argument is one setting of the connection
        self,
        session: requests.Session,
        *,
        base_url: str,
        auth: Headers | Callable[[], Headers],
        limiter: BurstLimiter | None = None,
        budget: TokenBudget | None = None,
        on_call: OnCall | None = None,
        renew: Callable[[Headers], Headers | None] | None = None,
        deadline_s: float | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._gate = gate
        self._transport = HttpTransport(session, on_call=on_call, gate=gate)
        self._auth = auth
        self._limiter = limiter
        self._budget = budget
        self._renew = renew
        self._deadline_s = deadline_s

    def send(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Response:
        """Send one call, and once more with renewed credentials after a 401.

        `operation` names its price in TOKEN_COSTS. Query entries of None are left out.
        Raises: the error of `pipeline.clients.http_answers` for any answer but a 2xx.
        """
        with REMOTE.entered():  # around the limiter too: it may wait
            return self._send(operation, method, path, query, values)

    def _send(
        self, operation: str, method: str, path: str, query: Mapping[str, Any] | None, values: Mapping[str, Any] | None
    ) -> Response:
        auth = self._auth() if callable(self._auth) else self._auth
        url = self._url(path, query)
        body = None if values is None else _encode(values)
        deadline_s = self._deadline_s or longest_s(operation, query or {})
        response = self._turn(operation, self._request(operation, method, url, auth, body, deadline_s))
        if response.status == 401 and self._renew is not None and (renewed := self._renew(auth)) is not None:
            auth = renewed
            response = self._turn(operation, self._request(operation, method, url, auth, body, deadline_s))
        if 200 <= response.status < 300:
            return response
        secrets = [word for value in auth.values() for word in value.split()]
        hidden = [*secrets, *texts_of(query), *texts_of(values)]
        known = names_in(query) | names_in(values)
        raise error_for(response, hidden=hidden, known=known, statuses=_statuses_of(operation))

    def _turn(self, operation: str, request: Request) -> Response:
        if self._limiter is None:
            return self._pay(request)
        bucket = "search" if operation == "search" else "api"
        self._limiter.acquire(bucket)
        response = self._pay(request)
        self._limiter.observe(bucket, rate_headers(response), response.duration_s)
        if response.status == 429:
            return self._refused(bucket, request, response)
        self._limiter.served(bucket)
        if response.status == 403:
            error = error_for(response)
            if isinstance(error, Retryable) and error.retry_after_s:
                self._limiter.pause(bucket, min(error.retry_after_s, LONGEST_SHARED_PAUSE_S))
        return response

    def _refused(self, bucket: str, request: Request, response: Response) -> Response:
        """Return the answer with the pause that all workers make now."""
        error = error_for(response)
        if self._limiter is None or not isinstance(error, Retryable) or error.reason == "daily_budget_spent":
            return response
        asked_s = min(error.retry_after_s or BURST_PAUSE_S, LONGEST_SHARED_PAUSE_S)
        shared_s = self._limiter.refused(bucket, asked_s, response.duration_s)
        if shared_s > asked_s and self._gate is not None:
            self._gate.limited(request.remote)
        pause_s = max(shared_s, error.retry_after_s or 0.0)
        return replace(response, headers={**response.headers, "retry-after": f"{pause_s:.3f}"})

    def _pay(self, request: Request) -> Response:
        """Send the call and count its price. This follows the wait for a slot, so that a waiting call has spent nothing."""
        if self._budget is None:
            return self._transport.call(request)
        return self._budget.spend(request.tokens, lambda: self._transport.call(request))

    def _request(
        self, operation: str, method: str, url: str, auth: Headers, body: bytes | None, deadline_s: float
    ) -> Request:
        """Build the request. Only reads are repeated after a stale connection: Pipedrive has no idempotency keys."""
        return Request(
            method=method,
            url=url,
            headers=_headers(auth, body),
            body=body,
            max_bytes=PAGE_MAX_BYTES if operation in _PAGES else MAX_BODY_BYTES,
            deadline_s=deadline_s,
            remote="pipedrive search" if operation == "search" else "pipedrive",
            operation=operation,
            tokens=TOKEN_COSTS[operation],
            resend_if_stale=method == "GET",
            error_of=partial(error_for, statuses=_statuses_of(operation)),
        )

    def _url(self, path: str, query: Mapping[str, Any] | None) -> str:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return f"{self.base_url}{path}?{urlencode(given)}" if given else f"{self.base_url}{path}"


def _statuses_of(operation: str) -> Statuses:
    return RECORD_STATUSES if operation in _OF_ONE_RECORD else STATUSES


def longest_s(operation: str, query: Mapping[str, Any]) -> float:
    """Return how long a call may take, by what it reads: one record, some, or a whole page."""
    if operation == "list":
        ids = query.get("ids")
        records = ids.count(",") + 1 if ids else query.get("limit") or MAX_LIMIT
        share = min(1.0, records / MAX_LIMIT)
        return SMALL_DEADLINE_S + (PAGE_DEADLINE_S - SMALL_DEADLINE_S) * share
    return {
        "get": SMALL_DEADLINE_S,
        "me": SMALL_DEADLINE_S,
        "search": SEARCH_DEADLINE_S,
        "fields": PAGE_DEADLINE_S,
    }.get(operation, DEADLINE_S)


def _headers(credentials: Headers, body: bytes | None) -> dict[str, str]:
    headers = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "hull-pipedrive", **credentials}
    if body is not None:
        headers["Content-Type"] = "application/json"
    return headers


def _encode(values: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(dict(values))
    except TypeError:
        failure = Rejected("unusable_text", "the values cannot be written as JSON")
    raise failure
