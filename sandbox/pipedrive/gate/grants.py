"""What users granted the app: codes, installations and their tokens, as an OAuth server keeps them.

In: calls of `sandbox.pipedrive.oauth`, and the switches of `Switches`. Out: `Tokens`, or `Refused` with the words of the answer.
Tokens are opaque and long; times go by the company's clock, so that lifetimes shrink with it.
Sources: docs pages marketplace-oauth-authorization and marketplace-oauth-and-api-proxy-status-codes.
"""

from __future__ import annotations

import secrets
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sandbox.company import Company, User

CODE_LIFETIME_S = 300.0
REFRESH_WINDOW_S = 60 * 86_400.0  # counted anew with every refresh
TOKEN_BYTES = 330  # 440 characters, with the + / = that real ones have


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The app as registered with the marketplace."""

    id: str = "sandbox-client"
    secret: str = "sandbox-client-secret"  # noqa: S105 (opens nothing but a sandbox)


@dataclass(slots=True, kw_only=True)
class Switches:
    """How the server behaves from now on.

    `decision` answers for the person in front of the page; `user_id` is who that is (None: the first administrator), in which
    company (None: this one). `api_domain` None: the origin the token was asked from. `callback_url` None: any will do.
    `refresh_ends_older`: whether a refresh ends the access tokens given out before, which no page settles.
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


class Refused(Exception):
    """The request is refused: an OAuth error word, and the sentence Pipedrive uses."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error
        self.message = message


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
    """What an exchange or a refresh hands out."""

    access_token: str
    refresh_token: str
    expires_in: int
    installation: Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Code:
    installation: Installation
    expires_at: float


class Grants:
    """Everything granted to one client. `on_uninstall` hears of an installation that is gone."""

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
        """Give out the code that a callback carries. It lives five minutes and can be used once."""
        with self._lock:
            code, now = secrets.token_hex(20), self._company.clock()
            self._codes[code] = _Code(installation=self._new(redirect_uri), expires_at=now + CODE_LIFETIME_S)
            return code

    def exchange(self, code: str, redirect_uri: str) -> Tokens:
        """Turn a code into tokens. Raises: Refused."""
        with self._lock:
            found = self._codes.pop(code, None)
            if found is None or found.installation.callback_url != redirect_uri:
                raise Refused("invalid_grant", "Invalid grant: authorization_code is invalid")
            if found.expires_at <= self._company.clock():
                raise Refused("invalid_grant", "Invalid grant: authorization_code has expired")
            fresh = found.installation
            key = (fresh.company_id, fresh.user.id)
            before = self._installations.get(key)
            if before is not None:
                fresh.access_tokens |= before.access_tokens
            self._installations[key] = fresh
            self.counts["exchanges"] += 1
            return self._tokens(fresh)

    def refresh(self, refresh_token: str) -> Tokens:
        """Give out a new access token. Raises: Refused."""
        with self._lock:
            now = self._company.clock()
            held = next((each for each in self._installations.values() if each.refresh_token == refresh_token), None)
            if held is None and refresh_token in self._exchanged:
                raise Refused("invalid_grant", "Invalid grant: refresh_token was already exchanged")
            if held is None or held.refreshed_at + REFRESH_WINDOW_S <= now:
                raise Refused("invalid_grant", "Invalid grant: refresh_token is invalid")
            if self.switches.rotate_refresh_tokens:
                self._exchanged.add(held.refresh_token)
                held.refresh_token = _refresh_token(held.company_id, held.user)
            if self.switches.refresh_ends_older:
                held.access_tokens.clear()
            held.refreshed_at = now
            self.counts["refreshes"] += 1
            return self._tokens(held)

    def revoke(self, token: str) -> None:
        """End an access token, or everything a refresh token stands for; an unknown one is passed over."""
        with self._lock:
            for held in list(self._installations.values()):
                held.access_tokens.pop(token, None)
                if held.refresh_token == token:
                    self._remove(held)

    def holder(self, access_token: str) -> Installation | None:
        """Find whose access token this is, as long as it lives."""
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
        """Forget every grant without telling anybody: calls are refused, and so is a refresh. Webhooks stay."""
        with self._lock:
            self._installations.clear()
            self._codes.clear()

    def uninstall(self) -> list[Installation]:
        """Remove the app for every user who has it; tells for whom."""
        with self._lock:
            gone = list(self._installations.values())
            for held in gone:
                self._remove(held)
            return gone

    def authorising(self) -> User:
        """Tell who sits in front of the page."""
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
        token = "v1u:" + b64encode(secrets.token_bytes(TOKEN_BYTES)).decode()
        held.access_tokens[token] = self._company.clock() + lifetime_s
        return Tokens(access_token=token, refresh_token=held.refresh_token, expires_in=lifetime_s, installation=held)

    def _remove(self, held: Installation) -> None:
        self._installations.pop((held.company_id, held.user.id), None)
        for hear in self.on_uninstall:
            hear(held)


def _refresh_token(company_id: int, user: User) -> str:
    return f"{company_id}:{user.id}:{secrets.token_hex(20)}"
