"""Messages are what Hull's own client puts on the wire, and every token verifies with an independent library."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from jwt.algorithms import HMACAlgorithm

from pipeline.clients.hull import MessageWriter, envelope, iso_millis, signer
from pipeline.errors import Rejected

NOW = datetime(2026, 11, 23, 14, 11, 21, 277_999, tzinfo=UTC)
SECRET = "0123456789abcdef0123456789abcdef"
CONNECTOR = "65f000000000000000000001"
USER = {"email": "a@b.co", "anonymous_id": "pipedrive:1"}
ACCOUNT = {"domain": "acme.com", "anonymous_id": "pipedrive:9"}


@pytest.fixture
def writer() -> MessageWriter:
    return MessageWriter(connector_id=CONNECTOR, secret=SECRET, now=NOW)


def token_of(message: bytes) -> dict[str, Any]:
    token = json.loads(message)["headers"]["Hull-Access-Token"]
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "HS256"}
    return jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_iat": False})


def test_a_user_message_has_the_shape_of_the_wire(writer: MessageWriter) -> None:
    message = json.loads(writer.user_traits(USER, {"pipedrive/id": {"operation": "set", "value": 1}, "x": None}))

    token = message.pop("headers")
    assert message == {
        "type": "traits",
        "body": {"pipedrive/id": {"operation": "set", "value": 1}, "x": None},
        "timestamp": "2026-11-23T14:11:21.277Z",
    }
    assert list(token) == ["Hull-Access-Token"]


def test_a_user_token_names_the_user(writer: MessageWriter) -> None:
    assert token_of(writer.user_traits(USER, {})) == {
        "iss": CONNECTOR,
        "iat": 1_795_443_081,
        "io.hull.asUser": USER,
        "io.hull.subjectType": "user",
    }


def test_an_account_token_names_the_account(writer: MessageWriter) -> None:
    claims = token_of(writer.account_traits(ACCOUNT, {}))

    assert (claims["io.hull.asAccount"], claims["io.hull.subjectType"]) == (ACCOUNT, "account")
    assert "io.hull.asUser" not in claims


def test_a_link_names_both_and_its_subject_is_the_account(writer: MessageWriter) -> None:
    claims = token_of(writer.link_traits(USER, ACCOUNT, {"name": "Acme"}))

    assert (claims["io.hull.asUser"], claims["io.hull.asAccount"]) == (USER, ACCOUNT)
    assert claims["io.hull.subjectType"] == "account"


def test_an_alias_names_who_gets_the_id_and_which(writer: MessageWriter) -> None:
    user, account = writer.user_alias(USER, "pipedrive:2"), writer.account_alias(ACCOUNT, "pipedrive:8")

    written = [(json.loads(each)["type"], json.loads(each)["body"]) for each in (user, account)]
    assert written == [("alias", {"anonymous_id": "pipedrive:2"}), ("alias", {"anonymous_id": "pipedrive:8"})]
    assert token_of(user)["io.hull.asUser"] == USER
    assert token_of(account)["io.hull.asAccount"] == ACCOUNT


def test_hulls_own_id_is_also_in_sub(writer: MessageWriter) -> None:
    assert token_of(writer.user_traits({"id": "h1", "email": "a@b.co"}, {}))["sub"] == "h1"
    assert token_of(writer.link_traits({"id": "h1"}, {"id": "h2"}, {}))["sub"] == "h2"
    assert "sub" not in token_of(writer.user_traits(USER, {}))


def test_only_claims_hull_knows_are_signed(writer: MessageWriter) -> None:
    claims = token_of(writer.user_traits({**USER, "domain": "acme.com", "name": "Ada"}, {}))

    assert claims["io.hull.asUser"] == USER


@pytest.mark.parametrize("claims", [{}, {"domain": "acme.com"}, {"email": None}])
def test_a_message_needs_a_claim(writer: MessageWriter, claims: Any) -> None:
    with pytest.raises(ValueError, match="no claim"):
        writer.user_traits(claims, {})


def test_text_that_cannot_be_sent_is_the_records_fault(writer: MessageWriter) -> None:
    with pytest.raises(Rejected) as caught:
        writer.user_traits(USER, {"name": "half \ud800"})

    assert caught.value.reason == "unusable_text"
    assert caught.value.__context__ is None


def test_a_batch_has_the_shape_of_the_wire(writer: MessageWriter) -> None:
    messages = [writer.user_traits(USER, {"n": n}) for n in range(3)]

    body = json.loads(envelope(messages, NOW))

    assert [item["body"] for item in body.pop("batch")] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert body == {"timestamp": "2026-11-23T14:11:21.277Z", "sentAt": "2026-11-23T14:11:21.277Z"}


def test_every_signature_is_the_one_pyjwt_makes() -> None:
    """Keys shorter and longer than a block of SHA-256, with characters of one to four bytes; payloads of every length."""
    for length in range(1, 200):
        secret, payload = ("kä☃𝄞" * length)[:length], json.dumps({"text": "x" * length}).encode()

        header, body, signature = signer(secret)(payload).split(b".")

        assert jwt.utils.base64url_decode(body) == payload
        expected = HMACAlgorithm(HMACAlgorithm.SHA256).sign(header + b"." + body, secret.encode())
        assert jwt.utils.base64url_decode(signature) == expected


def test_a_moment_is_written_in_utc_with_milliseconds() -> None:
    assert iso_millis(datetime(2026, 1, 2, 3, 4, 5, 6_999, tzinfo=UTC)) == "2026-01-02T03:04:05.006Z"


def test_a_writer_shows_no_secret(writer: MessageWriter) -> None:
    assert SECRET not in repr(writer)
