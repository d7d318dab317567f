"""A cookie of browsers in which an operator logged in: they may send long forms before the next login."""

from __future__ import annotations

import hmac
import time
from typing import Final

from pipeline.settings import settings

DAYS: Final = 90


def new_mark() -> str:
    """Return the cookie of a browser that has just logged in."""
    made = str(int(time.time()))
    return f"{made}.{_mac(made, settings().secret_keys[0])}"


def is_mark(given: str) -> bool:
    """Return whether an operator logged in with this browser in the last DAYS."""
    made, _, mac = given.partition(".")
    if not (made.isascii() and made.isdigit() and len(made) <= 12) or time.time() - int(made) > DAYS * 86_400:
        return False
    sent = mac.encode("utf-8", "surrogatepass")
    return any(hmac.compare_digest(sent, _mac(made, key).encode()) for key in settings().secret_keys)


def _mac(made: str, key: str) -> str:
    return hmac.digest(key.encode(), f"a browser that was logged in {made}".encode(), "sha256").hex()
