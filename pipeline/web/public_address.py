"""What follows from PUBLIC_URL: whether browsers reach us over https, and how cookies are named and protected then."""

from __future__ import annotations

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


def cookie_named(name: str) -> str:
    """Return the name of a cookie. With `__Host-`, browsers take it from this very host and over TLS only; over http they
    would not take it at all."""
    return f"__Host-{name}" if is_secure() else name


def set_cookie(
    answer: Response, name: str, value: str, *, max_age: int | None = None, samesite: Literal["Lax", "Strict"] = "Lax"
) -> None:
    """Have the browser keep a cookie that scripts cannot read; until it is closed where there is no `max_age` in seconds."""
    answer.set_cookie(
        cookie_named(name), value, max_age=max_age, path="/", secure=is_secure(), httponly=True, samesite=samesite
    )


def delete_cookie(answer: Response, name: str) -> None:
    """Have the browser delete a cookie."""
    answer.delete_cookie(cookie_named(name), path="/", secure=is_secure(), httponly=True, samesite="Lax")


def is_public_host() -> bool:
    """Return whether this request names the host of PUBLIC_URL, where the browser sends our cookie. Cookies know no ports."""
    return urlsplit(f"//{request.host}").hostname == urlsplit(settings().public_url).hostname
