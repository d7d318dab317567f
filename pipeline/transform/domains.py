"""Reduce a web site as people write it to the registrable domain, and detect texts that are not a domain.

Domains are returned in lower case, without `www.` and sub-domains, international names in their ASCII form (`xn--…`), so
that one company has one spelling. Public suffixes are read from the list in `publicsuffixlist`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final

from publicsuffixlist import PublicSuffixList

from pipeline.domain.spelling import ascii_host, plain


@cache
def shared_hosts() -> frozenset[str]:
    """Return the hosts that many unrelated organizations have as theirs: they identify none of them. See `shared_hosts.txt`."""
    text = files("pipeline.transform").joinpath("shared_hosts.txt").read_text("utf-8")
    return frozenset(host for line in text.splitlines() if not line.startswith("#") for host in line.split())


_RESERVED: Final = frozenset({"test", "example"})
"""Endings kept for trials (RFC 2606); everything else has to be on the public list."""

_SCHEME: Final = re.compile(r"^(?:[a-z][a-z0-9+.\-]*://|mailto:|//)", re.IGNORECASE)
_SPACES: Final = re.compile(r"[\s,;|]")
_LONGEST: Final = 2_000


@cache
def _suffixes() -> PublicSuffixList:
    """Official endings, and hosts below which their owners give domains to everybody."""
    return PublicSuffixList()


@cache
def _official_suffixes() -> PublicSuffixList:
    return PublicSuffixList(only_icann=True)


def registrable_domain(text: str) -> str | None:
    """Return the registrable domain in an address of a web site or a mailbox; None if there is none.

    The first of several addresses counts. IP addresses, single words and unknown suffixes are not domains.
    """
    host = _host_of(text)
    return None if host is None else _reduce(host)


def is_shared_suffix(text: str) -> bool:
    """Return whether an address is a host below which everybody may have a domain, such as `github.io`."""
    name = ascii_host(_host_of(text) or "")
    return name is not None and _suffixes().is_public(name) and not _official_suffixes().is_public(name)


def _host_of(text: str) -> str | None:
    if len(text) > _LONGEST:
        return None
    first = _SPACES.split(plain(text), maxsplit=1)[0]
    place = re.split(r"[/?#\\]", _SCHEME.sub("", first), maxsplit=1)[0].rpartition("@")[2]
    host, colon, port = place.partition(":")
    if colon and port and not (port.isascii() and port.isdigit()):
        return None
    return host


def domain_of_name(name: str) -> str | None:
    """Find the domain in an Organization's name: only a name that is a bare host name has one."""
    host = plain(name)
    return None if len(host) > _LONGEST or re.search(r"[\s/@:,;]", host) else _reduce(host)


def _reduce(host: str) -> str | None:
    name = ascii_host(host)
    if name is None or "." not in name:
        return None
    ending = name.rpartition(".")[2]
    if ending in _RESERVED:
        return ".".join(name.split(".")[-2:])
    domain: str | None = _suffixes().privatesuffix(name, accept_unknown=False)
    return domain
