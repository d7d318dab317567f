"""The credentials check: authenticate webhooks and Hull in constant time, with keyed digests of one connector's secrets.

The connector is found by its id, and only the needed secrets are decrypted. Their digest is cached for RENEW_S, with a
salt of this process. A cached digest never rejects a sender: the connector is read again first, because its secrets may
have changed, and ten rejections ban a webhook. An unknown connector is looked up and compared like a known one, so the
answer does not reveal which ids exist.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from db import connector as connectors
from db.connector import Connector
from db.session import transaction
from pipeline import wiring
from pipeline.errors import ConfigurationError
from pipeline.telemetry import logger

RENEW_S = 5.0
LONGEST_ID: Final = 64
CACHED: Final = 10_000
"""Maximum of cached digests; the oldest are dropped."""
WEBHOOK: Final = ("webhook_path", "webhook_user", "webhook_password")
HULL: Final = ("hull_secret",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedCredentials:
    """The credentials that a sender must present for a connector.

    sealed  the stored, encrypted secrets: while they are unchanged, nothing is decrypted again
    digest  None if the connector lacks one of the secrets; nothing matches it
    """

    connector_key: int
    organization: str
    sealed: Mapping[str, bytes] = field(repr=False)
    digest: bytes | None
    read_at: float


class CredentialsCheck:
    """Authenticates webhooks and Hull; threads share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._salt = secrets.token_bytes(32)
        self._no_match = secrets.token_bytes(32)
        self._cached: OrderedDict[tuple[str, tuple[str, ...]], ExpectedCredentials] = OrderedDict()
        self._lock = threading.Lock()

    def authenticate_webhook(self, connector_id: str, path_token: str, user: str, password: str) -> int | None:
        """Return the connector's key if path, user and password are all correct, else None."""
        return self._authenticate(connector_id, WEBHOOK, self._digest(path_token, user, password))

    def authenticate_hull(self, connector_id: str, organization: str, secret: str) -> int | None:
        """Return the connector's key if Hull's id, organization and secret belong together, else None."""
        return self._authenticate(connector_id, HULL, self._digest(organization.lower(), secret))

    def authenticate_dashboard(self, fields: Mapping[str, str]) -> int | None:
        """Return the key of the connector in the fields `ship` (or `id`), `organization` and `secret`, else None.

        Hull's dashboard sends them in the query or in a form.
        """
        connector_id = fields.get("ship") or fields.get("id") or ""
        return self.authenticate_hull(connector_id, fields.get("organization", ""), fields.get("secret", ""))

    def _authenticate(self, connector_id: str, names: tuple[str, ...], presented: bytes) -> int | None:
        for find in (self._find_cached, self._read):
            found = find(connector_id, names)
            expected = (found.digest if found else None) or self._no_match
            if hmac.compare_digest(expected, presented) and found is not None:
                return found.connector_key
        return None

    def _find_cached(self, connector_id: str, names: tuple[str, ...]) -> ExpectedCredentials | None:
        """Return the cached digest, if it is fresh."""
        with self._lock:
            cached = self._cached.get((connector_id, names))
        return cached if cached is not None and self._clock() - cached.read_at < RENEW_S else None

    def _read(self, connector_id: str, names: tuple[str, ...]) -> ExpectedCredentials | None:
        """Return the digest of the stored secrets, and cache it."""
        if not (connector_id.isprintable() and len(connector_id) <= LONGEST_ID):
            return None
        with transaction() as session:
            found = connectors.find_sealed(session, connector_id, names)
        with self._lock:
            earlier = self._cached.pop((connector_id, names), None)
        if found is None:
            return None
        expected = self._expected(*found, names, earlier)
        with self._lock:
            self._cached[connector_id, names] = expected
            while len(self._cached) > CACHED:
                self._cached.popitem(last=False)
        return expected

    def _expected(
        self,
        connector: Connector,
        sealed: dict[str, bytes],
        names: tuple[str, ...],
        earlier: ExpectedCredentials | None,
    ) -> ExpectedCredentials:
        organization = connector.hull_organization
        same = (connector.key, organization, sealed)
        if earlier is not None and (earlier.connector_key, earlier.organization, earlier.sealed) == same:
            return replace(earlier, read_at=self._clock())
        try:
            known = wiring.unseal(connector.key, sealed)
        except ConfigurationError as unreadable:
            logger().error("connector.secret.error", connector_id=connector.id, reason=unreadable.reason)
            known = {}
        parts = [known.get(name) for name in names]
        digest = None
        if all(parts):
            digest = self._digest(*([organization.lower()] if names == HULL else []), *(part for part in parts if part))
        return ExpectedCredentials(
            connector_key=connector.key, organization=organization, sealed=sealed, digest=digest, read_at=self._clock()
        )

    def _digest(self, *parts: str) -> bytes:
        """Digest each part after its length, so that no two lists of parts have the same digest."""
        digest = hashlib.blake2b(key=self._salt, digest_size=32)
        for part in parts:
            octets = part.encode("utf-8", "surrogatepass")
            digest.update(len(octets).to_bytes(8, "big") + octets)
        return digest.digest()
