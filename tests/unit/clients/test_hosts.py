"""Host names from outside are refused unless they are exactly what they should be."""

from __future__ import annotations

import pytest

from pipeline.clients.hosts import check_api_url, is_loopback, require_allowed
from pipeline.errors import ConfigurationError

ALLOWED = ["hull.example", "127.0.0.1:9100", "keys.example:8443"]


@pytest.mark.parametrize("given", ["https://acme.pipedrive.com", "acme.pipedrive.com", "https://ACME.pipedrive.com/"])
def test_a_company_of_pipedrive_may_be_called(given: str) -> None:
    assert check_api_url(given) == "https://acme.pipedrive.com"


@pytest.mark.parametrize(
    "given",
    [
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
        "https://acme.pipedrive.com\n.evil.test",
        "https://аcme.pipedrive.com",  # noqa: RUF001 - a Cyrillic letter, on purpose
        "https://169.254.169.254",
    ],
)
def test_any_other_host_is_refused_without_being_repeated(given: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_api_url(given)

    assert caught.value.reason == "host_refused"
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://hull.example/key", "https://HULL.example/key", "http://127.0.0.1:9100/key"])
def test_allowed_hosts_pass_over_https_or_on_this_machine(url: str) -> None:
    assert require_allowed(url, ALLOWED, purpose="test") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://hull.example/key",
        "http://keys.example:8443/key",
        "https://hull.example:444/key",
        "https://hull.example.evil.test/key",
        "https://evil.test/hull.example",
        "https://hull.example@evil.test/",
        "https://user:pass@hull.example/",
        "http://127.0.0.1:9101/key",
        "http://127.0.0.1/key",
        "https://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "ftp://hull.example/",
        "//hull.example/key",
        "https://",
        "",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        require_allowed(url, ALLOWED, purpose="key of a Hull notification")

    assert caught.value.reason == "host_refused"


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("a.b", False)],
)
def test_loopback_is_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here
