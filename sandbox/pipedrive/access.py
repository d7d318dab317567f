"""Who calls (the API token, or a known Bearer token), what the scopes of an app's token allow, and GET /v1/users/me.

Sources: docs pages core-api-concepts-authentication and marketplace-oauth-authorization; scopes of each operation in the
OpenAPI files.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask import Response, g, request

from sandbox.app import json_answer
from sandbox.company import Company, User
from sandbox.pipedrive import answers
from sandbox.pipedrive.oauth import Grants

API_TOKEN = "sandbox-api-token"  # noqa: S105 (opens nothing but a sandbox)
_WRITE = frozenset({"contacts:full"})
_READ = _WRITE | {"contacts:read"}
_FIELDS = frozenset({"contact-fields:full", "admin"})
_NEEDED: dict[str, frozenset[str]] = {
    "list": _READ,
    "get": _READ,
    "search": _READ | {"search:read"},
    "create": _WRITE,
    "update": _WRITE,
    "delete": _WRITE,
    "merge": _WRITE,
    "user": frozenset({"base"}),
    "webhooks": frozenset({"admin"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedTokens:
    """The valid tokens: one API token, some access tokens, and whether a token in the query string is allowed."""

    api_token: str = API_TOKEN
    access_tokens: frozenset[str] = frozenset()
    token_in_query: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCaller:
    """The owner of the request's token: `flask.g.caller` in every view of the API.

    `by_app`: a Bearer token, so an app acts for the user. `scopes` None: whatever the user may.
    """

    token: str
    user: User
    company_id: int
    company_domain: str
    by_app: bool = False
    scopes: frozenset[str] | None = None


def read_caller(access: AllowedTokens, company: Company, grants: Grants) -> ApiCaller:
    """Return the owner of the request's token. Raises: ApiError 400, 401."""
    bearer = request.headers.get("Authorization")
    if bearer is not None and "x-api-token" not in request.headers:
        scheme, _, token = bearer.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise answers.gateway(400, "Invalid request: malformed authorization header")
        return _bearer(token.strip(), access, company, grants)
    given = request.headers.get("x-api-token")
    if given is None and access.token_in_query:
        given = request.args.get("api_token")
    if given is None or given != access.api_token:
        raise answers.gateway(401, "unauthorized access")
    return ApiCaller(token=given, user=company.users[0], company_id=company.id, company_domain=company.domain)


def _bearer(token: str, access: AllowedTokens, company: Company, grants: Grants) -> ApiCaller:
    """Return the owner of a granted token, or of one that this server was started with: the first user, for everything."""
    held = grants.holder(token)
    if held is not None:
        return ApiCaller(
            token=token,
            user=held.user,
            company_id=held.company_id,
            company_domain=held.company_domain,
            by_app=True,
            scopes=frozenset(held.scope.split(",")) | {"base"},
        )
    if token not in access.access_tokens:
        raise answers.gateway(401, "Invalid token: access_token is invalid")
    return ApiCaller(
        token=token, user=company.users[0], company_id=company.id, company_domain=company.domain, by_app=True
    )


def demand(scopes: frozenset[str] | None, call: str, method: str, path: str) -> None:
    """Check the scopes of a call; None holds all. Raises: ApiError 403."""
    if scopes is not None and not scopes & needed(call, method, path):
        raise answers.gateway(403, "Scope and URL mismatch")


def needed(call: str, method: str, path: str) -> frozenset[str]:
    """Return the scopes that allow a call; any one of them suffices. Empty for a path that does not exist."""
    if path.endswith("/itemSearch"):
        return frozenset({"search:read"})
    if call != "fields":
        return _NEEDED.get(call, frozenset())
    if method == "GET":
        return _FIELDS | _READ
    return _FIELDS | _WRITE if method == "PATCH" or path.endswith("/options") else _FIELDS


def me(company: Company) -> Response:
    """Answer for the user the caller's token belongs to, in the company it was granted for."""
    caller: ApiCaller = g.caller
    user = caller.user
    apps = ("sales", "global", "account_settings")
    data = {
        "id": user.id,
        "name": user.name,
        "default_currency": "EUR",
        "locale": "en_GB",
        "lang": 1,
        "email": user.email,
        "phone": None,
        "activated": True,
        "last_login": "2026-01-05 08:45:56",
        "created": "2022-11-13 09:16:26",
        "modified": "2026-01-05 08:45:56",
        "has_created_company": True,
        "access": [
            {"app": app, "admin": user.admin, "permission_set_id": f"62cc4d7f-4038-4352-abf3-a8c1c822b63{n}"}
            for n, app in enumerate(apps)
        ],
        "active_flag": True,
        "timezone_name": "Europe/London",
        "timezone_offset": "+00:00",
        "role_id": 1,
        "icon_url": None,
        "is_you": True,
        "is_deleted": False,
        "company_id": caller.company_id,
        "company_name": company.name,
        "company_domain": caller.company_domain,
        "company_country": "GB",
        "company_industry": "Wholesale",
        "language": {"language_code": "en", "country_code": "GB"},
    }
    return json_answer({"success": True, "data": data})
