"""Normalize the values that identify a record (e-mails, external ids, domains), so that each has one spelling.

A domain is the registrable part of a web site or mailbox, in lower case and in ASCII (`xn--…`), without `www.` and
sub-domains, by the public suffix list. Hosts that many organizations share identify none of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from publicsuffixlist import PublicSuffixList

from pipeline.domain.kinds import Claim, Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.domain.texts import ascii_host, email_spelling, plain
from pipeline.errors import Rejected
from pipeline.transform.hull_reports import find_attribute, is_blank

SHARED: Final = "a host that many organizations share is not used as a claim"

SYNC_KEY: Final = "sync_key"
"""The claim name for a look-up by the Hull id that is stored in a custom field."""

Normalise = Callable[[Any], str | None]


def claims_of(report: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> tuple[tuple[str, str], ...]:
    """Return (claim, value) for every claim of the settings with a usable value in the report, our own key first.

    A value that identifies no record (an invalid e-mail, a shared domain) is left out.
    """
    found = {}
    if settings.sync_key(entity) and isinstance(report.get("id"), str):
        found[SYNC_KEY] = report["id"]
    for rule in settings.claims(entity):
        value = find_attribute(report, rule.hull.value)
        if rule.hull.value in found or is_blank(value):
            continue
        try:
            normal = CLAIMS[Claim(rule.hull)](value)
        except Rejected:
            continue
        if normal is not None:
            found[rule.hull.value] = normal
    return tuple(found.items())


def email_claim(value: Any) -> str | None:
    """Return an e-mail as it is compared, see `email_spelling`; None for an empty one.

    Raises: Rejected("wrong_type") when it cannot be an e-mail.
    """
    text = email_spelling(str(value))
    if not text:
        return None
    if len(text) > 254 or not _EMAIL.fullmatch(text):
        raise Rejected("wrong_type", "not an e-mail, so it is not used as a claim")
    return text


def other_emails(members: list[Any], primary: str | None) -> tuple[tuple[str, str], ...]:
    """Return the usable secondary e-mails of a record, each with the claim for the look-up."""
    if len(members) < 2:
        return ()
    found: dict[tuple[str, str], None] = {}
    for member in members:
        try:
            email = email_claim(member["value"]) if isinstance(member, dict) and member.get("value") else None
        except Rejected:
            continue
        if email is not None and email != primary:
            found[Claim.EMAIL.value, email] = None
    return tuple(found)


def external_id_claim(value: Any) -> str | None:
    """Return an external id as it is compared, with its case; whole numbers without a decimal point."""
    if isinstance(value, (bool, list, dict)):
        raise Rejected("wrong_type", "not one text or number, so it is not used as a claim")
    text = plain(str(value))
    if len(text) > 255:
        raise Rejected("too_long", "more than 255 characters, so it is not used as a claim")
    return text or None


def domain_claim(value: Any) -> str | None:
    """Return the registrable domain of a web site.

    Raises: Rejected("wrong_type") for no domain at all, Rejected("shared_domain") for one that many share.
    """
    text = plain(str(value))
    if not text:
        return None
    domain = registrable_domain(text)
    if domain is None and is_shared_suffix(text):
        raise Rejected("shared_domain", SHARED)
    if domain is None:
        raise Rejected("wrong_type", "not a domain, so it is not used as a claim")
    return _own(domain)


def name_domain_claim(value: Any) -> str | None:
    """Return the domain in a name; None unless the name is a host name, which most names are not."""
    domain = domain_of_name(str(value))
    return None if domain is None else _own(domain)


def _own(domain: str) -> str:
    if domain in shared_hosts():
        raise Rejected("shared_domain", SHARED)
    return domain


@cache
def shared_hosts() -> frozenset[str]:
    """Return the hosts that many unrelated organizations use, which identify none of them. See `shared_hosts.txt`."""
    text = files("pipeline.transform").joinpath("shared_hosts.txt").read_text("utf-8")
    return frozenset(host for line in text.splitlines() if not line.startswith("#") for host in line.split())


_RESERVED: Final = frozenset({"test", "example"})
"""Suffixes reserved for tests (RFC 2606); every other suffix must be on the public list."""

_SCHEME: Final = re.compile(r"^(?:[a-z][a-z0-9+.\-]*://|mailto:|//)", re.IGNORECASE)
_SPACES: Final = re.compile(r"[\s,;|]")
_LONGEST: Final = 2_000


@cache
def _suffixes() -> PublicSuffixList:
    """Return the official suffixes and the hosts that anyone can get a subdomain of."""
    return PublicSuffixList()


@cache
def _official_suffixes() -> PublicSuffixList:
    return PublicSuffixList(only_icann=True)


def registrable_domain(text: str) -> str | None:
    """Return the registrable domain in the address of a web site or a mailbox, or None.

    The first of several addresses counts. IP addresses, single words and unknown suffixes are not domains.
    """
    host = _host_of(text)
    return None if host is None else _reduce(host)


def is_shared_suffix(text: str) -> bool:
    """Return whether an address is a host that anyone can get a subdomain of, such as `github.io`."""
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
    """Return the domain in an Organization's name; None unless the name is a host name."""
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


_EMAIL: Final = re.compile(
    r"[^@\s\x00-\x1f<>()\[\],;:\"\\]{1,64}@[^@\s\x00-\x1f<>()\[\],;:\"\\.]++(?:\.[^@\s\x00-\x1f<>()\[\],;:\"\\.]++)++"
)
"""Deliberately loose: a claim must look like one mailbox; it need not follow every rule of RFC 5321."""


CLAIMS: Final[Mapping[Claim, Normalise]] = {
    Claim.EMAIL: email_claim,
    Claim.EXTERNAL_ID: external_id_claim,
    Claim.DOMAIN: domain_claim,
}
