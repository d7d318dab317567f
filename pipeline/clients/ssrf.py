"""The guard of every host that a person, a message or the environment names.

An address is checked twice. First its text: it must be a plain host name over https at port 443, or a `host:port` that the
environment lists. Then the connection: the name is looked up once, all its addresses must be public, and one of exactly these
addresses is called. A name of an internal address fails exactly like a name that does not exist.
Source: https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pipeline.errors import ConfigurationError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

REFUSED: Final = (
    "this address may not be called: it must be a public host at port 443, or listed with its port in the environment"
)
"""The one text for every refused address. It repeats nothing and reveals nothing about the host."""
MOST_ADDRESSES: Final = 2
"""Maximum number of addresses of one name that are tried."""
LONGEST_URL: Final = 8 * 1024

_PLAIN_HOST: Final = re.compile(
    r"(?=.{4,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,126}[a-z][a-z0-9-]{0,61}[a-z0-9]"
)
"""Labels of ASCII letters, digits and dashes; the last begins with a letter, so no spelling of an IPv4 address is one."""
_NETLOC: Final = re.compile(r"(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[1-9]\d{0,4})?")
_PIPEDRIVE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.pipedrive\.com")
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that embed IPv4 ones (RFC 6052)."""


def refused() -> ConfigurationError:
    """Return the error of every refusal by text."""
    return ConfigurationError("host_refused", REFUSED)


@dataclass(frozen=True, slots=True)
class Guard:
    """The addresses that one purpose may call.

    names    hosts that may be called over https at port 443, at public addresses; None: any plain host name
    places   `host:port` of the environment: any address, over http too on this machine
    is_http  whether http is allowed everywhere, for trials with a sandbox
    """

    names: frozenset[str] | None
    places: frozenset[str]
    is_http: bool = False
    resolve: Resolve | None = field(default=None, repr=False)

    @classmethod
    def of(cls, listed: Iterable[str], *, any_host: bool = False, is_http: bool = False) -> Guard:
        """Return a guard for a list from the environment: `host` or `host:port`."""
        entries = {each.strip().lower() for each in listed}
        places = {each for each in entries if re.search(r":\d{1,5}\Z", each)}
        return cls(None if any_host else frozenset(entries - places), frozenset(places), is_http)

    @classmethod
    def of_urls(cls, *urls: str | None) -> Guard:
        """Return a guard for addresses of the environment. With a port or over http: any address."""
        names, places = set(), set()
        for url in filter(None, urls):
            parts = urlsplit(url)
            if parts.scheme == "https" and parts.port is None:
                names.add((parts.hostname or "").lower())
            else:
                places.add(_place(parts))
        return cls(frozenset(names), frozenset(places), is_http=True)

    def check(self, url: str) -> SplitResult:
        """Return the parts of an allowed address, by its text only; nothing is looked up.

        Raises: ConfigurationError("host_refused").
        """
        try:
            parts = urlsplit(url)
            place = _place(parts)
        except ValueError:
            raise refused() from None
        if not (_is_plain_text(url) and _NETLOC.fullmatch(parts.netloc.lower())) or parts.fragment:
            raise refused()
        host = (parts.hostname or "").lower()
        if parts.scheme == "https":
            is_allowed = place in self.places or (place == f"{host}:443" and self._may_name(host))
        elif parts.scheme == "http":
            is_allowed = (place in self.places and (self.is_http or is_loopback(host))) or (
                self.is_http and place == f"{host}:80" and self._may_name(host)
            )
        else:
            is_allowed = False
        if not is_allowed:
            raise refused()
        return parts

    def check_host(self, host: str, *, scheme: str = "https") -> None:
        """Check a `host` or `host:port`. Raises: ConfigurationError("host_refused")."""
        if not _NETLOC.fullmatch(host.lower()):
            raise refused()
        self.check(f"{scheme}://{host}/")

    def addresses(self, host: str, port: int) -> list[str]:
        """Look a name up, once, and return the addresses to connect to; empty for one that may not be called.

        Raises: OSError when it cannot be looked up.
        """
        found = list(dict.fromkeys((self.resolve or addresses)(host, port)))
        if f"{_bracketed(host.lower())}:{port}" not in self.places and not all(map(is_public, found)):
            return []
        return found[:MOST_ADDRESSES]

    def _may_name(self, host: str) -> bool:
        return _PLAIN_HOST.fullmatch(host) is not None and (self.names is None or host in self.names)


def check_api_domain(api_domain: str) -> str:
    """Return the origin to call for an `api_domain` as a token answer gives it, with or without a scheme.

    Raises: ConfigurationError("host_refused").
    """
    host = api_domain.strip().lower().removeprefix("https://").removesuffix("/")
    if not _PIPEDRIVE.fullmatch(host):
        raise refused()
    return f"https://{host}"


def addresses(host: str, port: int) -> list[str]:
    """Return the system's addresses of a host. Raises: OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    return [str(address[0]) for *_, address in found]


def is_public(text: str) -> bool:
    """Return whether an address is public: not this machine, not a private or link-local net, no cloud metadata."""
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


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guarded_session(guard: Guard, *, connections: int = 1, trusts_environment: bool = False) -> requests.Session:
    """A Session that connects where the guard allows.

    trusts_environment  whether proxies of the environment are used; a proxy looks names up itself, so only texts are checked
    """
    session = requests.Session()
    session.trust_env = trusts_environment
    session.adapters.clear()
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter(guard, connections=connections))
    return session


class GuardedAdapter(HTTPAdapter):
    """Checks every address by its text, and every connection when it is opened."""

    def __init__(self, guard: Guard, *, connections: int = 1) -> None:
        self._guard = guard
        super().__init__(pool_connections=connections, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **options)
        self.poolmanager.pool_classes_by_scheme = _pools(self._guard)

    def get_connection_with_tls_context(self, request: Any, *arguments: Any, **options: Any) -> Any:
        self._guard.check(request.url)
        return super().get_connection_with_tls_context(request, *arguments, **options)


class _Guarded:
    """Part of a connection: the guard looks the name up, and the socket connects to the address it returned."""

    guard: Guard
    _dns_host: str
    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        name, failure = self._dns_host, None
        try:
            found = self.guard.addresses(name, self.port)
        except OSError:
            found = []
        try:
            for address in found:
                self._dns_host = address
                try:
                    made: socket.socket = super()._new_conn()  # type: ignore[misc]  # of the connection it is part of
                except urllib3.exceptions.HTTPError as error:
                    failure = error
                else:
                    return made
        finally:
            self._dns_host = name
        no_address = socket.gaierror(socket.EAI_NONAME, "no address")
        raise failure or urllib3.exceptions.NameResolutionError(self.host, self, no_address)  # type: ignore[arg-type]


def _pools(guard: Guard) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(_Guarded, HTTPConnection):
        pass

    class Encrypted(_Guarded, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    Plain.guard = Encrypted.guard = guard
    return {"http": PlainPool, "https": EncryptedPool}


def _place(parts: SplitResult) -> str:
    """Return `host:port` of an address. Raises: ValueError for an invalid port."""
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{_bracketed((parts.hostname or '').lower())}:{port}"


def _is_plain_text(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url and "\\" not in url and len(url) <= LONGEST_URL


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
