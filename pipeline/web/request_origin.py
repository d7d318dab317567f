"""Where a request comes from, by the addresses in the environment.

- PUBLIC_URL: whether browsers reach us over https, and how cookies are named and protected then.
- METRICS_TOKEN, INTERNAL_NETWORKS: whether a request is internal and may see connector names and the system's state.
  Its address is trusted only as far as the proxies are known: a request that passed more proxies than TRUSTED_PROXIES
  is external, whatever its last hop.
- SSO_HEADER, SSO_PROXIES: which operator a proxy before the console has authenticated. The header is trusted only if
  the connection itself comes from such a proxy; `X-Forwarded-For` is not considered.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Final, Literal
from urllib.parse import urlsplit

from flask import request
from werkzeug.wrappers import Response

from pipeline.settings import settings

HSTS: Final = "max-age=31536000"
"""A year. Other hosts below the same domain may belong to others, so `includeSubDomains` is left out."""


def is_secure() -> bool:
    """Return whether browsers reach us over https. A proxy terminates TLS, so the request itself does not show it."""
    return urlsplit(settings().public_url).scheme == "https"


def is_public_host() -> bool:
    """Return whether this request names the host of PUBLIC_URL, where the browser sends our cookie. Cookies know no ports."""
    return urlsplit(f"//{request.host}").hostname == urlsplit(settings().public_url).hostname


def cookie_named(name: str) -> str:
    """Return the name of a cookie. With `__Host-`, browsers accept it from this host over TLS only, and never
    over http."""
    return f"__Host-{name}" if is_secure() else name


def set_cookie(
    answer: Response, name: str, value: str, *, max_age: int | None = None, samesite: Literal["Lax", "Strict"] = "Lax"
) -> None:
    """Set a cookie that scripts cannot read, for `max_age` seconds, or until the browser is closed."""
    answer.set_cookie(
        cookie_named(name), value, max_age=max_age, path="/", secure=is_secure(), httponly=True, samesite=samesite
    )


def delete_cookie(answer: Response, name: str) -> None:
    """Have the browser delete a cookie."""
    answer.delete_cookie(cookie_named(name), path="/", secure=is_secure(), httponly=True, samesite="Lax")


def is_internal() -> bool:
    """Return whether the request has METRICS_TOKEN or comes from INTERNAL_NETWORKS."""
    return _has_metrics_token() or (
        not _passed_unknown_proxies() and _is_within(request.remote_addr, settings().internal)
    )


def named_operator() -> str | None:
    """Return the operator's name from the proxy's header, in lower case; None without single sign-on or for another sender."""
    header = settings().sso_header
    if header is None or not _is_from_sso_proxy():
        return None
    name = request.headers.get(header, "").strip().lower()
    return name if name and name.isprintable() else None


def _has_metrics_token() -> bool:
    token, given = settings().metrics_token, request.authorization
    if token is None or given is None or given.type != "bearer":
        return False
    return hmac.compare_digest((given.token or "").encode("utf-8", "surrogatepass"), token.encode())


def _passed_unknown_proxies() -> bool:
    hops = request.headers.get("X-Forwarded-For", "")
    return "Forwarded" in request.headers or len(hops.split(",") if hops else ()) > settings().trusted_proxies


def _is_from_sso_proxy() -> bool:
    """Check the address of the connection itself: ProxyFix has replaced it by the forwarded one, and stored it."""
    original = request.environ.get("werkzeug.proxy_fix.orig") or {}
    return _is_within(original.get("REMOTE_ADDR") or request.environ.get("REMOTE_ADDR"), settings().sso_proxies)


def _is_within(address: str | None, networks: Iterable[str]) -> bool:
    """Return whether an address belongs to one of these networks; an IPv4 address may be written as an IPv6 one."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in ip_network(each) for each in networks)
