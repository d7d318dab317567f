"""An address from outside is refused by its text, looked up once, and called at the very address that was checked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests

from pipeline.clients.http_transport import HttpTransport, Request
from pipeline.clients.ssrf import (
    REFUSED,
    Guard,
    check_api_domain,
    guarded_session,
    is_loopback,
    is_public,
)
from pipeline.errors import ConfigurationError, Retryable
from tests.unit.clients.hostile_hosts import HOSTILE_HOSTS, HOSTILE_URLS, PRIVATE

LISTED = ["files.example", "127.0.0.1:9101", "[::1]:9101", "inner.example:8443", "localhost:9101"]


class Network:
    """What names lead to, which names were looked up, and which addresses were connected to; nothing leaves this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[list[str]] = [["93.184.216.34"]]
        self.looked_up: list[str] = []
        self.connected: list[tuple[str, int]] = []
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)
        monkeypatch.setattr(socket.socket, "connect", self._connect)

    def _look_up(self, host: str, port: int, *_arguments: object, **_options: object) -> list[tuple[object, ...]]:
        if host[0].isdigit() or ":" in host:
            found = [host]
        else:
            self.looked_up.append(host)
            found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        kinds = {each: socket.AF_INET6 if ":" in each else socket.AF_INET for each in found}
        return [(kinds[each], socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    def _connect(self, address: tuple[str, int]) -> None:
        self.connected.append(address[:2])
        raise ConnectionRefusedError


class _Socket(socket.socket):
    """A socket with a class that may be changed."""


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    monkeypatch.setattr(socket, "socket", _Socket)
    return Network(monkeypatch)


def call(guard: Guard, url: str) -> str:
    """The words of the failure."""
    with guarded_session(guard) as session, pytest.raises((Retryable, ConfigurationError)) as caught:
        HttpTransport(session).call(Request(method="GET", url=url, headers={}))
    return str(caught.value)


@pytest.mark.parametrize("given", ["https://acme.pipedrive.com", "acme.pipedrive.com", "https://ACME.pipedrive.com/"])
def test_a_company_of_pipedrive_may_be_called(given: str) -> None:
    assert check_api_domain(given) == "https://acme.pipedrive.com"


@pytest.mark.parametrize(
    "given",
    [
        *HOSTILE_HOSTS,
        *HOSTILE_URLS,
        "",
        "http://acme.pipedrive.com",
        "https://pipedrive.com",
        "https://acme.pipedrive.com.evil.test",
        "https://evil.test/acme.pipedrive.com",
        "https://evil.test#acme.pipedrive.com",
        "https://user@acme.pipedrive.com",
        "https://acme.pipedrive.com:8443",
        "https://acme.pipedrive.com/path",
        "https://a.b.pipedrive.com",
        "https://-.pipedrive.com",
        "https://acme.pipedrive.com.",
        "https://acme.pipedrive.com\n.evil.test",
        "https://аcme.pipedrive.com",  # noqa: RUF001 - a Cyrillic letter, on purpose
    ],
)
def test_any_other_host_is_refused_in_one_sentence(given: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_api_domain(given)

    assert (caught.value.reason, caught.value.detail) == ("host_refused", REFUSED)


@pytest.mark.parametrize(
    "host", [*HOSTILE_HOSTS, "acme.hullapp.io:8443", "acme.hullapp.io:443:443", "acme.hullapp.io/x"]
)
def test_an_organization_is_a_plain_host_name(host: str) -> None:
    guard = Guard.of([], any_host=True)
    guard.check_host("acme.hullapp.io")
    guard.check_host("xn--bcher-kva.hullapp.io")

    with pytest.raises(ConfigurationError) as caught:
        guard.check_host(host)

    assert caught.value.detail == REFUSED


def test_an_organization_with_a_port_must_be_in_the_environment_with_it() -> None:
    guard = Guard.of(["127.0.0.1:9101", "hull.internal:8443"], any_host=True)
    guard.check_host("hull.internal:8443")
    guard.check_host("127.0.0.1:9101", scheme="http")

    for host, scheme in (("hull.internal:8443", "http"), ("hull.internal:8444", "https"), ("127.0.0.1", "https")):
        with pytest.raises(ConfigurationError):
            guard.check_host(host, scheme=scheme)


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example/a.json?X-Signature=1",
        "https://FILES.example:443/a.json",
        "http://127.0.0.1:9101/a.json",
        "http://localhost:9101/a.json",
        "http://[::1]:9101/a.json",
        "https://inner.example:8443/a.json",
    ],
)
def test_what_is_listed_passes(url: str) -> None:
    Guard.of(LISTED).check(url)


@pytest.mark.parametrize(
    "url",
    [
        *HOSTILE_URLS,
        "http://files.example/a.json",
        "https://files.example:8443/a.json",
        "https://files.example.evil.test/a.json",
        "https://evil.test/files.example",
        "https://files.example@evil.test/",
        "https://user:pass@files.example/",
        "https://files.example/#x",
        "https://files.example./a.json",
        "http://inner.example:8443/a.json",
        "https://inner.example/a.json",
        "http://127.0.0.1/a.json",
        "http://127.0.0.1:9102/a.json",
        "file:///etc/passwd",
        "gopher://files.example/",
        "//files.example/a.json",
        "https://files.example\n.evil.test/",
        "https://files.example\\@evil.test/",
        "https://fıles.example/",  # noqa: RUF001 - a dotless i, on purpose
        "https://files.example:port/",
        "https://files.example:0443/",
        "https://files.example:/",
        "https://[::1/",
        "https://",
        "https://files.example/" + "x" * 10_000,
        "",
    ],
)
def test_everything_else_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Guard.of(LISTED).check(url)

    assert (caught.value.reason, caught.value.detail) == ("host_refused", REFUSED)


@pytest.mark.parametrize("address", [*PRIVATE, "no address"])
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
)
def test_addresses_of_the_open_internet_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("a.b", False)],
)
def test_loopback_is_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_of_an_internal_address_fails_like_an_unknown_name(network: Network, address: str) -> None:
    """Also when only one of its addresses does: which of them is called would be left to luck."""
    guard = Guard.of([], any_host=True)
    words = set()
    for found in ([], [address], ["93.184.216.34", address], [address, "93.184.216.34"]):
        network.answers = [found]
        words.add(call(guard, "https://acme.hullapp.io/api/v1/app"))

    assert words == {"remote_unreachable: GET acme.hullapp.io/api/v1/app: no connection"}
    assert network.connected == []


def test_the_address_that_was_checked_is_the_one_that_is_called(network: Network) -> None:
    """A name is looked up once, so a second answer with another address has no effect."""
    network.answers = [["93.184.216.34"], ["127.0.0.1"]]

    words = call(Guard.of(["files.example"]), "https://files.example/a")

    assert network.looked_up == ["files.example"]
    assert network.connected == [("93.184.216.34", 443)]
    assert words == "remote_unreachable: GET files.example/a: no connection", "a refused connection says no more"


def test_each_new_connection_is_checked(network: Network) -> None:
    network.answers = [["93.184.216.34"], ["127.0.0.1"]]
    with guarded_session(Guard.of(["files.example"])) as session:
        for _ in range(2):
            with pytest.raises(requests.ConnectionError):
                session.get("https://files.example/a")

    assert network.connected == [("93.184.216.34", 443)]


def test_host_and_port_together_may_be_anywhere(network: Network) -> None:
    network.answers = [["10.0.0.7"]]
    call(Guard.of(LISTED), "https://inner.example:8443/a")
    call(Guard.of(LISTED), "http://127.0.0.1:9101/a")

    assert network.connected == [("10.0.0.7", 8443), ("127.0.0.1", 9101)]


def test_of_many_addresses_two_are_tried(network: Network) -> None:
    network.answers = [[f"93.184.216.{number}" for number in range(1, 100)]]
    call(Guard.of(["files.example"]), "https://files.example/a")

    assert network.connected == [("93.184.216.1", 443), ("93.184.216.2", 443)]


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_a_session_calls_nothing_that_its_guard_refuses(network: Network, url: str) -> None:
    with guarded_session(Guard.of([], any_host=True)) as session:
        assert session.trust_env is False
        with pytest.raises((ConfigurationError, Retryable)):
            HttpTransport(session).call(Request(method="GET", url=url, headers={}))

    assert (network.looked_up, network.connected) == ([], [])


def test_addresses_of_the_environment_define_their_targets(network: Network) -> None:
    guard = Guard.of_urls("https://hooks.example/x", "https://chat.internal:443/x", "http://127.0.0.1:9000", None)
    network.answers = [["10.0.0.7"]]
    for url in ("https://hooks.example/x", "https://chat.internal/x", "http://127.0.0.1:9000/x"):
        call(guard, url)

    assert network.connected == [("10.0.0.7", 443), ("127.0.0.1", 9000)]


def test_a_guard_with_a_resolver_of_its_own_asks_no_other(network: Network) -> None:
    call(replace(Guard.of(["files.example"]), resolve=lambda _host, _port: ["93.184.216.34"]), "https://files.example/")

    assert network.looked_up == []
