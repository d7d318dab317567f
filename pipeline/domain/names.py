"""Validate the names, ids and secrets of a connector: each rule once, for pages, commands, API and Hull.

Names are used in addresses, headers, log lines and file names, so only plain characters are allowed.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_SECRET: Final = 1_000

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HULL_ID: Final = re.compile(r"[0-9a-f]{24}")
_SECRET: Final = re.compile(r"[!-~]{1,1000}")


class InvalidName(ValueError):
    """The input is not valid. The text has the rule, and does not repeat a secret."""


def is_connector_name(text: str) -> bool:
    """Return whether a connector may have this name: letters, digits, dot, dash, underscore; not a number or a
    connector's id."""
    return bool(_NAME.fullmatch(text)) and not text.isdigit() and not is_hull_id(text)


def is_hull_id(text: str) -> bool:
    """Return whether it is the id of a connector in Hull: 24 hex digits, in either case."""
    return bool(_HULL_ID.fullmatch(text.lower()))


def connector_name(text: str) -> str:
    """Return the name. Raises: InvalidName."""
    if is_connector_name(text):
        return text
    raise InvalidName(
        f"{text[:80]!r} is not a valid connector name: use letters, digits, dot, dash and underscore, at most 63, "
        "but not a number and not the id of a connector"
    )


def hull_id(text: str) -> str:
    """Return a connector's id as Hull writes it. Raises: InvalidName."""
    if is_hull_id(text):
        return text.lower()
    raise InvalidName(f"{text[:80]!r} is not the id of a connector in Hull: it has 24 hex digits")


def secret(text: str, what: str) -> str:
    """Return a secret; `what` names its owner. Raises: InvalidName, which does not repeat it."""
    if _SECRET.fullmatch(text):
        return text
    raise InvalidName(f"{what} is not valid: it has 1 to {LONGEST_SECRET} visible characters of ASCII, without spaces")
