"""The OAuth server: a page to allow or deny, tokens for codes and refresh tokens, revocation, and what users granted the
app.

In production it has a host of its own (oauth.pipedrive.com); here the origin of the API serves it too. The JSON around an
error is documented nowhere, so it has both Pipedrive's members and those of RFC 6749. Tokens are opaque and long; times
follow the company's clock, so lifetimes shrink with it. Sources: the v1 OpenAPI file, paths /oauth/*; docs pages
marketplace-oauth-authorization, app-uninstallation and marketplace-oauth-and-api-proxy-status-codes.
"""

from __future__ import annotations

import secrets
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal
from urllib.parse import unquote, urlencode, urlsplit

import requests
from flask import Response, redirect, request
from werkzeug.datastructures import MultiDict

from sandbox.app import json_answer
from sandbox.company import Company, User
from sandbox.pipedrive.answers import milliseconds

PREFIX = "/oauth/"
_CODE_LIFETIME_S = 300.0
_REFRESH_WINDOW_S = 60 * 86_400.0  # restarts with every refresh
_TOKEN_BYTES = 330  # 440 characters, with the + / = that real ones have
_UNINSTALL_TIMEOUT_S = 10.0
_FORM = "application/x-www-form-urlencoded"
_PAGE = (
    "<!DOCTYPE html><html><head><title>Sandbox: install {client}</title></head><body>"
    "<h1>Install {client}?</h1><p>It asks {user} of {company} for: {scopes}</p>"
    '<p><a id="allow" href="{allow}">Allow and install</a> <a id="deny" href="{deny}">Cancel</a></p></body></html>'
)
_Form = MultiDict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The app as registered with the marketplace."""

    id: str = "sandbox-client"
    secret: str = "sandbox-client-secret"  # noqa: S105 (opens nothing but a sandbox)


@dataclass(slots=True, kw_only=True)
class Switches:
    """How the server behaves.

    `decision` answers for the person in front of the page; `user_id` is who that is (None: the first administrator), in
    which company (None: this one). `api_domain` None: the origin that the token was requested from. `callback_url` None: any
    is accepted. `refresh_ends_older`: whether a refresh ends older access tokens, which no page documents.
    """

    token_lifetime_s: int = 3599
    rotate_refresh_tokens: bool = False
    refresh_ends_older: bool = False
    api_domain: str | None = None
    scopes: str = "base,contacts:full,contact-fields:full,search:read,recents:read,admin"
    user_id: int | None = None
    company_id: int | None = None
    company_domain: str | None = None
    callback_url: str | None = None
    decision: Literal["ask", "allow", "deny"] = "ask"


class GrantRefused(Exception):
    """The request is refused: an OAuth error word, and the sentence Pipedrive uses."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error
        self.message = message


def authorize(grants: Grants, company_name: str) -> Response:
    """Answer GET /oauth/authorize: a page, or the redirect that `decision` or the switch selects."""
    try:
        redirect_uri = _checked(grants, request.args)
    except GrantRefused as refusal:
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
            raise GrantRefused("unsupported_grant_type", "Invalid request: grant_type is not supported")
        else:
            raise GrantRefused("invalid_request", "Invalid request: grant_type is missing")
    except GrantRefused as refusal:
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
    return json_answer(body)


def revoke(grants: Grants) -> Response:
    """Answer POST /oauth/revoke; 200 for an unknown token too (RFC 7009). The official client encodes a token twice."""
    try:
        given = _form(grants.client).get("token", "")
    except GrantRefused as refusal:
        return _refusal(refusal)
    for spelling in dict.fromkeys((given, unquote(given))):
        grants.revoke(spelling)
    return json_answer({"success": True})


def uninstall(grants: Grants, session: requests.Session, moment: float) -> list[int | None]:
    """Remove the app for all users and notify its callback URL of each; return the statuses of its answers."""
    return [_notify(held, grants.client, session, moment) for held in grants.uninstall()]


def _notify(held: Installation, client: Client, session: requests.Session, moment: float) -> int | None:
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
            timeout=_UNINSTALL_TIMEOUT_S,
            allow_redirects=False,
        )
    except requests.RequestException:
        return None
    return answer.status_code


def _checked(grants: Grants, parameters: _Form) -> str:
    """Check the client, and return the address for the answer. Raises: GrantRefused."""
    if parameters.get("client_id") != grants.client.id:
        raise GrantRefused("invalid_client", "Invalid client: client is invalid")
    uri = parameters.get("redirect_uri", "")
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise GrantRefused("invalid_request", "Invalid request: redirect_uri is not a valid URI")
    if grants.switches.callback_url not in {None, uri}:
        raise GrantRefused("invalid_request", "Invalid request: redirect_uri is invalid")
    return uri


def _form(client: Client) -> _Form:
    """Read a form sent by the client itself, which names itself by Basic auth or in the form. Raises: GrantRefused."""
    if request.mimetype != _FORM:
        raise GrantRefused("invalid_request", f"Invalid request: content must be {_FORM}")
    form, basic = request.form, request.authorization
    if basic is not None and basic.type == "basic":
        given = (basic.username, basic.password)
    else:
        given = (form.get("client_id"), form.get("client_secret"))
    if None in given:
        raise GrantRefused("invalid_client", "Invalid client: cannot retrieve client credentials")
    if given != (client.id, client.secret):
        raise GrantRefused("invalid_client", "Invalid client: client is invalid")
    return form


def _refusal(refusal: GrantRefused) -> Response:
    body = {
        "success": False,
        "error": refusal.error,
        "message": refusal.message,
        "error_description": refusal.message,
    }
    return json_answer(body, 400)


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


@dataclass(slots=True, kw_only=True)
class Installation:
    """The app as one user of one company has it. `access_tokens` maps each to the epoch second it ends."""

    company_id: int
    company_domain: str
    user: User
    scope: str
    callback_url: str
    refresh_token: str
    refreshed_at: float
    access_tokens: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens of an exchange or a refresh."""

    access_token: str
    refresh_token: str
    expires_in: int
    installation: Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Code:
    installation: Installation
    expires_at: float


class Grants:
    """Everything granted to one client. `on_uninstall` is called with each installation that is removed."""

    def __init__(self, company: Company, client: Client) -> None:
        self.client = client
        self.switches = Switches()
        self.counts: Counter[str] = Counter(exchanges=0, refreshes=0, refused=0)
        self.on_uninstall: list[Callable[[Installation], None]] = []
        self._company = company
        self._codes: dict[str, _Code] = {}
        self._installations: dict[tuple[int, int], Installation] = {}
        self._exchanged: set[str] = set()
        self._lock = threading.RLock()

    def issue_code(self, redirect_uri: str) -> str:
        """Return a code for the callback. It lives five minutes and can be used once."""
        with self._lock:
            code, now = secrets.token_hex(20), self._company.clock()
            self._codes[code] = _Code(installation=self._new(redirect_uri), expires_at=now + _CODE_LIFETIME_S)
            return code

    def exchange(self, code: str, redirect_uri: str) -> Tokens:
        """Turn a code into tokens. Raises: GrantRefused."""
        with self._lock:
            found = self._codes.pop(code, None)
            if found is None or found.installation.callback_url != redirect_uri:
                raise GrantRefused("invalid_grant", "Invalid grant: authorization_code is invalid")
            if found.expires_at <= self._company.clock():
                raise GrantRefused("invalid_grant", "Invalid grant: authorization_code has expired")
            fresh = found.installation
            key = (fresh.company_id, fresh.user.id)
            before = self._installations.get(key)
            if before is not None:
                fresh.access_tokens |= before.access_tokens
            self._installations[key] = fresh
            self.counts["exchanges"] += 1
            return self._tokens(fresh)

    def refresh(self, refresh_token: str) -> Tokens:
        """Return a new access token. Raises: GrantRefused."""
        with self._lock:
            now = self._company.clock()
            held = next((each for each in self._installations.values() if each.refresh_token == refresh_token), None)
            if held is None and refresh_token in self._exchanged:
                raise GrantRefused("invalid_grant", "Invalid grant: refresh_token was already exchanged")
            if held is None or held.refreshed_at + _REFRESH_WINDOW_S <= now:
                raise GrantRefused("invalid_grant", "Invalid grant: refresh_token is invalid")
            if self.switches.rotate_refresh_tokens:
                self._exchanged.add(held.refresh_token)
                held.refresh_token = _refresh_token(held.company_id, held.user)
            if self.switches.refresh_ends_older:
                held.access_tokens.clear()
            held.refreshed_at = now
            self.counts["refreshes"] += 1
            return self._tokens(held)

    def revoke(self, token: str) -> None:
        """End an access token, or everything that a refresh token was granted; an unknown one is ignored."""
        with self._lock:
            for held in list(self._installations.values()):
                held.access_tokens.pop(token, None)
                if held.refresh_token == token:
                    self._remove(held)

    def holder(self, access_token: str) -> Installation | None:
        """Return the installation of an access token that has not expired, or None."""
        with self._lock:
            now = self._company.clock()
            for held in self._installations.values():
                if held.access_tokens.get(access_token, 0.0) > now:
                    return held
            return None

    def expire_access_tokens(self) -> None:
        """End every access token given out so far; refresh tokens live on."""
        with self._lock:
            for held in self._installations.values():
                held.access_tokens.clear()

    def revoke_all(self) -> None:
        """Remove every grant without a notice: calls are refused, and so is a refresh. Webhooks stay."""
        with self._lock:
            self._installations.clear()
            self._codes.clear()

    def uninstall(self) -> list[Installation]:
        """Remove the app for every user who has it; return their installations."""
        with self._lock:
            gone = list(self._installations.values())
            for held in gone:
                self._remove(held)
            return gone

    def authorising(self) -> User:
        """Return the user in front of the page."""
        users = self._company.users
        return next((user for user in users if user.id == self.switches.user_id), users[0])

    def described(self) -> list[dict[str, Any]]:
        """List the installations, without their tokens."""
        with self._lock:
            return [
                {
                    "company_id": held.company_id,
                    "company_domain": held.company_domain,
                    "user_id": held.user.id,
                    "admin": held.user.admin,
                    "scope": held.scope,
                    "callback_url": held.callback_url,
                    "access_tokens": len(held.access_tokens),
                }
                for held in self._installations.values()
            ]

    def _new(self, redirect_uri: str) -> Installation:
        chosen, user = self.switches, self.authorising()
        company_id = chosen.company_id or self._company.id
        return Installation(
            company_id=company_id,
            company_domain=chosen.company_domain or self._company.domain,
            user=user,
            scope=chosen.scopes,
            callback_url=redirect_uri,
            refresh_token=_refresh_token(company_id, user),
            refreshed_at=self._company.clock(),
        )

    def _tokens(self, held: Installation) -> Tokens:
        lifetime_s = self.switches.token_lifetime_s
        token = "v1u:" + b64encode(secrets.token_bytes(_TOKEN_BYTES)).decode()
        held.access_tokens[token] = self._company.clock() + lifetime_s
        return Tokens(access_token=token, refresh_token=held.refresh_token, expires_in=lifetime_s, installation=held)

    def _remove(self, held: Installation) -> None:
        self._installations.pop((held.company_id, held.user.id), None)
        for listener in self.on_uninstall:
            listener(held)


def _refresh_token(company_id: int, user: User) -> str:
    return f"{company_id}:{user.id}:{secrets.token_hex(20)}"
