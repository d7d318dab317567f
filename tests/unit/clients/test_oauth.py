"""OAuth on the wire: what is asked, what an answer comes to, and that no error repeats a secret.

Shapes: https://pipedrive.readme.io/docs/marketplace-oauth-authorization
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from pipeline.clients.oauth import Grant, OAuthClient
from pipeline.errors import ConfigurationError, PipelineError, Rejected, Retryable
from tests.unit.clients.canned import HTML, LOST, Answer, CannedApp, json_answer
from tests.wsgi_adapter import session_for

CALLBACK = "https://ours.test/auth/callback"
ANSWER = {
    "access_token": "v1u:canary+access/==",
    "token_type": "Bearer",
    "expires_in": 3599,
    "refresh_token": "1:1:canary-refresh",
    "scope": "base,contacts:full,admin",
    "api_domain": "https://acme.pipedrive.com",
}
CODE = "code=canary-code&state=s"


def client(app: CannedApp) -> OAuthClient:
    return OAuthClient(
        session_for({"http://oauth.test": app}),
        client_id="id-1",
        client_secret="canary:secret",
        oauth_url="http://oauth.test/",
        callback_url=CALLBACK,
    )


def refused(app: CannedApp, step: str = "refresh") -> PipelineError:
    """What an exchange or a refresh ends in."""
    with pytest.raises(PipelineError) as caught:
        client(app).refresh("canary-refresh") if step == "refresh" else client(app).exchange(CODE)
    return caught.value


def test_a_person_is_sent_to_pipedrive_with_state_and_callback() -> None:
    url = urlsplit(client(CannedApp(json_answer({}))).authorize_url("a state & more"))

    assert (url.scheme, url.netloc, url.path) == ("http", "oauth.test", "/oauth/authorize")
    assert parse_qs(url.query) == {
        "response_type": ["code"],
        "client_id": ["id-1"],
        "redirect_uri": [CALLBACK],
        "state": ["a state & more"],
    }


def test_a_code_becomes_tokens() -> None:
    app = CannedApp(json_answer(ANSWER))
    grant = client(app).exchange(CODE)

    (asked,) = app.asked
    assert (asked.method, asked.path, asked.query) == ("POST", "/oauth/token", {})
    assert dict(parse_qsl(asked.body.decode())) == {
        "grant_type": "authorization_code",
        "code": "canary-code",
        "redirect_uri": CALLBACK,
    }
    assert b64decode(asked.headers["authorization"].removeprefix("Basic ")) == b"id-1:canary:secret"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert grant == Grant(
        access_token="v1u:canary+access/==",
        refresh_token="1:1:canary-refresh",
        expires_in_s=3599.0,
        scopes=frozenset({"base", "contacts:full", "admin"}),
        api_domain="https://acme.pipedrive.com",
    )


def test_a_refresh_token_becomes_tokens() -> None:
    app = CannedApp(json_answer(ANSWER | {"refresh_token": "another one"}))

    assert client(app).refresh("1:1:old").refresh_token == "another one"
    assert dict(parse_qsl(app.asked[0].body.decode())) == {"grant_type": "refresh_token", "refresh_token": "1:1:old"}


@pytest.mark.parametrize(
    ("changes", "member", "expected"),
    [
        ({"refresh_token": None}, "refresh_token", None),
        ({"scope": None}, "scopes", None),
        ({"scope": "base admin"}, "scopes", frozenset({"base", "admin"})),
        ({"api_domain": ""}, "api_domain", None),
        ({"token_type": "bearer"}, "access_token", ANSWER["access_token"]),
        ({"expires_in": "60"}, "expires_in_s", 60.0),
        ({"expires_in": None}, "expires_in_s", 3600.0),
        ({"expires_in": -5}, "expires_in_s", 3600.0),
    ],
)
def test_what_an_answer_leaves_out_or_spells_otherwise(changes: dict[str, Any], member: str, expected: object) -> None:
    assert getattr(client(CannedApp(json_answer(ANSWER | changes))).refresh("r"), member) == expected


@pytest.mark.parametrize("query", ["error=user_denied&state=s", "error=access_denied&state=s"])
def test_a_declined_authorization_is_recognized(query: str) -> None:
    app = CannedApp(json_answer(ANSWER))
    with pytest.raises(ConfigurationError) as caught:
        client(app).exchange(query)

    assert caught.value.reason == "authorisation_denied"
    assert app.asked == []


@pytest.mark.parametrize("query", ["", "state=s", "error=server_error&state=s", "code=&state=s"])
def test_without_a_code_nothing_is_asked(query: str) -> None:
    app = CannedApp(json_answer(ANSWER))
    with pytest.raises(Rejected) as caught:
        client(app).exchange(query)

    assert caught.value.reason == "code_refused"
    assert app.asked == []


GRANT = {"success": False, "error": "invalid_grant", "message": "Invalid grant: it is invalid: canary-refresh"}
CLIENT = {"success": False, "error": "invalid_client", "message": "Invalid client: client is invalid"}

UNAVAILABLE = ("remote_unavailable", "remote_unavailable")


@pytest.mark.parametrize(
    ("answer", "family", "on_refresh", "on_exchange"),
    [
        (json_answer(GRANT, 400), PipelineError, "unauthorized", "code_refused"),
        (json_answer(GRANT, 401), PipelineError, "unauthorized", "code_refused"),
        (json_answer({"message": GRANT["message"]}, 400), PipelineError, "unauthorized", "code_refused"),
        (
            json_answer({"error": "invalid_request", "message": "redirect_uri"}, 400),
            PipelineError,
            *UNAVAILABLE[:1],
            "code_refused",
        ),
        *[
            (json_answer({"message": "no"}, status), Retryable, *UNAVAILABLE)
            for status in (400, 401, 402, 403, 404, 405, 410, 422)
        ],
        (json_answer([], 403), Retryable, *UNAVAILABLE),
        (Answer(status=401, body=b""), Retryable, *UNAVAILABLE),
        (json_answer(CLIENT, 400), PipelineError, "app_refused", "app_refused"),
        (json_answer(CLIENT, 401), PipelineError, "app_refused", "app_refused"),
        (json_answer(CLIENT, 500), Retryable, "remote_unavailable", "remote_unavailable"),
        (json_answer({}, 503), Retryable, "remote_unavailable", "remote_unavailable"),
        (json_answer({}, 429), Retryable, "rate_limited", "rate_limited"),
        (HTML, Retryable, "html_answer", "html_answer"),
        (LOST, Retryable, "remote_unavailable", "remote_unavailable"),
        (json_answer([ANSWER]), Retryable, "grant_malformed", "grant_malformed"),
        (json_answer({"token_type": "Bearer"}), Retryable, "grant_malformed", "grant_malformed"),
        (json_answer(ANSWER | {"access_token": 7}), Retryable, "grant_malformed", "grant_malformed"),
        (json_answer({"error": "invalid_grant"}), Retryable, "grant_malformed", "grant_malformed"),
        (Answer(body=b"<html>"), Retryable, "grant_malformed", "grant_malformed"),
        (Answer(body=b""), Retryable, "grant_malformed", "grant_malformed"),
    ],
)
def test_an_answer_that_holds_no_tokens_ends_in_an_error(
    answer: Answer, family: type[PipelineError], on_refresh: str, on_exchange: str
) -> None:
    errors = [refused(CannedApp(answer)), refused(CannedApp(answer), "exchange")]

    assert [error.reason for error in errors] == [on_refresh, on_exchange]
    assert all(isinstance(error, family) for error in errors)
    assert "canary" not in str([vars(error) for error in errors])


def test_a_refused_app_ends_no_authorisation() -> None:
    assert isinstance(refused(CannedApp(json_answer(CLIENT, 401))), Retryable)
    assert isinstance(refused(CannedApp(json_answer(CLIENT, 401)), "exchange"), ConfigurationError)


def test_an_authorisation_without_a_refresh_token_is_of_no_use() -> None:
    assert refused(CannedApp(json_answer(ANSWER | {"refresh_token": None})), "exchange").reason == "grant_malformed"


def test_no_secret_shows_in_what_is_printed() -> None:
    app = CannedApp(json_answer(ANSWER))

    assert "canary" not in repr(client(app).exchange(CODE)) + repr(client(app))
