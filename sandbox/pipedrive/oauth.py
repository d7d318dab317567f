"""The OAuth server: a page to allow or deny, tokens for codes and refresh tokens, and revocation.

In production it has a host of its own (oauth.pipedrive.com); here the origin of the API serves it too. The JSON around an
error is documented nowhere, so it carries both Pipedrive's members and those of RFC 6749.
Sources: the v1 OpenAPI file, paths /oauth/*; docs pages marketplace-oauth-authorization, app-uninstallation and
marketplace-oauth-and-api-proxy-status-codes.
"""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import requests
from flask import Response, redirect, request
from werkzeug.datastructures import MultiDict

from sandbox.pipedrive import answers
from sandbox.pipedrive.gate.grants import Client, Grants, Installation, Refused
from sandbox.pipedrive.webhooks import milliseconds

PREFIX = "/oauth/"
UNINSTALL_TIMEOUT_S = 10.0
_FORM = "application/x-www-form-urlencoded"
_PAGE = (
    "<!DOCTYPE html><html><head><title>Sandbox: install {client}</title></head><body>"
    "<h1>Install {client}?</h1><p>It asks {user} of {company} for: {scopes}</p>"
    '<p><a id="allow" href="{allow}">Allow and install</a> <a id="deny" href="{deny}">Cancel</a></p></body></html>'
)

Form = MultiDict[str, str]


def authorize(grants: Grants, company_name: str) -> Response:
    """Answer GET /oauth/authorize: a page, or at once the redirect that `decision` or the switch asks for."""
    try:
        redirect_uri = _checked(grants, request.args)
    except Refused as refusal:
        return _refusal(refusal)
    decision = request.args.get("decision", grants.switches.decision)
    if decision == "allow":
        return _back(redirect_uri, code=grants.issue_code(redirect_uri))
    if decision == "deny":
        return _back(redirect_uri, error="user_denied")
    return _page(grants, company_name)


def token(grants: Grants) -> Response:
    """Answer POST /oauth/token and /oauth/token/."""
    try:
        form = _form(grants.client)
        kind = form.get("grant_type")
        if kind == "authorization_code":
            handed = grants.exchange(form.get("code", ""), form.get("redirect_uri", ""))
        elif kind == "refresh_token":
            handed = grants.refresh(form.get("refresh_token", ""))
        elif kind:
            raise Refused("unsupported_grant_type", "Invalid request: grant_type is not supported")
        else:
            raise Refused("invalid_request", "Invalid request: grant_type is missing")
    except Refused as refusal:
        grants.counts["refused"] += 1
        return _refusal(refusal)
    body = {
        "access_token": handed.access_token,
        "token_type": "Bearer",
        "expires_in": handed.expires_in,
        "refresh_token": handed.refresh_token,
        "scope": handed.installation.scope,
        "api_domain": grants.switches.api_domain or _api_domain(handed.installation),
    }
    return answers.plain(body)


def revoke(grants: Grants) -> Response:
    """Answer POST /oauth/revoke; 200 for an unknown token too (RFC 7009). The official client encodes a token twice."""
    try:
        given = _form(grants.client).get("token", "")
    except Refused as refusal:
        return _refusal(refusal)
    for spelling in dict.fromkeys((given, unquote(given))):
        grants.revoke(spelling)
    return answers.plain({"success": True})


def uninstall(grants: Grants, session: requests.Session, moment: float) -> list[int | None]:
    """Remove the app everywhere and tell its callback URL of each; the statuses it answered, which change nothing."""
    return [_tell(held, grants.client, session, moment) for held in grants.uninstall()]


def _tell(held: Installation, client: Client, session: requests.Session, moment: float) -> int | None:
    body = {
        "client_id": client.id,
        "company_id": held.company_id,
        "user_id": held.user.id,
        "timestamp": milliseconds(moment),
    }
    try:
        answer = session.delete(
            held.callback_url,
            json=body,
            auth=(client.id, client.secret),
            timeout=UNINSTALL_TIMEOUT_S,
            allow_redirects=False,
        )
    except requests.RequestException:
        return None
    return answer.status_code


def _checked(grants: Grants, asked: Form) -> str:
    """Judge who asks, and where the answer goes. Raises: Refused."""
    if asked.get("client_id") != grants.client.id:
        raise Refused("invalid_client", "Invalid client: client is invalid")
    uri = asked.get("redirect_uri", "")
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise Refused("invalid_request", "Invalid request: redirect_uri is not a valid URI")
    if grants.switches.callback_url not in {None, uri}:
        raise Refused("invalid_request", "Invalid request: redirect_uri is invalid")
    return uri


def _form(client: Client) -> Form:
    """Read a form sent by the client itself, which names itself by Basic auth or in the form. Raises: Refused."""
    if request.mimetype != _FORM:
        raise Refused("invalid_request", f"Invalid request: content must be {_FORM}")
    form, basic = request.form, request.authorization
    if basic is not None and basic.type == "basic":
        given = (basic.username, basic.password)
    else:
        given = (form.get("client_id"), form.get("client_secret"))
    if None in given:
        raise Refused("invalid_client", "Invalid client: cannot retrieve client credentials")
    if given != (client.id, client.secret):
        raise Refused("invalid_client", "Invalid client: client is invalid")
    return form


def _refusal(refusal: Refused) -> Response:
    body = {
        "success": False,
        "error": refusal.error,
        "message": refusal.message,
        "error_description": refusal.message,
    }
    return answers.plain(body, 400)


def _back(redirect_uri: str, **outcome: str) -> Response:
    """Send the browser back with a code or an error, and the state as it came."""
    state = request.args.get("state")
    query = urlencode(outcome if state is None else {**outcome, "state": state})
    answer: Any = redirect(f"{redirect_uri}{'&' if urlsplit(redirect_uri).query else '?'}{query}")
    return Response(answer.get_data(), 302, {"Location": answer.location})


def _page(grants: Grants, company_name: str) -> Response:
    choices = {
        decision: escape(f"{request.path}?{urlencode({**request.args.to_dict(), 'decision': decision})}")
        for decision in ("allow", "deny")
    }
    body = _PAGE.format(
        client=escape(grants.client.id),
        user=escape(grants.authorising().name),
        company=escape(company_name),
        scopes=escape(grants.switches.scopes),
        **choices,
    )
    return Response(body, content_type="text/html; charset=UTF-8")


def _api_domain(held: Installation) -> str:
    """Name the company's own host where the server was called by its real name, else the origin it was called by."""
    if request.host.endswith(".pipedrive.com"):
        return f"https://{held.company_domain}.pipedrive.com"
    return f"{request.scheme}://{request.host}"
