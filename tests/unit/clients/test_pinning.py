"""An address from outside is looked up once, refused when it leads inside, and called where it was found."""

from __future__ import annotations

import pytest
import requests

from pipeline.clients.pinning import Pin, check_url, is_public, pin, pinned_session
from pipeline.errors import Rejected, Retryable

ALLOWED = ["files.example", "127.0.0.1:9101", "[::1]:9101", "inner.example:8443", "localhost:9101"]
REASON = "export_host_refused"

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "0.0.0.0",  # noqa: S104 - an address that is refused
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "ff02::1",
    "no address",
]


def at(*addresses: str) -> object:
    return lambda _host, _port: list(addresses)


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
)
def test_addresses_of_the_open_internet_are(address: str) -> None:
    assert is_public(address)


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
    check_url(url, ALLOWED, reason=REASON)


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example/a.json",
        "https://files.example:8443/a.json",
        "https://files.example.evil.test/a.json",
        "https://evil.test/files.example",
        "https://files.example@evil.test/",
        "https://user:pass@files.example/",
        "https://files.example/#x",
        "http://inner.example:8443/a.json",
        "https://inner.example/a.json",
        "http://127.0.0.1/a.json",
        "http://127.0.0.1:9102/a.json",
        "https://169.254.169.254/latest/meta-data",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "file:///etc/passwd",
        "gopher://files.example/",
        "//files.example/a.json",
        "https://files.example\n.evil.test/",
        "https://fıles.example/",  # noqa: RUF001 - a dotless i, on purpose
        "https://files.example:port/",
        "https://[::1/",
        "https://",
        "",
    ],
)
def test_everything_else_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_url(url, ALLOWED, reason=REASON)

    assert caught.value.reason == REASON
    assert "evil" not in str(caught.value)


def test_an_allowed_name_at_a_public_address_is_pinned_there() -> None:
    found = pin("https://files.example/a", ALLOWED, reason=REASON, resolve=at("93.184.216.34", "93.184.216.35"))  # type: ignore[arg-type]

    assert found == Pin(host="files.example", port=443, address="93.184.216.34")


@pytest.mark.parametrize("address", PRIVATE)
def test_an_allowed_name_that_leads_inside_is_refused(address: str) -> None:
    """Also when only one of its addresses does: which of them is called would be left to luck."""
    for answers in ([address], ["93.184.216.34", address]):
        with pytest.raises(Rejected, match=REASON):
            pin("https://files.example/a", ALLOWED, reason=REASON, resolve=at(*answers))  # type: ignore[arg-type]


def test_host_and_port_together_may_be_anywhere() -> None:
    found = pin("https://inner.example:8443/a", ALLOWED, reason=REASON, resolve=at("10.0.0.7"))  # type: ignore[arg-type]

    assert (found.address, found.port) == ("10.0.0.7", 8443)


def test_a_name_without_an_address_is_tried_again_later() -> None:
    with pytest.raises(Retryable):
        pin("https://files.example/a", ALLOWED, reason=REASON, resolve=at())  # type: ignore[arg-type]


def test_a_pinned_session_speaks_to_no_other_host() -> None:
    session = pinned_session(Pin(host="files.example", port=443, address="93.184.216.34"))

    for url in ("https://evil.test/", "https://files.example:8443/"):
        with pytest.raises(requests.exceptions.InvalidURL):
            session.get(url)
    assert session.trust_env is False
