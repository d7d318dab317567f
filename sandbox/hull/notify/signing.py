"""The signature of a notification: a JWT, RS256, whose `jti` is the notification's id; the public key is served as
PEM.

Source: https://github.com/hull/hull-connectors (packages/hull/src/utils/notification-validator.js)
"""

from __future__ import annotations

import time
from functools import cached_property

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Signer:
    """The key is made when first needed: that takes a tenth of a second and most uses of the sandbox never sign."""

    @cached_property
    def _key(self) -> RSAPrivateKey:
        return generate_private_key(public_exponent=65537, key_size=2048)

    def sign(self, notification_id: str) -> str:
        return jwt.encode({"jti": notification_id, "iat": int(time.time())}, self._key, algorithm="RS256")

    def public_pem(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
