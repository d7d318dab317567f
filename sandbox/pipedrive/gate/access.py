"""Who may call: the API token, or a Bearer token that is known.

Sources: docs pages core-api-concepts-authentication and marketplace-oauth-authorization.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask import request

from sandbox.pipedrive import answers

API_TOKEN = "sandbox-api-token"  # noqa: S105 (opens nothing but a sandbox)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may call: one API token, some access tokens, and whether the token may stand in the query string."""

    api_token: str = API_TOKEN
    access_tokens: frozenset[str] = frozenset()
    token_in_query: bool = True


def read_token(access: Access) -> str:
    """Read and judge the caller's token."""
    bearer = request.headers.get("Authorization")
    if bearer is not None and "x-api-token" not in request.headers:
        scheme, _, token = bearer.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise answers.gateway(400, "Invalid request: malformed authorization header")
        if token.strip() not in access.access_tokens:
            raise answers.gateway(401, "Invalid token: access_token is invalid")
        return token.strip()
    given = request.headers.get("x-api-token")
    if given is None and access.token_in_query:
        given = request.args.get("api_token")
    if given != access.api_token:
        raise answers.gateway(401, "unauthorized access")
    return given
