"""Check whether a text can be sent: complete Unicode, no NUL, not longer than the other side accepts."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final, TypeVar

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
    """Return whether a text can be stored and sent, whatever its length."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


Found = TypeVar("Found")


def same_text(text: str) -> str:
    """Give the form in which a label is compared: composed Unicode, without the spaces around it."""
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()


def loose_text(text: str) -> str:
    """Give the form in which labels are compared that are spelled in another case or width."""
    return text.strip().casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold().strip()


def list_readings(text: str, find: Callable[[str], Found | None], most_commas: int) -> list[list[Found]]:
    """Return the ways to read a text as labels with commas between them, because a label may contain commas.

    find         the meaning of one label, None for a text that is not a label
    most_commas  maximum number of commas in one label
    Return no reading if some part is not a label; readings with the same members count once, and only a few are listed.
    """
    pieces = text.split(",")
    readings: list[dict[frozenset[Found], list[Found]]] = [{} for _ in pieces] + [{frozenset(): []}]
    for at in range(len(pieces) - 1, -1, -1):
        if not pieces[at].strip():
            readings[at] |= readings[at + 1]
        for end in range(at + 1, min(at + most_commas + 1, len(pieces)) + 1):
            found = find(",".join(pieces[at:end])) if readings[end] and pieces[at].strip() else None
            if found is None:
                continue
            for key, members in readings[end].items():
                if len(readings[at]) < _MOST_READINGS:
                    rest = [each for each in members if each != found] if found in key else members
                    readings[at].setdefault(key | {found}, [found, *rest])
    return list(readings[0].values())


_MOST_READINGS: Final = 8
"""More are never listed: two are too many already."""
