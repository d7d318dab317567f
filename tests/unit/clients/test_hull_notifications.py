"""A notification is believed only with a signature of Hull's key, fetched from a host of the allow-list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pipeline.clients.hull_notifications import KEY_TTL_S, NotificationRefused, NotificationVerifier
from pipeline.errors import Retryable
from tests.unit.clients.canned import LOST, Answer, CannedApp
from tests.wsgi_adapter import session_for

KEY_URL = "https://hull.example/api/v1/key"
ID = "0b5f2c0e-77aa-4d0c-9f0a-1f2e3d4c5b6a"


def make_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


HULL = make_key()
OTHER = make_key()


def pem(key: rsa.RSAPrivateKey) -> Answer:
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Answer(body=public, headers={"Content-Type": "text/plain"})


def signed(claims: dict[str, Any] | None = None, key: Any = HULL, algorithm: str = "RS256") -> str:
    return jwt.encode({"jti": ID} if claims is None else claims, key, algorithm=algorithm)


def headers(signature: str | None = None, **changes: str | None) -> dict[str, str]:
    given = {
        "X-Hull-Smart-Notifier": "true",
        "X-Hull-Smart-Notifier-Signature-Version": "v1",
        "X-Hull-Smart-Notifier-Signature": signed() if signature is None else signature,
        "X-Hull-Smart-Notifier-Signature-Public-Key-Url": KEY_URL,
    }
    renamed = {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in (given | renamed).items() if value is not None}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def verifier(app: CannedApp, clock: Callable[[], float] | None = None) -> NotificationVerifier:
    session = session_for({"https://hull.example": app, "http://127.0.0.1:9100": app})
    hosts = ["hull.example", "127.0.0.1:9100", "plain.example"]
    return NotificationVerifier(session, key_hosts=hosts, clock=clock or Clock())


def refusal(app: CannedApp, given: dict[str, str]) -> str:
    with pytest.raises(NotificationRefused) as caught:
        verifier(app).proven_id(given)
    return caught.value.code


def test_a_signed_notification_passes_and_its_key_was_asked_for_by_post() -> None:
    app = CannedApp(pem(HULL))
    given = headers()

    proven = verifier(app).proven_id({name.lower(): value for name, value in given.items()})

    assert proven == ID
    assert (app.asked[0].method, app.asked[0].path) == ("POST", "/api/v1/key")
    assert app.asked[0].body.decode() == given["X-Hull-Smart-Notifier-Signature"]


def test_a_key_of_this_machine_may_come_over_http() -> None:
    app = CannedApp(pem(HULL))
    url = "http://127.0.0.1:9100/key"

    verifier(app).proven_id(headers(**{"X-Hull-Smart-Notifier-Signature-Public-Key-Url": url}))

    assert len(app.asked) == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"X_Hull_Smart_Notifier": None}, "MISSING_FLAG_HEADER"),
        ({"X_Hull_Smart_Notifier_Signature_Version": "v2"}, "UNSUPPORTED_SIGNATURE_VERSION"),
        ({"X_Hull_Smart_Notifier_Signature_Version": None}, "UNSUPPORTED_SIGNATURE_VERSION"),
        ({"X_Hull_Smart_Notifier_Signature": None}, "MISSING_SIGNATURE_HEADERS"),
        ({"X_Hull_Smart_Notifier_Signature_Public_Key_Url": None}, "MISSING_SIGNATURE_HEADERS"),
    ],
)
def test_missing_headers_are_named_as_hull_names_them(changes: dict[str, str | None], code: str) -> None:
    assert refusal(CannedApp(pem(HULL)), headers(**changes)) == code


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/key",
        "http://hull.example/key",
        "http://plain.example/key",
        "https://hull.example@evil.test/key",
        "https://169.254.169.254/key",
    ],
)
def test_a_key_from_anywhere_else_is_never_asked_for(url: str) -> None:
    app = CannedApp(pem(HULL))

    code = refusal(app, headers(**{"X-Hull-Smart-Notifier-Signature-Public-Key-Url": url}))

    assert code == "INVALID_CERTIFICATE"
    assert app.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"no key"),
        Answer(body=b"-----BEGIN PUBLIC KEY-----" + b"x" * 20_000),
        Answer(status=404),
        Answer(status=302, headers={"Location": "https://evil.test/key"}),
    ],
    ids=["no key", "too large", "not found", "redirect"],
)
def test_what_is_no_key_verifies_nothing(answer: Answer) -> None:
    session_answers = CannedApp(answer)

    with pytest.raises((NotificationRefused, Retryable)) as caught:
        verifier(session_answers).proven_id(headers())

    if isinstance(caught.value, NotificationRefused):
        assert caught.value.code == "INVALID_CERTIFICATE"
    assert len(session_answers.asked) == 1, "a redirect is not followed"


@pytest.mark.parametrize(
    "signature",
    [
        signed(key=OTHER),
        signed({}),
        signed({"jti": ID, "exp": 1}),
        signed({"jti": ID, "nbf": 99_999_999_999}),
        "not.a.token",
        "x",
        jwt.encode({"jti": ID}, "0" * 32, algorithm="HS256"),
        jwt.encode({"jti": ID}, None, algorithm="none"),
    ],
    ids=["other key", "no id", "expired", "not yet", "garbage", "short", "HS256", "none"],
)
def test_a_token_that_proves_something_else_is_refused(signature: str) -> None:
    assert refusal(CannedApp(pem(HULL)), headers(signature)) == "INVALID_SIGNATURE"


def test_the_public_key_is_no_secret_to_sign_with() -> None:
    """The old confusion of algorithms: HS256 under the public key's text."""
    public = pem(HULL).body
    assert isinstance(public, bytes)
    head, body = (
        jwt.utils.base64url_encode(part).decode() for part in (b'{"alg":"HS256"}', b'{"jti":"%s"}' % ID.encode())
    )
    forged = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{head}.{body}".encode(), public)

    code = refusal(CannedApp(pem(HULL)), headers(f"{head}.{body}.{jwt.utils.base64url_encode(forged).decode()}"))

    assert code == "INVALID_SIGNATURE"


def test_a_key_is_kept_for_an_hour() -> None:
    app, clock = CannedApp(pem(HULL)), Clock()
    checks = verifier(app, clock)

    for passed_s in (0.0, 1.0, KEY_TTL_S - 2, 2.0):
        clock.now += passed_s
        checks.proven_id(headers())

    assert len(app.asked) == 2


def test_a_changed_key_is_noticed_within_a_minute_and_forgeries_cost_one_fetch_a_minute() -> None:
    app, clock = CannedApp(pem(OTHER), pem(HULL)), Clock()
    checks = verifier(app, clock)
    for _ in range(3):
        with pytest.raises(NotificationRefused):
            checks.proven_id(headers())
    assert len(app.asked) == 1

    clock.now += 61
    checks.proven_id(headers())

    assert len(app.asked) == 2


def test_a_key_that_cannot_be_fetched_now_is_no_forgery() -> None:
    with pytest.raises(Retryable):
        verifier(CannedApp(LOST)).proven_id(headers())
    with pytest.raises(Retryable):
        verifier(CannedApp(Answer(status=503))).proven_id(headers())


def test_addresses_on_an_allowed_host_cannot_fill_the_memory() -> None:
    app = CannedApp(pem(HULL))
    checks = verifier(app)

    for n in range(100):
        checks.proven_id(headers(**{"X-Hull-Smart-Notifier-Signature-Public-Key-Url": f"{KEY_URL}/{n}"}))

    assert len(checks._keys) == 32
