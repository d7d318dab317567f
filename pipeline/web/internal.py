"""Routes for our own machines only: `/metrics`, `/readyz`, `/api/openapi.json`. They contain connector names and the
system's state.

A request is internal if it has METRICS_TOKEN, or comes from INTERNAL_NETWORKS. Its address is trusted only as far as
the proxies are known: a request that passed more proxies than TRUSTED_PROXIES is external, whatever its last hop.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from functools import wraps
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import Any

from flask import request

from pipeline.settings import settings
from pipeline.web.answers import error


def internal_only(view: Callable[..., Any], or_else: Callable[[], bool] = lambda: False) -> Callable[..., Any]:
    """Return the view for internal requests only; any other gets a 401.

    or_else  whether a request from outside may have it all the same
    """

    @wraps(view)
    def guarded(**given: Any) -> Any:
        if is_internal() or or_else():
            return view(**given)
        sentence = "Send METRICS_TOKEN as a bearer token, or ask from INTERNAL_NETWORKS."
        answer, status = error(HTTPStatus.UNAUTHORIZED, "internal_only", sentence)
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer, status

    return guarded


def is_internal() -> bool:
    """Return whether the request is internal."""
    return _brings_token() or (not _passed_unknown_proxies() and is_within(request.remote_addr, settings().internal))


def is_within(address: str | None, networks: Iterable[str]) -> bool:
    """Return whether an address belongs to one of these networks; an IPv4 address may be written as an IPv6 one."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in ip_network(each) for each in networks)


def _brings_token() -> bool:
    token, given = settings().metrics_token, request.authorization
    if token is None or given is None or given.type != "bearer":
        return False
    return hmac.compare_digest((given.token or "").encode("utf-8", "surrogatepass"), token.encode())


def _passed_unknown_proxies() -> bool:
    hops = request.headers.get("X-Forwarded-For", "")
    return "Forwarded" in request.headers or len(hops.split(",") if hops else ()) > settings().trusted_proxies
