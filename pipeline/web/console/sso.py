"""Single sign-on by a header: a proxy before the console authenticates people and sends their names (`SSO_HEADER`,
`SSO_PROXIES`).

The header is trusted only if the connection itself comes from such a proxy; `X-Forwarded-For` is not considered.
"""

from __future__ import annotations

from flask import request

from pipeline.settings import settings
from pipeline.web.internal import is_within


def named_operator() -> str | None:
    """Return the operator's name as the proxy gave it, in lower case; None without single sign-on or from elsewhere."""
    header = settings().sso_header
    if header is None or not _is_from_proxy():
        return None
    name = request.headers.get(header, "").strip().lower()
    return name if name and name.isprintable() else None


def _is_from_proxy() -> bool:
    """ProxyFix replaces the address by the forwarded one and keeps the connection's own."""
    original = request.environ.get("werkzeug.proxy_fix.orig") or {}
    return is_within(original.get("REMOTE_ADDR") or request.environ.get("REMOTE_ADDR"), settings().sso_proxies)
