"""Normalize identifying texts, so that texts that look the same are equal.

People copy addresses out of documents and chats, with invisible characters: zero width spaces, byte order marks, soft
hyphens, marks of direction. East Asian keyboards type full-width letters. An international domain has two spellings.
All of these mean one person: Unicode's NFKC normalizes widths and composition (https://unicode.org/reports/tr15/), and
characters that are ignored when a text is shown (https://unicode.org/reports/tr44/#Default_Ignorable_Code_Point) are
removed.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SHOWN_AS_NOTHING: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_DOTS: Final = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": "."})
"""Full stops that IDNA takes for the dot of a host name (RFC 3490, section 3.1)."""


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
