"""Behind a proxy that ends TLS: cookies, redirects and HSTS follow PUBLIC_URL, and what is internal stays internal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from pipeline import settings as environment
from pipeline.domain.kinds import Role
from pipeline.settings import settings
from tests import accounts
from tests.integration.console.conftest import PASSWORD, Call, ConsoleClient
from tests.logs import captured_log
from tests.system import SyncSystem

PUBLIC = "https://pipeline.example"
INSIDE = "http://10.0.0.7:8080"
NAME = "ana@acme.test"
TOKEN = "a-token-for-metrics"
INTERNAL = ["/metrics", "/readyz", "/api/openapi.json"]
MOST_REDIRECTS = 5


class Browser(FlaskClient):
    """Keeps a Secure cookie over https only, as browsers do. What the address bar shows is `at`."""

    at = PUBLIC

    def open(self, *args: Any, **options: Any) -> TestResponse:
        answer = super().open(*args, **{"base_url": self.at} | options)
        if urlsplit(self.at).scheme == "http":
            host = urlsplit(self.at).hostname or ""
            for line in answer.headers.getlist("Set-Cookie"):
                if "Secure" in line:
                    self.delete_cookie(line.partition("=")[0], domain=host)
        return answer

    def follow(self, answer: TestResponse) -> TestResponse:
        """The page in the end. Fails where the redirects do not end."""
        for _ in range(MOST_REDIRECTS):
            if answer.status_code not in (301, 302, 303, 307, 308):
                return answer
            location = urlsplit(answer.headers["Location"])
            assert not location.netloc, answer.headers["Location"]
            answer = self.get(f"{location.path}?{location.query}")
        raise AssertionError(f"redirected without end, last to {answer.headers.get('Location')}")


@pytest.fixture
def configured() -> Iterator[Callable[..., None]]:
    """Changes the settings for one test."""
    before = settings()
    yield lambda **changes: environment.use(before.replace(**changes))
    environment.use(before)


@pytest.fixture
def over_tls(configured: Callable[..., None]) -> None:
    configured(public_url=PUBLIC, trusted_proxies=0)


@pytest.fixture
def browser(app: Flask, over_tls: None) -> Browser:
    """Return a browser without cookies."""
    return Browser(app, app.response_class)


@pytest.fixture
def ana(database: str) -> str:
    assert database
    accounts.add(NAME, PASSWORD, Role.ADMIN)
    return NAME


def log_in(browser: FlaskClient) -> TestResponse:
    return browser.post("/login", data={"name": NAME, "password": PASSWORD})


def test_the_first_visit_leads_to_the_login_and_on(ana: str, browser: Browser) -> None:
    page = browser.follow(browser.get("/"))
    assert "Log in" in page.text
    entered = browser.follow(log_in(browser))

    assert (entered.status_code, ana in entered.text) == (200, True)


def test_the_page_that_was_wanted_is_kept(ana: str, browser: Browser) -> None:
    page = browser.follow(browser.get("/audit?q=a%26b"))

    assert 'name="next" value="/audit?q=a%26b"' in page.text


@pytest.mark.parametrize("path", ["/", "/login", "/alerts", "/setup?code=x"])
def test_a_console_at_another_address_shows_the_public_one(ana: str, browser: Browser, path: str) -> None:
    browser.at = INSIDE
    with captured_log("warning") as lines:
        page = browser.follow(browser.get(path))

    assert page.status_code == 403
    assert (
        f'Open the console at <a href="{PUBLIC}/">{PUBLIC}</a>, because the session cookie works only there'
        in page.text
    )
    assert "password" not in page.text
    assert [line["why"] for line in lines if line["event"] == "console.refused"] == ["cookie_not_kept"]


def test_a_login_by_internal_http_ends_at_the_same_page(ana: str, browser: Browser) -> None:
    browser.at = INSIDE

    assert "Open the console at" in browser.follow(log_in(browser)).text


def test_single_sign_on_by_internal_http_does_not_loop(
    ana: str, browser: Browser, configured: Callable[..., None]
) -> None:
    configured(public_url=PUBLIC, sso_header="X-User", sso_proxies=("127.0.0.1/32",))
    browser.at = INSIDE
    browser.environ_base["HTTP_X_USER"] = ana

    assert "Open the console at" in browser.follow(browser.get("/")).text
    browser.at = PUBLIC
    assert browser.follow(browser.get("/")).status_code == 200


def test_a_proxy_that_rewrites_the_host_is_no_reason_to_refuse(ana: str, browser: Browser) -> None:
    """By default nginx sends the name of its upstream, although the browser is at PUBLIC_URL."""
    browser.at = "https://127.0.0.1:8080"
    browser.get("/login")

    assert browser.follow(log_in(browser)).status_code == 200


def test_over_http_no_cookie_is_looked_for(ana: str, anonymous: ConsoleClient) -> None:
    answer = anonymous.get("/login")

    assert (answer.status_code, "Set-Cookie" in answer.headers) == (200, False)


def test_the_cookie_that_is_looked_for_is_for_this_host(browser: Browser) -> None:
    (cookie,) = browser.get("/login").headers.getlist("Set-Cookie")

    assert cookie.startswith("__Host-probe=1;")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")[1:]}


@pytest.mark.parametrize("path", ["/c/acme", "//login", "/c//acme/", "/auth//status", "/static//pipeline.css"])
def test_a_redirect_of_the_router_names_no_host(browser: Browser, system: SyncSystem, path: str) -> None:
    """The request comes from the proxy by http, under a name that browsers may not know."""
    browser.at = INSIDE
    answer = browser.get(f"{INSIDE}{path}?a=b")

    location = answer.headers.get("Location", "/")
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
    assert INSIDE not in answer.text


@pytest.mark.parametrize(
    "path", ["/login", "/healthz", "/nowhere", "/manifest.json", "/metrics", "/auth", "/api/v1/connectors"]
)
def test_https_is_kept_to(app: Flask, configured: Callable[..., None], database: str, path: str) -> None:
    assert database
    configured(public_url=PUBLIC)
    assert app.test_client().get(path).headers["Strict-Transport-Security"] == "max-age=31536000"
    configured(public_url="http://localhost:8080")
    assert "Strict-Transport-Security" not in app.test_client().get(path).headers


@pytest.mark.parametrize("path", INTERNAL)
@pytest.mark.parametrize(
    ("address", "headers", "changes", "is_open"),
    [
        pytest.param("127.0.0.1", {}, {"public_url": "http://localhost:8080"}, True, id="on one machine"),
        pytest.param("::1", {}, {"public_url": "http://localhost:8080"}, True, id="by IPv6"),
        pytest.param("::ffff:127.0.0.1", {}, {"public_url": "http://localhost:8080"}, True, id="by IPv4 in IPv6"),
        pytest.param("192.0.2.9", {}, {"public_url": "http://localhost:8080"}, False, id="from outside"),
        pytest.param("10.0.0.9", {}, {"public_url": "http://localhost:8080"}, False, id="from another machine"),
        pytest.param("", {}, {"public_url": "http://localhost:8080"}, False, id="from nowhere"),
        pytest.param("127.0.0.1", {}, {}, False, id="perhaps through a proxy that says nothing"),
        pytest.param("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, {}, False, id="through an unknown proxy"),
        pytest.param(
            "127.0.0.1", {"Forwarded": "for=127.0.0.1"}, {"trusted_proxies": 1}, False, id="by the other header"
        ),
        pytest.param("127.0.0.1", {}, {"trusted_proxies": 1}, True, id="beside the proxy"),
        pytest.param(
            "127.0.0.1",
            {"X-Forwarded-For": "192.0.2.9"},
            {"internal_networks": ("127.0.0.0/8",)},
            False,
            id="unknown, listed",
        ),
        pytest.param("10.0.0.9", {}, {"internal_networks": ("10.0.0.0/8",)}, True, id="listed"),
        pytest.param("127.0.0.1", {}, {"internal_networks": ("10.0.0.0/8",)}, False, id="not listed"),
        pytest.param("192.0.2.9", {"Authorization": f"Bearer {TOKEN}"}, {"metrics_token": TOKEN}, True, id="by token"),
        pytest.param(
            "192.0.2.9", {"Authorization": "Bearer x"}, {"metrics_token": TOKEN}, False, id="by a wrong token"
        ),
        pytest.param("192.0.2.9", {"Authorization": "Bearer "}, {}, False, id="by an empty token"),
        pytest.param("192.0.2.9", {"Authorization": "Basic YTpi"}, {"metrics_token": TOKEN}, False, id="by a login"),
    ],
)
def test_what_is_internal_is_read_by_machines_of_ours(
    app: Flask,
    configured: Callable[..., None],
    database: str,
    path: str,
    address: str,
    headers: dict[str, str],
    changes: dict[str, Any],
    is_open: bool,
) -> None:
    assert database
    configured(**{"public_url": PUBLIC} | changes)
    answer = app.test_client().get(path, headers=headers, environ_base={"REMOTE_ADDR": address})

    if is_open:
        assert answer.status_code in (200, 503)  # nothing works here, which /readyz says
        return
    assert (answer.status_code, answer.json["error"]) == (401, "internal_only")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "METRICS_TOKEN" in answer.json["message"]


@pytest.mark.parametrize("path", ["/healthz", "/manifest.json", "/login"])
def test_anybody_may_ask_whether_it_answers(app: Flask, over_tls: None, database: str, path: str) -> None:
    assert database
    answer = app.test_client().get(path, environ_base={"REMOTE_ADDR": "192.0.2.9"})

    assert answer.status_code in (200, 303)


def test_behind_the_known_proxy_the_callers_address_counts(
    database: str, configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.web import intake  # noqa: PLC0415 - Celery reads its settings when imported

    assert database
    configured(public_url=PUBLIC, trusted_proxies=1, internal_networks=("10.0.0.0/8",))
    client = intake.create_app(wake=lambda: None)[0].test_client()

    def status(forwarded: str) -> int:
        return client.get(
            "/metrics", headers={"X-Forwarded-For": forwarded}, environ_base={"REMOTE_ADDR": "10.0.0.2"}
        ).status_code

    assert status("192.0.2.9") == 401
    assert status("10.0.0.9") == 200
    assert status("10.0.0.9, 192.0.2.9") == 401
    assert status("192.0.2.9, 10.0.0.9") == 401


def test_the_description_is_for_keys_and_sessions_too(
    script: Call, operator: ConsoleClient, configured: Callable[..., None]
) -> None:
    configured(internal_networks=())
    client = operator.client

    assert client.get("/api/openapi.json").status_code == 200
    assert client.get("/metrics").status_code == 401
    assert client.application.test_client().get("/api/openapi.json").status_code == 401
    assert script("GET", "/api/openapi.json")[0] == 200
