"""Who may come in: what a caller presents is compared, in constant time, with keyed digests of the connectors' secrets.

The digests of all connectors are read together and kept for a few seconds under a salt of this very process. An unknown
connector is compared like a known one, so neither the answer nor the time it takes tells which ids exist.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from db import connector as connectors
from db.session import transaction
from pipeline import wiring
from pipeline.errors import ConfigurationError
from pipeline.settings import settings
from pipeline.telemetry import logger

RENEW_S = 5.0
RENEW_REFUSING_S = 1.0
"""Before somebody is turned away, what is older than this is read again: the secrets may be new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The digests of one connector; None where it has no such secret, which nothing can match."""

    connector_key: int
    webhook: bytes | None
    hull: bytes | None


class Doors:
    """Knows the digests; threads share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._salt = secrets.token_bytes(32)
        self._nobody = secrets.token_bytes(32)
        self._doors: dict[str, Door] = {}
        self._read_at: float | None = None
        self._lock = threading.Lock()

    def admit_webhook(self, connector_id: str, path_token: str, user: str, password: str) -> int | None:
        """The connector's key when path, user and password are all right, else None."""
        presented = self._digest(path_token, user, password)
        return self._admit(connector_id, presented, lambda door: door.webhook)

    def admit_hull(self, connector_id: str, organization: str, secret: str) -> int | None:
        """The connector's key when Hull's id, organization and secret belong together, else None."""
        presented = self._digest(organization.lower(), secret)
        return self._admit(connector_id, presented, lambda door: door.hull)

    def _admit(self, connector_id: str, presented: bytes, which: Callable[[Door], bytes | None]) -> int | None:
        for oldest_s in (RENEW_S, RENEW_REFUSING_S):
            door = self._known(oldest_s).get(connector_id)
            expected = (which(door) if door else None) or self._nobody
            if hmac.compare_digest(expected, presented) and door is not None:
                return door.connector_key
        return None

    def _known(self, oldest_s: float) -> dict[str, Door]:
        with self._lock:
            if self._read_at is None or self._clock() - self._read_at >= oldest_s:
                self._doors = self._read()
                self._read_at = self._clock()
            return self._doors

    def _read(self) -> dict[str, Door]:
        with transaction() as session:
            found = {}
            for connector in connectors.all_connectors(session):
                try:
                    known = wiring.open_secrets(session, connector.key, settings())
                except ConfigurationError as unreadable:
                    logger().error("connector.secret.error", connector_id=connector.id, reason=unreadable.reason)
                    known = {}
                found[connector.id] = self._door(connector.key, connector.hull_organization, known)
            return found

    def _door(self, connector_key: int, organization: str, known: dict[str, str]) -> Door:
        webhook = [known.get(name) for name in ("webhook_path", "webhook_user", "webhook_password")]
        hull = known.get("hull_secret")
        return Door(
            connector_key=connector_key,
            webhook=self._digest(*(part for part in webhook if part)) if all(webhook) else None,
            hull=self._digest(organization.lower(), hull) if hull else None,
        )

    def _digest(self, *parts: str) -> bytes:
        """Each part with its length before it, so that no two lists of parts read alike."""
        digest = hashlib.blake2b(key=self._salt, digest_size=32)
        for part in parts:
            octets = part.encode("utf-8", "surrogatepass")
            digest.update(len(octets).to_bytes(8, "big") + octets)
        return digest.digest()
