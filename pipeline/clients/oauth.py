"""Pipedrive's OAuth: the authorization page, the exchange of a code or a refresh token for tokens, and the headers.

oauthlib builds each request and parses the answer; our own client sends it. The caller checks the grant: `api_domain` is
untrusted like any other host name.
Source: https://pipedrive.readme.io/docs/marketplace-oauth-authorization
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import requests
from oauthlib.oauth2 import OAuth2Error, WebApplicationClient

from pipeline.clients.http_answers import TOKEN_STATUSES, error_for
from pipeline.clients.http_transport import Gate, HttpTransport, OnCall, Request, Response
from pipeline.domain.json_text import read_strict
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable

DEADLINE_S = 8.0
"""Other workers wait for the new token, for less than PostgreSQL's lock time-out."""
MAX_BYTES = 64 * 1024
DEFAULT_LIFE_S = 3600.0
"""The lifetime of an access token if the answer does not contain it."""

_REFRESH_REFUSED: Final = frozenset({"invalid_grant"})
_CODE_REFUSED: Final = frozenset({"invalid_grant", "invalid_request"})
"""`invalid_request` names our callback URL: another code would be refused as well."""
_APP_REFUSED: Final = frozenset({"invalid_client"})
_CODES: Final = _CODE_REFUSED | _APP_REFUSED

_SECURE: Final = "https://oauth.invalid/"
"""oauthlib builds requests for https addresses only. The text is the same for a sandbox on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Pipedrive's answer.

    refresh_token  None if the answer has none: the current one stays valid
    scopes         None if the answer has none
    api_domain     as in the answer, not checked
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in_s: float
    scopes: frozenset[str] | None
    api_domain: str | None


class OAuthClient:
    """The OAuth steps of one app.

    oauth_url     origin of the authorization server
    callback_url  where a person returns to, exactly as in the app's settings at Pipedrive
    """

    def __init__(
        self,
        session: requests.Session,
        *,
        client_id: str,
        client_secret: str,
        oauth_url: str,
        callback_url: str,
        on_call: OnCall | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._transport = HttpTransport(session, on_call=on_call, gate=gate)
        self._app = WebApplicationClient(client_id)
        self._basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._hidden = (client_secret, self._basic)
        self._oauth_url = oauth_url.rstrip("/")
        self._callback_url = callback_url

    def authorize_url(self, state: str) -> str:
        """Return the page where a person authorises the app. Scopes are not requested: the app's settings define them."""
        address: str = self._app.prepare_request_uri(_SECURE, redirect_uri=self._callback_url, state=state)
        return f"{self._oauth_url}/oauth/authorize?{address.removeprefix(_SECURE + '?')}"

    def exchange(self, query: str) -> Grant:
        """Exchange the query of our callback URL for tokens. A code is valid once, for 5 minutes.

        Raises: ConfigurationError("authorisation_denied") if the person declined; Rejected("code_refused");
            ConfigurationError("app_refused"); Retryable.
        """
        try:
            code = self._app.parse_request_uri_response(f"{_SECURE}?{query}")["code"]
        except OAuth2Error as refused:
            raise _declined(refused.error) from None
        body = self._app.prepare_request_body(code=code, redirect_uri=self._callback_url, include_client_id=False)
        grant = self._token(body, hidden=(code,), refusals=_CODE_REFUSED, refused=Rejected("code_refused"))
        if grant.refresh_token is None:
            raise Retryable("grant_malformed", "no refresh token")
        return grant

    def refresh(self, refresh_token: str) -> Grant:
        """Return new tokens. The answer has a refresh token, the same or another one: store it.

        Raises: ConfigurationError("unauthorized") if the authorisation has ended, which only `invalid_grant` means;
            Retryable, including "app_refused": a mistake of the installation, which ends no authorisation.
        """
        body = self._app.prepare_refresh_body(refresh_token=refresh_token)
        over = ConfigurationError("unauthorized", "refresh refused: invalid_grant")
        return self._token(
            body, hidden=(refresh_token,), refusals=_REFRESH_REFUSED, refused=over, app_refused=Retryable
        )

    def _token(
        self,
        body: str,
        *,
        hidden: tuple[str, ...],
        refusals: frozenset[str],
        refused: PipelineError,
        app_refused: type[Retryable | ConfigurationError] = ConfigurationError,
    ) -> Grant:
        """Request tokens.

        refused      the error for one of the error codes `refusals`
        app_refused  the kind of error for `invalid_client`; without a known code every status is temporary
        """
        secrets = (*self._hidden, *hidden)

        def error_of(response: Response) -> PipelineError:
            code = _error_code(response)
            if code in _APP_REFUSED:
                return app_refused("app_refused", f"HTTP {response.status}")
            if code in refusals:
                return refused
            return error_for(response, hidden=secrets, statuses=TOKEN_STATUSES)

        response = self._transport.call(
            Request(
                method="POST",
                url=f"{self._oauth_url}/oauth/token",
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "gzip",
                    "User-Agent": "hull-pipedrive",
                    "Authorization": f"Basic {self._basic}",
                    "Content-Type": "application/x-www-form-urlencoded",
                },
                body=body.encode(),
                max_bytes=MAX_BYTES,
                deadline_s=DEADLINE_S,
                remote="pipedrive sign-in",
                error_of=error_of,
            )
        )
        if 200 <= response.status < 300:
            return self._read(response)
        raise error_of(response)

    def _read(self, response: Response) -> Grant:
        try:
            answer = read_strict(response.body)
            self._app.parse_request_body_response(response.body)
        except (OAuth2Error, ValueError, TypeError, AttributeError):
            answer = None
        if not isinstance(answer, dict) or _text(answer, "access_token") is None:
            raise Retryable("grant_malformed", f"HTTP {response.status}, {len(response.body)} bytes")
        return _grant(answer)


def _grant(answer: Mapping[str, Any]) -> Grant:
    """Return the grant in an answer. Pipedrive separates scopes by commas, the standard by spaces."""
    scope = _text(answer, "scope")
    return Grant(
        access_token=answer["access_token"],
        refresh_token=_text(answer, "refresh_token"),
        expires_in_s=_life_s(answer.get("expires_in")),
        scopes=frozenset(scope.replace(",", " ").split()) if scope else None,
        api_domain=_text(answer, "api_domain"),
    )


def _life_s(given: Any) -> float:
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        return DEFAULT_LIFE_S
    return seconds if 0 < seconds <= 366 * 86_400 else DEFAULT_LIFE_S


def _text(answer: Mapping[str, Any], name: str) -> str | None:
    value = answer.get(name)
    return value if isinstance(value, str) and value else None


def _declined(error: str | None) -> PipelineError:
    """Return the error for a declined authorization; Pipedrive sends `user_denied`, the standard `access_denied`."""
    if error in {"user_denied", "access_denied"}:
        return ConfigurationError("authorisation_denied")
    return Rejected("code_refused")


def _error_code(response: Response) -> str:
    """Return the OAuth error code of a 4xx answer; "" if it has none.

    Pipedrive's page documents messages only, `Invalid grant: refresh_token is invalid`; the standard has `error`.
    Source: https://pipedrive.readme.io/docs/marketplace-oauth-authorization and
    https://www.rfc-editor.org/rfc/rfc6749#section-5.2
    """
    if response.is_html or not 400 <= response.status < 500:
        return ""
    try:
        answer = read_strict(response.body)
    except ValueError:
        return ""
    if not isinstance(answer, dict):
        return ""
    texts = [answer.get(name) for name in ("error", "code", "message", "error_description")]
    words = [word.strip().lower().partition(":")[0].replace(" ", "_") for word in texts if isinstance(word, str)]
    return next((word for word in words if word in _CODES), "")


RENEW_BEFORE_S = 300.0
SHARE_OF_LIFE: Final = 0.2
"""A token that lives less than 25 minutes is renewed in the last fifth of its life."""
TRY_AGAIN_S = 30.0
"""Pause after a renewal that failed while the token is still valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token as stored in the database.

    left_s  seconds until it expires, by the database's clock when it was read
    life_s  its lifetime in seconds
    """

    text: str = field(repr=False)
    left_s: float
    life_s: float

    @property
    def due_in_s(self) -> float:
        """Return the seconds until it should be renewed; negative if it is overdue."""
        return self.left_s - min(RENEW_BEFORE_S, SHARE_OF_LIFE * self.life_s)


Renew = Callable[[str | None], Token]
"""Given the refused token, or None if it is only due, return the current token, which another worker may have fetched."""


class BearerAuth:
    """The `auth` and `renew` of `pipeline.clients.pipedrive.PipedriveClient`."""

    def __init__(self, token: Token, renew: Renew, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._renew = renew
        self._clock = clock
        self._expires_at = 0.0
        self._take(token)

    def headers(self) -> Mapping[str, str]:
        """Return the headers. Raises: the errors of the renewal, if the token has expired."""
        if self._clock() >= self._renew_at:
            self._renew_early()
        return self._headers

    def after_refusal(self, refused: Mapping[str, str]) -> Mapping[str, str]:
        """Return headers for one more attempt after a 401. Raises: the errors of the renewal."""
        self._take(self._renew(refused["Authorization"].removeprefix("Bearer ")))
        return self._headers

    def _renew_early(self) -> None:
        try:
            self._take(self._renew(None))
        except Retryable:
            if self._clock() >= self._expires_at:
                raise
            self._renew_at = self._clock() + TRY_AGAIN_S

    def _take(self, token: Token) -> None:
        self._headers = {"Authorization": f"Bearer {token.text}"}
        self._renew_at = self._clock() + token.due_in_s
        self._expires_at = self._clock() + token.left_s
