"""Who may call: the API token, or a Bearer token that is known.

Sources: docs pages core-api-concepts-authentication and marketplace-oauth-authorization.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask import request

from sandbox.company import Company, User
from sandbox.pipedrive import answers
from sandbox.pipedrive.gate.grants import Grants

API_TOKEN = "sandbox-api-token"  # noqa: S105 (opens nothing but a sandbox)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may call: one API token, some access tokens, and whether the token may stand in the query string."""

    api_token: str = API_TOKEN
    access_tokens: frozenset[str] = frozenset()
    token_in_query: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose token the request in hand carries: `flask.g.caller` in every view of the API.

    `by_app`: a Bearer token, so an app acts for the user. `scopes` None: whatever the user may.
    """

    token: str
    user: User
    company_id: int
    company_domain: str
    by_app: bool = False
    scopes: frozenset[str] | None = None


def read_caller(access: Access, company: Company, grants: Grants) -> Caller:
    """Read the caller's token and tell whose it is. Raises: ApiError 400, 401."""
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
    return Caller(token=given, user=company.users[0], company_id=company.id, company_domain=company.domain)


def _bearer(token: str, access: Access, company: Company, grants: Grants) -> Caller:
    """Know a token that was granted, or one this server was started with: the first user's, for everything."""
    held = grants.holder(token)
    if held is not None:
        return Caller(
            token=token,
            user=held.user,
            company_id=held.company_id,
            company_domain=held.company_domain,
            by_app=True,
            scopes=frozenset(held.scope.split(",")) | {"base"},
        )
    if token not in access.access_tokens:
        raise answers.gateway(401, "Invalid token: access_token is invalid")
    return Caller(token=token, user=company.users[0], company_id=company.id, company_domain=company.domain, by_app=True)
