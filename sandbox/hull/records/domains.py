"""Domains and e-mail addresses, as Hull compares them.

An Account is known by its registrable domain ("shop.acme.co.uk" and "https://www.acme.co.uk/x" are both
acme.co.uk). Providers of free mailboxes are no company's domain. Hull does not publish its exact list or algorithm;
the public suffix list and the providers below stand in. Source:
https://www.hull.io/docs/reference/identity_resolution/
"""

from __future__ import annotations

import re
from functools import lru_cache

from publicsuffixlist import PublicSuffixList

FREEMAIL = frozenset(
    {
        "gmail.com",
        "googlemail.com",
        "yahoo.com",
        "yahoo.co.uk",
        "yahoo.fr",
        "yahoo.de",
        "ymail.com",
        "hotmail.com",
        "hotmail.co.uk",
        "hotmail.fr",
        "outlook.com",
        "live.com",
        "msn.com",
        "aol.com",
        "icloud.com",
        "me.com",
        "mac.com",
        "proton.me",
        "protonmail.com",
        "gmx.com",
        "gmx.de",
        "gmx.net",
        "web.de",
        "t-online.de",
        "mail.com",
        "mail.ru",
        "yandex.ru",
        "yandex.com",
        "qq.com",
        "163.com",
        "126.com",
        "orange.fr",
        "wanadoo.fr",
        "free.fr",
        "laposte.net",
        "libero.it",
        "zoho.com",
        "fastmail.com",
        "hey.com",
    }
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_SUFFIXES = PublicSuffixList()


@lru_cache(maxsize=65_536)
def registrable_domain(text: str) -> str | None:
    """Reduce a URL or host name to its registrable domain; None when the text is no host name.

    "https://www.Shop.Acme.co.uk:8080/about" → "acme.co.uk" · "Acme" → None · "10.0.0.1" → None
    """
    host = _host(text)
    labels = host.split(".")
    if len(labels) < 2 or labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    return _SUFFIXES.privatesuffix(host)


def email_address(text: str) -> str | None:
    """Lower-case and trim an address; None when the text is none."""
    address = text.strip().lower()
    name, at, host = address.rpartition("@")
    return address if at and name and host and not any(c.isspace() for c in address) else None


def _host(text: str) -> str:
    bare = re.sub(r"^[a-z][a-z0-9+.-]*://", "", text.strip().lower())
    host = re.split(r"[/?#]", bare, maxsplit=1)[0].rpartition("@")[2].partition(":")[0].rstrip(".")
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
