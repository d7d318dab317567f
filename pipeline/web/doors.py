"""Who may come in: what a caller presents is compared, in constant time, with keyed digests of the connectors' secrets.

The digests of all connectors are read together and kept for a few seconds under a salt of this very process. Nobody is
refused by them alone: the one connector is read again first, because its row or its secrets may be new, and ten refusals
ban a webhook. An unknown connector is looked up and compared like a known one, so the answer does not tell which ids exist.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from db import connector as connectors
from db.session import transaction
from pipeline import wiring
from pipeline.errors import ConfigurationError
from pipeline.settings import settings
from pipeline.telemetry import logger

RENEW_S = 5.0
LONGEST_ID: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The digests of one connector; None where it has no such secret, which nothing can match.

    sealed  the secrets as they are stored: while they are the same, nothing has to be decrypted again
    """

    connector_key: int
    organization: str
    sealed: Mapping[str, bytes] = field(repr=False)
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
        self._reading = threading.Lock()

    def admit_webhook(self, connector_id: str, path_token: str, user: str, password: str) -> int | None:
        """The connector's key when path, user and password are all right, else None."""
        presented = self._digest(path_token, user, password)
        return self._admit(connector_id, presented, lambda door: door.webhook)

    def admit_hull(self, connector_id: str, organization: str, secret: str) -> int | None:
        """The connector's key when Hull's id, organization and secret belong together, else None."""
        presented = self._digest(organization.lower(), secret)
        return self._admit(connector_id, presented, lambda door: door.hull)

    def _admit(self, connector_id: str, presented: bytes, which: Callable[[Door], bytes | None]) -> int | None:
        for read in (self._known, self._read_again):
            door = read(connector_id)
            expected = (which(door) if door else None) or self._nobody
            if hmac.compare_digest(expected, presented) and door is not None:
                return door.connector_key
        return None

    def _known(self, connector_id: str) -> Door | None:
        """The connector as it was some seconds ago. While another thread reads them all again, which takes long when the
        database is away, what is known already will do."""
        if self._reading.acquire(blocking=self._read_at is None):
            try:
                if self._read_at is None or self._clock() - self._read_at >= RENEW_S:
                    doors = self._read()
                    with self._lock:
                        self._doors = doors
                    self._read_at = self._clock()
            finally:
                self._reading.release()
        return self._doors.get(connector_id)

    def _read_again(self, connector_id: str) -> Door | None:
        """The connector as it is stored at this moment."""
        if not (connector_id.isprintable() and len(connector_id) <= LONGEST_ID):
            return None
        with transaction() as session:
            found = connectors.find_sealed(session, connector_id)
        door = self._door(*found) if found is not None else None
        with self._lock:
            doors = {each: kept for each, kept in self._doors.items() if each != connector_id}
            self._doors = doors | {connector_id: door} if door is not None else doors
        return door

    def _read(self) -> dict[str, Door]:
        with transaction() as session:
            return {
                connector.id: self._door(connector, connectors.credentials_of(session, connector.key))
                for connector in connectors.all_connectors(session)
            }

    def _door(self, connector: connectors.Connector, sealed: dict[str, bytes]) -> Door:
        earlier = self._doors.get(connector.id)
        same = (connector.key, connector.hull_organization, sealed)
        if earlier is not None and (earlier.connector_key, earlier.organization, earlier.sealed) == same:
            return earlier
        try:
            known = wiring.unseal(connector.key, sealed, settings())
        except ConfigurationError as unreadable:
            logger().error("connector.secret.error", connector_id=connector.id, reason=unreadable.reason)
            known = {}
        organization = connector.hull_organization
        webhook = [known.get(name) for name in ("webhook_path", "webhook_user", "webhook_password")]
        hull = known.get("hull_secret")
        return Door(
            connector_key=connector.key,
            organization=organization,
            sealed=sealed,
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
