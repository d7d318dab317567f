"""Is this notification from Hull? An RS256 token in a header, whose key is served at an address another header names.

Two weaknesses of the original are not copied: the key's host must be in our allow-list, and keys are kept for an hour,
not for ever. The token proves the notification's id alone, so its body stays a hint.
Source: packages/hull/src/utils/notification-validator.js of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import jwt
import requests

from pipeline.clients.hosts import require_allowed
from pipeline.clients.http import error_for
from pipeline.clients.wire import Request, Wire
from pipeline.errors import ConfigurationError, Rejected

KEY_TTL_S = 3600.0
KEY_MIN_AGE_S = 60.0
"""A key that verified nothing is fetched anew, but not more often than this: Hull may have changed it."""
KEY_MAX_BYTES = 16 * 1024
MAX_KEYS = 32
LEEWAY_S = 60

Code = Literal[
    "MISSING_FLAG_HEADER",
    "UNSUPPORTED_SIGNATURE_VERSION",
    "MISSING_SIGNATURE_HEADERS",
    "INVALID_CERTIFICATE",
    "INVALID_SIGNATURE",
]


class Headers(Protocol):
    """A mapping of names to values, as web frameworks and plain dicts are."""

    def items(self) -> Iterable[tuple[str, str]]: ...


class NotificationRefused(Exception):
    """The request is not proven to come from Hull; `code` is what Hull's own validator calls it."""

    def __init__(self, code: Code, message: str) -> None:
        self.code: Code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class _Key:
    pem: bytes
    fetched_at: float


class NotificationVerifier:
    """Verifies notifications; threads may share it. `key_hosts` are `host` or `host:port`."""

    def __init__(
        self,
        session: requests.Session,
        *,
        key_hosts: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wire = Wire(session)
        self._key_hosts = frozenset(key_hosts)
        self._clock = clock
        self._keys: OrderedDict[str, _Key] = OrderedDict()
        self._lock = threading.Lock()

    def proven_id(self, headers: Headers) -> str:
        """Return the id of the notification that the headers prove. Nothing of the body is needed for it.

        Raises: NotificationRefused; Retryable while the key cannot be fetched.
        """
        given = {name.lower(): value for name, value in headers.items()}
        if "x-hull-smart-notifier" not in given:
            raise NotificationRefused("MISSING_FLAG_HEADER", "X-Hull-Smart-Notifier is missing")
        if given.get("x-hull-smart-notifier-signature-version") != "v1":
            raise NotificationRefused("UNSUPPORTED_SIGNATURE_VERSION", "only signature version v1 is known")
        signature = given.get("x-hull-smart-notifier-signature")
        url = given.get("x-hull-smart-notifier-signature-public-key-url")
        if not signature or not url:
            raise NotificationRefused("MISSING_SIGNATURE_HEADERS", "the signature or the address of its key is missing")
        return self._proven_by(signature, url)

    def _proven_by(self, signature: str, url: str) -> str:
        key = self._key(url, signature, younger_than_s=KEY_TTL_S)
        proven = _proven_id(signature, key.pem)
        if proven is None:
            fresh = self._key(url, signature, younger_than_s=KEY_MIN_AGE_S)
            proven = None if fresh is key else _proven_id(signature, fresh.pem)
        if proven is None:
            raise NotificationRefused("INVALID_SIGNATURE", "the signature proves no notification")
        return proven

    def _key(self, url: str, signature: str, *, younger_than_s: float) -> _Key:
        with self._lock:
            key = self._keys.get(url)
        if key is not None and self._clock() - key.fetched_at < younger_than_s:
            return key
        key = _Key(self._fetch(url, signature), self._clock())
        with self._lock:
            self._keys[url] = key
            while len(self._keys) > MAX_KEYS:
                self._keys.popitem(last=False)
        return key

    def _fetch(self, url: str, signature: str) -> bytes:
        try:
            require_allowed(url, self._key_hosts, purpose="key of a Hull notification")
            response = self._wire.call(
                Request(
                    method="POST",
                    url=url,
                    headers={"Content-Type": "text/plain", "User-Agent": "hull-pipedrive"},
                    body=signature.encode(),
                    max_bytes=KEY_MAX_BYTES,
                    deadline_s=10.0,
                    resend_if_stale=True,
                )
            )
            if not 200 <= response.status < 300:
                raise error_for(response)
        except (ConfigurationError, Rejected) as refused:
            raise NotificationRefused("INVALID_CERTIFICATE", str(refused)) from None
        if b"-----BEGIN PUBLIC KEY-----" not in response.body:
            raise NotificationRefused("INVALID_CERTIFICATE", "the address of the key answers no public key")
        return response.body


def _proven_id(signature: str, pem: bytes) -> str | None:
    try:
        claims = jwt.decode(
            signature,
            pem,
            algorithms=["RS256"],
            leeway=LEEWAY_S,
            options={"require": ["jti"], "verify_aud": False, "verify_iss": False},
        )
    except (jwt.PyJWTError, ValueError):
        return None
    return str(claims["jti"])
