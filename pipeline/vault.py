"""Secrets at rest: encrypted with rotating keys, each bound to its connector and name.

Fernet has no associated data, so the owner is written into the plaintext and checked: a row swapped in the database
does not decrypt to another connector's secret.
"""

from __future__ import annotations

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from pipeline.errors import ConfigurationError


class Vault:
    """Encrypts with the first key, decrypts with any of them."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, connector_key: int, name: str, secret: str) -> bytes:
        """Encrypt one secret of one connector."""
        return self._fernet.encrypt(orjson.dumps([connector_key, name, secret]))

    def open(self, connector_key: int, name: str, ciphertext: bytes, *, max_age_s: int | None = None) -> str:
        """Decrypt a secret.

        Raises: ConfigurationError if no key decrypts it, it belongs to another connector, or it is older than `max_age_s`.
        """
        try:
            owner, label, secret = orjson.loads(self._fernet.decrypt(bytes(ciphertext), ttl=max_age_s))
        except InvalidToken:
            raise ConfigurationError("secret_unreadable", f"{name}: no key of SECRET_KEYS decrypts it") from None
        if (owner, label) != (connector_key, name):
            raise ConfigurationError("secret_unreadable", f"{name}: it belongs to another connector")
        return str(secret)

    def renew(self, ciphertext: bytes) -> bytes:
        """Encrypt a secret again with the newest key."""
        return self._fernet.rotate(bytes(ciphertext))
