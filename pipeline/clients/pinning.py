"""Where an address from outside leads: looked up once, refused when it leads inside, and then called at that very address.

A host that is allowed by name could still be made to point at this network, also between a look and the call. One that is
allowed together with its port may be anywhere: whoever wrote it into the list meant that very place.
Source: https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest, Response

from pipeline.clients.hosts import is_loopback
from pipeline.errors import Rejected, Retryable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that stand for IPv4 ones (RFC 6052)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The one address to call, and the name its certificate must carry."""

    host: str
    port: int
    address: str


def check_url(url: str, allowed: Collection[str], *, reason: str) -> SplitResult:
    """The parts of an address that may be called as far as its text tells: https, or http to this machine by host and port.

    Raises: Rejected(reason), which does not repeat the address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Rejected(reason, "the address cannot be read") from None
    host = (parts.hostname or "").lower()
    if not (url.isascii() and url.isprintable() and host) or parts.username or parts.password or parts.fragment:
        raise Rejected(reason, "the address cannot be read")
    hosts = {each.strip().lower() for each in allowed}
    by_port = port is not None and f"{_bracketed(host)}:{port}" in hosts
    by_name = _bracketed(host) in hosts and parts.scheme == "https" and port in (None, 443)
    if not (by_name or (by_port and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))))):
        raise Rejected(reason, "the host is not in the allow-list")
    return parts


def pin(url: str, allowed: Collection[str], *, reason: str, resolve: Resolve | None = None) -> Pin:
    """Look an address up, once. Every address it has must be public, unless host and port are allowed together.

    Raises: Rejected(reason), Retryable("remote_unreachable").
    """
    parts = check_url(url, allowed, reason=reason)
    host, port = (parts.hostname or "").lower(), parts.port or 443
    found = (resolve or addresses)(host, port)
    if not found:
        raise Retryable("remote_unreachable", f"{host} has no address")
    meant = parts.port is not None and f"{_bracketed(host)}:{port}" in {each.strip().lower() for each in allowed}
    if not meant and not all(is_public(address) for address in found):
        raise Rejected(reason, "the host leads to a private address")
    return Pin(host=host, port=port, address=found[0])


def addresses(host: str, port: int) -> list[str]:
    """Raises: Retryable("remote_unreachable")."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Retryable("remote_unreachable", f"{host} cannot be looked up") from None
    return [str(address[0]) for *_, address in found]


def is_public(text: str) -> bool:
    """Whether an address lies in the open internet: not this machine, not a private or link-local net, no cloud's metadata."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not (address.is_multicast or address.is_reserved)


def pinned_session(target: Pin) -> requests.Session:
    """A Session that speaks to this address alone, and through no proxy: a proxy would look the name up again."""
    session = requests.Session()
    session.trust_env = False
    session.adapters.clear()
    for scheme in ("http://", "https://"):
        session.mount(scheme, PinnedAdapter(target, with_tls=scheme == "https://"))
    return session


class PinnedAdapter(HTTPAdapter):
    """Connects to the address; the name still goes into the Host header and is what the certificate must be for."""

    def __init__(self, target: Pin, *, with_tls: bool) -> None:
        self._target = target
        self._names: dict[str, Any] = (
            {"server_hostname": target.host, "assert_hostname": target.host} if with_tls else {}
        )
        super().__init__(max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **options, **self._names)

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        parts = urlsplit(request.url or "")
        if (parts.hostname, parts.port or 443) != (self._target.host, self._target.port):
            raise requests.exceptions.InvalidURL("another host than the one that was looked up")
        called = request.copy()
        called.headers["Host"] = parts.netloc
        called.url = urlunsplit((parts.scheme, f"{_bracketed(self._target.address)}:{self._target.port}", *parts[2:]))
        return super().send(called, *args, **options)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
