"""Hash passwords, verify them, and refuse weak ones.

Argon2id by argon2-cffi under its defaults (RFC 9106, second recommended option: 64 MiB, 3 passes). Strength is estimated by
zxcvbn, which knows common passwords, names, keyboard patterns and dates.
"""

from __future__ import annotations

import secrets
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from pipeline.slow_work import PASSWORDS

SHORTEST_PASSWORD: Final = 10
LONGEST_PASSWORD: Final = 200
NO_PASSWORD: Final = ""
"""Stored instead of a hash for operators who log in through single sign-on only."""
_LEAST_SCORE: Final = 3
"""Of zxcvbn's 0 to 4: 3 is "safely unguessable", from 10^8 guesses."""
_MOST_SCORED: Final = 72
"""Maximum of characters for zxcvbn; more take too much time."""


class WeakPassword(Exception):
    """The password is too short, too long or easy to guess; the text has the reason and the next step."""


def hash_new(password: str, *, own_words: tuple[str, ...] = ()) -> str:
    """Return the hash of a new password.

    own_words  words that an attacker would try first, such as the operator's name

    Raises: WeakPassword; Overloaded in a web request while many others wait.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise WeakPassword(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    from zxcvbn import zxcvbn  # noqa: PLC0415 - its word lists take half a second and 15 MB that only this needs

    found = zxcvbn(password[:_MOST_SCORED], user_inputs=["hull", "pipedrive", "pipeline", *own_words])
    if found["score"] < _LEAST_SCORE:
        why = found["feedback"]["warning"].rstrip(".") or "This is easy to guess"
        raise WeakPassword(f"{why[0].lower()}{why[1:]}: use four or more uncommon words, or a password manager")
    with PASSWORDS.entered():
        return _hasher().hash(password)


def verify(known: str, password: str) -> bool:
    """Return whether a password matches a hash. It takes the same time if `known` is not a hash.

    Raises: Overloaded in a web request while many others wait.
    """
    is_possible = bool(known) and len(password) <= LONGEST_PASSWORD
    try:
        with PASSWORDS.entered():
            compared = known if is_possible else _dummy_hash()
            return _hasher().verify(compared, password[:LONGEST_PASSWORD]) and is_possible
    except (Argon2Error, InvalidHashError):
        return False


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _dummy_hash() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))
