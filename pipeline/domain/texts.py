"""Check whether texts can be stored and sent, and normalize identifiers and labels for comparison.

People copy addresses out of documents and chats, with invisible characters: zero width spaces, byte order marks, soft
hyphens, marks of direction. East Asian keyboards type full-width letters. An international domain has two spellings.
All of these identify the same person: Unicode's NFKC normalizes widths and composition (https://unicode.org/reports/tr15/), and
characters that are ignored when a text is shown (https://unicode.org/reports/tr44/#Default_Ignorable_Code_Point) are
removed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final, TypeVar

from pipeline.errors import Rejected


def plain(text: str) -> str:
    """Return a text as it is compared: NFKC, without characters that are shown as nothing, trimmed. Case stays."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFKC", _SHOWN_AS_NOTHING.sub("", unicodedata.normalize("NFKC", text))).strip()


def email_spelling(text: str) -> str:
    """Return the one spelling of an e-mail address: plain, in lower case, its host as IDNA writes it."""
    whole = plain(text).lower()
    if whole.isascii():
        return whole
    mailbox, at, host = plain(whole).rpartition("@")
    return f"{mailbox}{at}{ascii_host(host) or host}" if at else host


def ascii_host(host: str) -> str | None:
    """Return a host name in lower-case ASCII labels; None if a label is not allowed in a host name."""
    if not host.isascii():
        host = plain(host.translate(_DOTS))
    labels = host.lower().removesuffix(".").split(".")
    try:
        host.encode()  # half a surrogate pair would pass as punycode
        # Lower case and punycode are the whole of today's rules (RFC 5891) for a valid label. The standard library's
        # `idna` codec follows the rules of 2003, which turn `ß` into `ss`: another domain.
        ascii_labels = [label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels]
    except UnicodeError:
        return None
    if not all(_LABEL.fullmatch(label) for label in ascii_labels) or sum(map(len, ascii_labels)) + len(labels) > 254:
        return None
    return ".".join(ascii_labels)


def shown_host(host: str) -> str:
    """Return a host name as people write it: `xn--mnchen-3ya.de` as `münchen.de`."""
    return ".".join(map(_shown_label, host.split(".")))


def _shown_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label.removeprefix("xn--").encode("ascii").decode("punycode")
    except (UnicodeError, ValueError):
        return label


_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?")


HULL_VALUE_BYTES: Final = 2_000
"""Hull's limit for one value, documented as 2 kB (hull.io, guides/getting-started/profiles)."""


def hull_text(text: str) -> str | None:
    """Return a text that Hull accepts; None for an empty one.

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
    """Return a label as it is compared: composed Unicode, without surrounding spaces."""
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()


def loose_text(text: str) -> str:
    """Return a label as it is compared if case and width do not matter."""
    return text.strip().casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold().strip()


def list_readings(text: str, find: Callable[[str], Found | None], most_commas: int) -> list[list[Found]]:
    """Return every way to read a text as labels with commas between them, because a label may contain commas.

    find         the meaning of one label, None for a text that is not a label
    most_commas  maximum number of commas in one label
    Without a reading, some part is not a label. Readings with the same members count once; only a few are returned.
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
"""Maximum number of readings: two are ambiguous already."""


_SHOWN_AS_NOTHING: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_DOTS: Final = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": "."})
"""Full stops that IDNA treats as the dot of a host name (RFC 3490, section 3.1)."""
