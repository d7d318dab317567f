"""Hull's door: signed, ours, stored, and only then `next`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from db.session import use_database
from pipeline import wiring
from tests.integration.web.conftest import ACME, GLOBEX, ORGANIZATION, SECRETS, House
from tests.wsgi_adapter import session_for

KEY_URL = "https://keys.hullapp.test/key"
NEXT = {"flow_control": {"type": "next"}}
RETRY = {"type": "retry", "size": 10, "in": 1000, "in_time": 10}


class KeyServer:
    """Serves the public key of Hull by POST; counts how often it was asked."""

    def __init__(self, private: RSAPrivateKey) -> None:
        self.answer = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.status = "200 OK"
        self.asked = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.asked += environ["REQUEST_METHOD"] == "POST"
        start_response(self.status, [("Content-Type", "text/plain")])
        return [self.answer]


@pytest.fixture(scope="module")
def private() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def keys(private: RSAPrivateKey) -> Iterator[KeyServer]:
    server = KeyServer(private)
    wiring.use_http(lambda: session_for({"https://keys.hullapp.test": server}))
    yield server
    wiring.use_http(None)


@pytest.fixture
def hull(keys: KeyServer, house: House, private: RSAPrivateKey) -> Hull:
    return Hull(house, private)


class Hull:
    """Posts notifications as Hull does."""

    def __init__(self, house: House, private: RSAPrivateKey) -> None:
        self._house = house
        self._private = private

    def headers(self, notification_id: str = "n-1", **changed: str | None) -> dict[str, str]:
        token = jwt.encode({"jti": notification_id, "iat": int(time.time())}, self._private, algorithm="RS256")
        given: dict[str, str | None] = {
            "X-Hull-Smart-Notifier": "true",
            "X-Hull-Smart-Notifier-Signature-Version": "v1",
            "X-Hull-Smart-Notifier-Signature": token,
            "X-Hull-Smart-Notifier-Signature-Public-Key-Url": KEY_URL,
        }
        given |= {f"X-Hull-Smart-Notifier{name.replace('_', '-')}": value for name, value in changed.items()}
        return {name: value for name, value in given.items() if value is not None}

    def post(self, body: Any, headers: dict[str, str] | None = None) -> TestResponse:
        data = body if isinstance(body, bytes) else json.dumps(body)
        return self._house.client.post("/smart-notifier", data=data, headers=headers or self.headers())


def notification(**changed: Any) -> dict[str, Any]:
    body = {
        "notification_id": "n-1",
        "configuration": {"id": ACME, "organization": ORGANIZATION, "secret": SECRETS["hull_secret"]},
        "kraken": {"retries": 0},
        "channel": "user:update",
        "connector": {"id": ACME, "private_settings": {"access_token": "canary-access"}},
        "segments": [],
        "accounts_segments": [],
        "is_export": False,
        "messages": [{"message_id": "m1", "user": {"id": "5f0000000000000000000001", "email": "canary@acme.test"}}],
    }
    return {name: value for name, value in {**body, **changed}.items() if value is not ...}


@pytest.mark.parametrize("channel", ["user:update", "account:update"])
def test_a_signed_notification_is_stored_before_next(hull: Hull, house: House, channel: str) -> None:
    answer = hull.post(notification(channel=channel))

    assert (answer.status_code, answer.json) == (200, NEXT)
    [delivery] = house.deliveries()
    assert (delivery.connector_key, delivery.source, delivery.key) == (house.acme, "hull", "n-1")
    kept = json.loads(delivery.body)
    assert (kept["channel"], kept["messages"], kept["is_export"]) == (channel, notification()["messages"], False)


def test_what_is_kept_holds_neither_the_secret_nor_the_tokens_among_the_settings(hull: Hull, house: House) -> None:
    hull.post(notification())

    [delivery] = house.deliveries()
    assert b"canary-hull-secret" not in delivery.body
    assert b"canary-access" not in delivery.body


def test_the_same_notification_again_is_next_and_not_stored_again(hull: Hull, house: House, keys: KeyServer) -> None:
    answers = [hull.post(notification(kraken={"retries": tried})).json for tried in range(3)]

    assert answers == [NEXT] * 3
    assert len(house.deliveries()) == 1
    assert keys.asked == 1


@pytest.mark.parametrize("channel", ["ship:update", "segment:update", "users_segment:delete", "anything"])
def test_other_channels_are_answered_next_and_not_kept(hull: Hull, house: House, channel: str) -> None:
    answer = hull.post(notification(channel=channel))

    assert (answer.status_code, answer.json) == (200, NEXT)
    assert house.deliveries() == []


REFUSED = [
    ("MISSING_FLAG_HEADER", {"headers": {"": None, "_Signature_Version": "v9", "_Signature": None}}),
    ("UNSUPPORTED_SIGNATURE_VERSION", {"headers": {"_Signature_Version": "v2", "_Signature": None}}),
    ("UNSUPPORTED_SIGNATURE_VERSION", {"headers": {"_Signature_Version": None}}),
    ("MISSING_SIGNATURE_HEADERS", {"headers": {"_Signature": None}, "body": b"not json"}),
    ("MISSING_SIGNATURE_HEADERS", {"headers": {"_Signature_Public_Key_Url": ""}}),
    ("MISSING_NOTIFICATION_PAYLOAD", {"body": b""}),
    ("MISSING_NOTIFICATION_PAYLOAD", {"body": b"[1]"}),
    ("MISSING_NOTIFICATION_PAYLOAD", {"body": notification(notification_id=..., configuration=...)}),
    ("MISSING_NOTIFICATION_PAYLOAD", {"body": notification(notification_id=7)}),
    ("MISSING_CONFIGURATION", {"body": notification(configuration=...)}),
    ("MISSING_CONFIGURATION", {"body": notification(configuration={"id": ACME, "organization": ORGANIZATION})}),
    ("MISSING_CONFIGURATION", {"body": notification(configuration={"id": 1, "organization": [], "secret": {}})}),
    ("INVALID_CERTIFICATE", {"headers": {"_Signature_Public_Key_Url": "https://evil.test/key"}}),
    ("INVALID_CERTIFICATE", {"headers": {"_Signature_Public_Key_Url": "http://169.254.169.254/latest"}}),
    ("INVALID_SIGNATURE", {"headers": {"_Signature": "a.b.c"}}),
    ("INVALID_SIGNATURE", {"body": notification(notification_id="n-2")}),
    ("N/A", {"body": notification(connector=...)}),
    ("N/A", {"body": notification(segments=...)}),
    ("N/A", {"body": notification(accounts_segments="all")}),
    ("N/A", {"body": notification(messages=None)}),
    ("N/A", {"body": notification(channel=...)}),
]


@pytest.mark.parametrize(("code", "sent"), REFUSED)
def test_what_is_not_proven_to_be_hulls_is_refused_with_hulls_own_code(
    hull: Hull, house: House, code: str, sent: dict[str, Any]
) -> None:
    answer = hull.post(sent.get("body", notification()), hull.headers(**sent.get("headers", {})))

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["flow_control"] == RETRY
    assert answer.json["error"]["code"] == code
    assert house.deliveries() == []


@pytest.mark.parametrize(
    "changed",
    [
        {"id": GLOBEX},
        {"id": "acme"},
        {"secret": "wrong"},
        {"organization": "globex.hullapp.test"},
        {"secret": "\ud800"},
    ],
)
def test_a_notification_for_a_connector_that_is_not_here_is_refused_before_any_key_is_fetched(
    hull: Hull, house: House, keys: KeyServer, changed: dict[str, str]
) -> None:
    configuration = {**notification()["configuration"], **changed}

    answer = hull.post(notification(configuration=configuration))

    assert (answer.status_code, answer.json["error"]["code"]) == (400, "UNKNOWN_CONNECTOR")  # type: ignore[index]
    assert keys.asked == 0
    assert house.deliveries() == []


def test_the_older_names_of_the_segment_lists_are_known_too(hull: Hull, house: House) -> None:
    renamed = notification(segments=..., accounts_segments=..., users_segments=[], account_segments=[])

    assert hull.post(renamed).json == NEXT
    assert len(house.deliveries()) == 1


def test_while_the_key_cannot_be_fetched_hull_is_asked_to_come_again(hull: Hull, keys: KeyServer) -> None:
    keys.status = "503 Service Unavailable"

    answer = hull.post(notification())

    assert (answer.status_code, answer.json["flow_control"]) == (503, RETRY)  # type: ignore[index]
    keys.status = "200 OK"
    assert hull.post(notification()).json == NEXT


def test_while_the_database_is_away_hull_is_asked_to_come_again(hull: Hull, house: House, database_url: str) -> None:
    assert hull.post(notification()).json == NEXT
    use_database("postgresql+psycopg2://postgres@127.0.0.1:1/nowhere")

    answer = hull.post(notification())

    use_database(database_url)
    assert (answer.status_code, answer.json["flow_control"]) == (503, RETRY)  # type: ignore[index]
    assert answer.headers["Retry-After"] == "5"


def test_a_body_above_twenty_megabytes_is_too_large(hull: Hull, house: House) -> None:
    large = notification(messages=[{"user": {"id": "1", "text": "x" * (2 * 1024 * 1024)}}])

    assert hull.post(large).json == NEXT
    answer = hull.post(b" " * (20 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json["flow_control"]) == (413, RETRY)  # type: ignore[index]


def test_neither_secrets_nor_values_reach_the_log_or_the_answer(
    hull: Hull, capsys: pytest.CaptureFixture[str], keys: KeyServer
) -> None:
    wrong = notification(configuration={"id": ACME, "organization": ORGANIZATION, "secret": "canary-wrong"})
    bodies = [notification(), wrong, notification(connector=...), b'{"canary"']
    with capture_logs() as lines:
        texts = [hull.post(body).text for body in bodies]
        keys.answer = b"canary: no key"
        refused = hull.headers(_Signature_Public_Key_Url=KEY_URL + "?canary")
        texts.append(hull.post(notification(), refused).text)

    said = capsys.readouterr()
    assert len(lines) >= 4
    assert "canary" not in repr(lines) + said.out + said.err + "".join(texts)
