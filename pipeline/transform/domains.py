"""Reduces what people write as a web site to the registrable domain, and says when a text is no domain at all.

Domains come out in lower case, without `www.` and sub-domains, international names in their ASCII form (`xn--…`), so
that one company has one spelling. Which endings are public is read from the list bundled with `publicsuffixlist`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

from publicsuffixlist import PublicSuffixList

_MAIL_FOR_EVERYBODY: Final = """
gmail.com googlemail.com outlook.com hotmail.com hotmail.co.uk hotmail.fr hotmail.de hotmail.it hotmail.es live.com
live.co.uk live.fr live.nl msn.com yahoo.com yahoo.co.uk yahoo.fr yahoo.de yahoo.it yahoo.es yahoo.co.in yahoo.co.jp
yahoo.com.br ymail.com rocketmail.com aol.com icloud.com me.com mac.com gmx.com gmx.de gmx.net gmx.at gmx.ch web.de
t-online.de freenet.de mail.com mail.ru bk.ru list.ru inbox.ru yandex.ru yandex.com ya.ru rambler.ru proton.me
protonmail.com pm.me tutanota.com tuta.io zoho.com fastmail.com hey.com qq.com 163.com 126.com sina.com sina.cn
foxmail.com naver.com daum.net hanmail.net rediffmail.com orange.fr wanadoo.fr free.fr laposte.net sfr.fr bluewin.ch
libero.it virgilio.it tiscali.it alice.it comcast.net verizon.net att.net sbcglobal.net cox.net charter.net
bellsouth.net btinternet.com sky.com ntlworld.com virginmedia.com talktalk.net shaw.ca rogers.com sympatico.ca
bigpond.com optusnet.com.au uol.com.br bol.com.br terra.com.br seznam.cz wp.pl o2.pl onet.pl interia.pl abv.bg ukr.net
telenet.be skynet.be ziggo.nl kpnmail.nl planet.nl mailinator.com
"""
_PAGES_FOR_EVERYBODY: Final = """
facebook.com instagram.com linkedin.com twitter.com x.com youtube.com tiktok.com pinterest.com linktr.ee bit.ly
"""
SHARED_DOMAINS: Final = frozenset((_MAIL_FOR_EVERYBODY + _PAGES_FOR_EVERYBODY).split())
"""Domains that many unrelated organizations give as theirs: they identify nobody."""

_RESERVED: Final = frozenset({"test", "example"})
"""Endings kept for trials (RFC 2606); everything else has to be on the public list."""

_SCHEME: Final = re.compile(r"^(?:[a-z][a-z0-9+.\-]*://|mailto:|//)", re.IGNORECASE)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?")
_SPACES: Final = re.compile(r"[\s,;|]")
_LONGEST: Final = 2_000


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def registrable_domain(text: str) -> str | None:
    """Find the registrable domain in an address of a web site or a mailbox; None when there is none.

    The first of several addresses counts. IP addresses, single words and unknown endings are no domains.
    """
    if len(text) > _LONGEST:
        return None
    first = _SPACES.split(text.strip(), maxsplit=1)[0]
    place = re.split(r"[/?#\\]", _SCHEME.sub("", first), maxsplit=1)[0].rpartition("@")[2]
    host, colon, port = place.partition(":")
    if colon and port and not (port.isascii() and port.isdigit()):
        return None
    return _reduce(host)


def domain_of_name(name: str) -> str | None:
    """Find the domain in an Organization's name: only a name that is a bare host name has one."""
    host = name.strip()
    return None if len(host) > _LONGEST or re.search(r"[\s/@:,;]", host) else _reduce(host)


def ascii_host(host: str) -> str | None:
    """Spell a host name in lower-case ASCII labels; None when a label is not allowed in a host name."""
    if not host.isascii():
        host = unicodedata.normalize("NFKC", host.replace("\u3002", ".").replace("\uff61", "."))
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


def _reduce(host: str) -> str | None:
    name = ascii_host(host)
    if name is None or "." not in name:
        return None
    ending = name.rpartition(".")[2]
    if ending in _RESERVED:
        return ".".join(name.split(".")[-2:])
    domain: str | None = _suffixes().privatesuffix(name, accept_unknown=False)
    return domain
