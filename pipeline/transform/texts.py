"""Says whether a text can be carried: complete Unicode, no NUL, not longer than the far side takes."""

from __future__ import annotations

from typing import Final

from pipeline.errors import Rejected

HULL_VALUE_BYTES: Final = 2_000
"""Hull's limit for one value, documented as 2 kB (hull.io, guides/getting-started/profiles)."""


def hull_text(text: str) -> str | None:
    """Give a text as Hull may have it; None for the empty one.

    Raises: Rejected("unusable_text" or "too_long").
    """
    if text.isascii():
        size_bytes = len(text)
    else:
        try:
            size_bytes = len(text.encode())
        except UnicodeEncodeError:
            raise Rejected("unusable_text", "half a surrogate pair") from None
    if "\0" in text:
        raise Rejected("unusable_text", "a NUL character")
    if size_bytes > HULL_VALUE_BYTES:
        raise Rejected("too_long", f"{size_bytes} bytes, Hull takes {HULL_VALUE_BYTES}")
    return text or None


def is_usable(text: str) -> bool:
    """Tell whether a text can be stored and sent at all, whatever its length."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
