"""Verify that a notification comes from Hull: an RS256 token in a header, with a key served at an address in another header.

What a sender can influence is limited: nothing is fetched before the token is a well-formed RS256 token that is not
expired, the key comes from an allow-listed host at a configured path, and nothing of the token is sent there. Keys have
at least 2048 bits and are kept for an hour. The token proves the notification's id alone, so its body stays a hint.
Source: packages/hull/src/utils/notification-validator.js of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import jwt
import requests
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pipeline.clients.http_answers import error_for
from pipeline.clients.http_transport import HttpTransport, Request
from pipeline.clients.ssrf import Guard
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable

KEY_TTL_S = 3600.0
KEY_MIN_AGE_S = 60.0
"""Minimum age at which a key that did not verify a token is fetched again: Hull may have changed it."""
FAILED_S = 2.0
"""How long a key that could not be fetched is not requested again."""
KEY_DEADLINE_S = 5.0
FETCH_WAIT_S = 1.0
"""How long a request waits for the fetch of another one."""
KEY_MAX_BYTES = 16 * 1024
KEY_BITS: Final = 2048
LEEWAY_S = 60
MAX_AGE_S: Final = 86_400
"""How old a token without `exp` may be by its `iat`; Hull signs each delivery."""
UNUSABLE_KEY: Final = "the key of the signature cannot be used"
"""One text for a wrong address, an error there and an invalid key: a sender learns nothing about the key's host."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{10,1000}\.[A-Za-z0-9_-]{2,4000}\.[A-Za-z0-9_-]{300,1400}")
"""Three parts in base64url; the last is a signature under a key of 2048 to 8192 bits."""
_KEY_ID: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9_.:=+/-]{1,128}")
_UNWANTED: Final = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "zip"})
"""Headers that would name another key or another reading of the token."""

Code = Literal[
    "MISSING_FLAG_HEADER",
    "UNSUPPORTED_SIGNATURE_VERSION",
    "MISSING_SIGNATURE_HEADERS",
    "INVALID_CERTIFICATE",
    "INVALID_SIGNATURE",
]


class HeaderMapping(Protocol):
    """A mapping of names to values, as web frameworks and plain dicts are."""

    def items(self) -> Iterable[tuple[str, str]]: ...


class NotificationRefused(Exception):
    """The request is not proven to come from Hull. `code` is as in Hull's own validator."""

    def __init__(self, code: Code, message: str) -> None:
        self.code: Code = code
        super().__init__(message)


@dataclass(slots=True)
class _Keys:
    """The key of one address: when it was fetched, and when that failed last."""

    key: RSAPublicKey | None = None
    fetched_at: float = 0.0
    failed_at: float | None = None
    failure: PipelineError | NotificationRefused | None = None
    fetching: threading.Lock = field(default_factory=threading.Lock)


class NotificationVerifier:
    """Verifies notifications; threads may share it.

    guard      the hosts that serve keys
    key_path   the path of the key
    audiences  allowed values of `aud`, in a token that has it
    """

    def __init__(
        self,
        session: requests.Session,
        *,
        guard: Guard,
        key_path: str,
        audiences: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = HttpTransport(session)
        self._guard = guard
        self._key_path = key_path
        self._audiences = frozenset(audiences)
        self._clock = clock
        self._keys: dict[str, _Keys] = {}
        self._lock = threading.Lock()

    def proven_id(self, headers: HeaderMapping) -> str:
        """Return the id of the notification that the headers prove. The body is not needed.

        Raises: NotificationRefused; Retryable while the key cannot be fetched.
        """
        token, url = self._read(headers)
        key = self._key(url, younger_than_s=KEY_TTL_S)
        proven = _proven_by(token, key, self._audiences)
        if proven is None:
            fresh = self._key(url, younger_than_s=KEY_MIN_AGE_S)
            proven = None if fresh is key else _proven_by(token, fresh, self._audiences)
        if proven is None:
            raise _forged()
        return proven

    def _read(self, headers: HeaderMapping) -> tuple[str, str]:
        """Return the token and the address of its key, both well-formed."""
        given = {name.lower(): value for name, value in headers.items()}
        if "x-hull-smart-notifier" not in given:
            raise NotificationRefused("MISSING_FLAG_HEADER", "X-Hull-Smart-Notifier is missing")
        if given.get("x-hull-smart-notifier-signature-version") != "v1":
            raise NotificationRefused("UNSUPPORTED_SIGNATURE_VERSION", "only signature version v1 is known")
        token = given.get("x-hull-smart-notifier-signature")
        url = given.get("x-hull-smart-notifier-signature-public-key-url")
        if not token or not url:
            raise NotificationRefused("MISSING_SIGNATURE_HEADERS", "the signature or the address of its key is missing")
        if not _is_well_formed(token):
            raise _forged()
        try:
            parts = self._guard.check(url)
        except ConfigurationError:
            raise _unusable_key() from None
        if parts.path != self._key_path or parts.query:
            raise _unusable_key()
        return token, f"{parts.scheme}://{parts.netloc.lower()}{self._key_path}"

    def _key(self, url: str, *, younger_than_s: float) -> RSAPublicKey:
        """Return a key, fetched by one request at a time. After a failure it fails without a call for FAILED_S.

        Raises: NotificationRefused, Retryable.
        """
        with self._lock:
            keys = self._keys.setdefault(url, _Keys())
        if not keys.fetching.acquire(timeout=FETCH_WAIT_S):
            raise Retryable("remote_unavailable", "the key is being fetched")
        try:
            now = self._clock()
            if keys.key is not None and now - keys.fetched_at < younger_than_s:
                return keys.key
            if keys.failure is not None and keys.failed_at is not None and now - keys.failed_at < FAILED_S:
                raise keys.failure.with_traceback(None)
            try:
                keys.key, keys.fetched_at, keys.failure = self._fetch(url), self._clock(), None
            except (NotificationRefused, Retryable) as failure:
                keys.failure, keys.failed_at = failure, self._clock()
                raise
            return keys.key
        finally:
            keys.fetching.release()

    def _fetch(self, url: str) -> RSAPublicKey:
        """Fetch the key, by POST like Hull's own validator, but without content of the request."""
        request = Request(
            method="POST",
            url=url,
            headers={"Content-Type": "text/plain", "User-Agent": "hull-pipedrive"},
            body=b"",
            max_bytes=KEY_MAX_BYTES,
            deadline_s=KEY_DEADLINE_S,
            only_asks=True,
            resend_if_stale=True,
        )
        try:
            response = self._transport.call(request)
            if not 200 <= response.status < 300:
                raise error_for(response)
        except (ConfigurationError, Rejected):
            raise _unusable_key() from None
        try:
            key = load_pem_public_key(response.body)
        except (ValueError, UnsupportedAlgorithm):
            raise _unusable_key() from None
        if not isinstance(key, RSAPublicKey) or key.key_size < KEY_BITS:
            raise _unusable_key()
        return key


def _unusable_key() -> NotificationRefused:
    return NotificationRefused("INVALID_CERTIFICATE", UNUSABLE_KEY)


def _forged() -> NotificationRefused:
    return NotificationRefused("INVALID_SIGNATURE", "the signature proves no notification")


def _is_well_formed(token: str) -> bool:
    """Return whether it is an RS256 token with an id that has not expired. The signature is not checked."""
    if not _TOKEN.fullmatch(token):
        return False
    try:
        read = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return False
    header, claims = read["header"], read["payload"]
    key_id = header.get("kid", "-")
    return (
        header.get("alg") == "RS256"
        and _UNWANTED.isdisjoint(header)
        and isinstance(key_id, str)
        and _KEY_ID.fullmatch(key_id) is not None
        and isinstance(claims.get("jti"), str)
        and 0 < len(claims["jti"]) <= 255
        and _is_current(claims)
    )


def _is_current(claims: dict[str, Any]) -> bool:
    """Return whether it expires in the future, or else was issued less than a day ago: one of both is required."""
    now, begun, ends = time.time(), claims.get("iat"), claims.get("exp")
    if not all(value is None or type(value) in (int, float) for value in (begun, ends)):
        return False
    if ends is not None:
        return bool(ends > now - LEEWAY_S)
    return begun is not None and bool(now - MAX_AGE_S <= begun <= now + LEEWAY_S)


def _proven_by(token: str, key: RSAPublicKey, audiences: Collection[str]) -> str | None:
    """Return the id that a token proves, or None. If it names an audience, that must be one of ours."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=["RS256"],
            leeway=LEEWAY_S,
            options={"require": ["jti"], "verify_aud": False, "verify_iss": False},
        )
    except (jwt.PyJWTError, ValueError):
        return None
    meant = claims.get("aud", [])
    named = [meant] if isinstance(meant, str) else meant
    is_meant = "aud" not in claims or (isinstance(named, list) and any(each in audiences for each in named))
    return str(claims["jti"]) if is_meant else None
