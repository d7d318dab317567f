"""A notification is believed only with a signature of Hull's key, fetched from a host of the allow-list."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pipeline.clients.hull_notifications import (
    FAILED_S,
    KEY_TTL_S,
    UNUSABLE_KEY,
    NotificationRefused,
    NotificationVerifier,
)
from pipeline.clients.ssrf import Guard
from pipeline.errors import Retryable
from tests.unit.clients.canned import LOST, Answer, CannedApp
from tests.unit.clients.hostile_hosts import HOSTILE_URLS
from tests.wsgi_adapter import session_for

KEY_PATH = "/api/v1/key"
KEY_URL = f"https://hull.example{KEY_PATH}"
OURS = "https://pipeline.example"
ID = "0b5f2c0e-77aa-4d0c-9f0a-1f2e3d4c5b6a"


def create_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


HULL = create_key()
OTHER = create_key()
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - a key that is refused
ELLIPTIC = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)


def pem(key: rsa.RSAPrivateKey) -> Answer:
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Answer(body=public, headers={"Content-Type": "text/plain"})


def signed(claims: dict[str, Any] | None = None, key: Any = HULL, algorithm: str = "RS256") -> str:
    now = {"iat": int(time.time())}
    return jwt.encode(now | ({"jti": ID} if claims is None else claims), key, algorithm=algorithm)


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
    guard = Guard.of(["hull.example", "127.0.0.1:9100", "plain.example"])
    return NotificationVerifier(session, guard=guard, key_path=KEY_PATH, audiences=(OURS,), clock=clock or Clock())


def refusal(app: CannedApp, given: dict[str, str]) -> str:
    with pytest.raises(NotificationRefused) as caught:
        verifier(app).proven_id(given)
    return caught.value.code


def test_a_signed_notification_passes_and_its_key_was_asked_for_by_post() -> None:
    app = CannedApp(pem(HULL))
    given = headers()

    assert verifier(app).proven_id({name.lower(): value for name, value in given.items()}) == ID

    assert (app.asked[0].method, app.asked[0].path) == ("POST", KEY_PATH)
    assert (app.asked[0].body, app.asked[0].query) == (b"", {}), "nothing of the token goes there"


def test_a_key_of_this_machine_may_come_over_http() -> None:
    app = CannedApp(pem(HULL))
    url = f"http://127.0.0.1:9100{KEY_PATH}"

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
        *HOSTILE_URLS,
        *(f"{url.rstrip('/')}{KEY_PATH}" for url in HOSTILE_URLS),
        f"https://evil.test{KEY_PATH}",
        f"http://hull.example{KEY_PATH}",
        f"http://plain.example{KEY_PATH}",
        f"https://hull.example:8443{KEY_PATH}",
        f"https://hull.example@evil.test{KEY_PATH}",
        f"https://user@hull.example{KEY_PATH}",
        f"https://hull.example.{KEY_PATH}",
        f"https://169.254.169.254{KEY_PATH}",
        "https://hull.example/",
        "https://hull.example/api/v1/users/delete",
        f"https://hull.example{KEY_PATH}/",
        f"https://hull.example{KEY_PATH}/../users",
        f"https://hull.example{KEY_PATH}?a=b",
        f"https://hull.example{KEY_PATH}#a",
        f"https://hull.example/{KEY_PATH}",
    ],
)
def test_a_key_from_anywhere_else_is_never_asked_for(url: str) -> None:
    app = CannedApp(pem(HULL))

    with pytest.raises(NotificationRefused) as caught:
        verifier(app).proven_id(headers(**{"X-Hull-Smart-Notifier-Signature-Public-Key-Url": url}))

    assert (caught.value.code, str(caught.value)) == ("INVALID_CERTIFICATE", UNUSABLE_KEY)
    assert app.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"no key"),
        Answer(body=b"-----BEGIN PUBLIC KEY-----" + b"x" * 20_000),
        Answer(status=404),
        Answer(status=302, headers={"Location": "https://evil.test/key"}),
        pem(SHORT),
        Answer(body=ELLIPTIC),
    ],
    ids=["no key", "too large", "not found", "redirect", "1024 bits", "another kind"],
)
def test_what_is_no_key_verifies_nothing(answer: Answer) -> None:
    session_answers = CannedApp(answer)

    with pytest.raises((NotificationRefused, Retryable)) as caught:
        verifier(session_answers).proven_id(headers())

    if isinstance(caught.value, NotificationRefused):
        assert (caught.value.code, str(caught.value)) == ("INVALID_CERTIFICATE", UNUSABLE_KEY)
    assert len(session_answers.asked) == 1, "a redirect is not followed"


def test_a_token_of_another_key_is_refused() -> None:
    assert refusal(CannedApp(pem(HULL)), headers(signed(key=OTHER))) == "INVALID_SIGNATURE"


@pytest.mark.parametrize(
    "signature",
    [
        signed({}),
        signed({"jti": ""}),
        signed({"jti": "x" * 300}),
        signed({"jti": ID, "exp": 1}),
        signed({"jti": ID, "iat": None}),
        signed({"jti": ID, "iat": 1}),
        signed({"jti": ID, "iat": 99_999_999_999}),
        signed({"jti": ID, "exp": "tomorrow"}),
        jwt.encode({"jti": ID, "iat": int(time.time())}, HULL, algorithm="RS256", headers={"kid": "../../etc"}),
        jwt.encode({"jti": ID, "iat": int(time.time())}, HULL, algorithm="RS256", headers={"kid": "x" * 200}),
        jwt.encode({"jti": ID, "iat": int(time.time())}, HULL, algorithm="RS256", headers={"jku": "https://evil.test"}),
        f"{signed().rpartition('.')[0]}.{'A' * 171}",
        "not.a.token",
        "x",
        "a" * 1_000_000,
        ".".join(["e30"] * 3),
        signed() + "=",
        signed().replace(".", ".."),
        signed() + "\r\nX: 1",
        jwt.encode({"jti": ID}, "0" * 32, algorithm="HS256"),
        jwt.encode({"jti": ID}, None, algorithm="none"),
    ],
    ids=lambda token: token[:20] + str(len(token)),
)
def test_for_what_is_no_current_token_no_key_is_asked_for(signature: str) -> None:
    app = CannedApp(pem(HULL))

    assert refusal(app, headers(signature)) == "INVALID_SIGNATURE"
    assert app.asked == []


def test_a_token_that_begins_in_the_future_is_refused() -> None:
    assert refusal(CannedApp(pem(HULL)), headers(signed({"jti": ID, "nbf": 99_999_999_999}))) == "INVALID_SIGNATURE"


@pytest.mark.parametrize(
    "claims", [{"exp": 4_000_000_000, "iat": None}, {"iat": int(time.time()) - 3_600}, {"aud": OURS}]
)
def test_a_current_token_passes(claims: dict[str, Any]) -> None:
    given = {name: value for name, value in {"jti": ID, **claims}.items() if value is not None}
    token = jwt.encode({"iat": int(time.time())} | given, HULL, algorithm="RS256", headers={"kid": "hull-2026.1"})

    assert verifier(CannedApp(pem(HULL))).proven_id(headers(token)) == ID


@pytest.mark.parametrize(
    ("audience", "is_ours"), [(OURS, True), (["x", OURS], True), ("https://x", False), ([], False), (7, False)]
)
def test_an_audience_must_be_ours(audience: object, is_ours: bool) -> None:
    token = jwt.encode({"iat": int(time.time()), "jti": ID, "aud": audience}, HULL, algorithm="RS256")
    if is_ours:
        assert verifier(CannedApp(pem(HULL))).proven_id(headers(token)) == ID
    else:
        assert refusal(CannedApp(pem(HULL)), headers(token)) == "INVALID_SIGNATURE"


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


def test_a_key_that_could_not_be_fetched_is_not_asked_for_again_at_the_same_moment() -> None:
    app, clock = CannedApp(Answer(status=503), pem(HULL)), Clock()
    checks = verifier(app, clock)
    for _ in range(5):
        with pytest.raises(Retryable):
            checks.proven_id(headers())
    assert len(app.asked) == 1

    clock.now += FAILED_S + 1
    assert checks.proven_id(headers()) == ID


def test_one_request_fetches_a_key_and_the_others_do_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.clients.hull_notifications.FETCH_WAIT_S", 0.01)
    checks = verifier(CannedApp(pem(HULL)))
    checks.proven_id(headers())
    with checks._keys[KEY_URL].fetching, pytest.raises(Retryable):
        checks.proven_id(headers())
