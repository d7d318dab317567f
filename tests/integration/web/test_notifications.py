"""Hull's door: signed, ours, stored, and only then `next`."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import orjson
import pytest
from structlog.testing import capture_logs

from db.session import transaction, use_database
from pipeline.domain.json_text import is_nested_deeper
from pipeline.sync.changes.dispatch import coalesce_deliveries
from pipeline.sync.changes.outgoing_changes import LEVELS
from pipeline.web import request_body
from tests.integration.web.conftest import ACME, GLOBEX, ORGANIZATION, SECRETS, RunningWeb
from tests.integration.web.hull_notifications import KEY_URL, NEXT, RETRY, Hull, KeyServer, notification


@pytest.mark.parametrize("channel", ["user:update", "account:update"])
def test_a_signed_notification_is_stored_before_next(hull: Hull, running: RunningWeb, channel: str) -> None:
    answer = hull.post(notification(channel=channel))

    assert (answer.status_code, answer.json) == (200, NEXT)
    [delivery] = running.deliveries()
    assert (delivery.connector_key, delivery.source, delivery.key) == (running.acme, "hull", "n-1")
    kept = json.loads(delivery.body)
    assert (kept["channel"], kept["messages"], kept["is_export"]) == (channel, notification()["messages"], False)


def test_what_is_kept_holds_neither_the_secret_nor_the_tokens_among_the_settings(
    hull: Hull, running: RunningWeb
) -> None:
    hull.post(notification())

    [delivery] = running.deliveries()
    assert b"canary-hull-secret" not in delivery.body
    assert b"canary-access" not in delivery.body


def test_the_same_notification_again_is_next_and_not_stored_again(
    hull: Hull, running: RunningWeb, keys: KeyServer
) -> None:
    answers = [hull.post(notification(kraken={"retries": tried})).json for tried in range(3)]

    assert answers == [NEXT] * 3
    assert len(running.deliveries()) == 1
    assert keys.asked == 1


@pytest.mark.parametrize("channel", ["segment:update", "users_segment:delete", "accounts_segment:update"])
def test_segments_are_answered_next_and_not_kept(hull: Hull, running: RunningWeb, channel: str) -> None:
    answer = hull.post(notification(channel=channel, messages=[{"id": "s1", "name": "VIP"}]))

    assert (answer.status_code, answer.json) == (200, NEXT)
    assert (running.deliveries(), running.woken) == ([], [])


@pytest.mark.parametrize("channel", ["anything", "user:delete", "segment:update:x", "x" * 500, "\u0000\n"])
def test_an_unknown_channel_is_next_with_an_error(hull: Hull, running: RunningWeb, channel: str) -> None:
    answer = hull.post(notification(channel=channel))

    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["flow_control"] == {"type": "next", "size": 10, "in": 5, "in_time": 10}
    assert answer.json["error"]["code"] == "HULL_ERR_MISSING_CHANNEL"
    assert len(answer.text) < 300
    assert (running.deliveries(), running.woken) == ([], [])


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
    hull: Hull, running: RunningWeb, code: str, sent: dict[str, Any]
) -> None:
    answer = hull.post(sent.get("body", notification()), hull.headers(**sent.get("headers", {})))

    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["flow_control"] == RETRY
    assert answer.json["error"]["code"] == code
    assert running.deliveries() == []


def symmetric(secret: bytes) -> str:
    """A token that takes the public key, or nothing at all, for a shared secret."""
    import base64  # noqa: PLC0415 - PyJWT refuses to make such a token
    import hashlib  # noqa: PLC0415
    import hmac  # noqa: PLC0415

    def encode(part: Any) -> bytes:
        return base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=")

    signed = encode({"alg": "HS256", "typ": "JWT"}) + b"." + encode({"jti": "n-1", "iat": int(time.time())})
    return (signed + b"." + encode(hmac.new(secret, signed, hashlib.sha256).digest())).decode()


@pytest.mark.parametrize("forged", ["none", "secret", "public key", "expired", "not yet", "no jti", "other jti"])
def test_a_forged_token_proves_nothing(hull: Hull, running: RunningWeb, keys: KeyServer, forged: str) -> None:
    now = int(time.time())
    token = {
        "none": lambda: jwt.encode({"jti": "n-1"}, None, algorithm="none"),
        "secret": lambda: symmetric(SECRETS["hull_secret"].encode()),
        "public key": lambda: symmetric(keys.answer),
        "expired": lambda: hull.token(jti="n-1", exp=now - 3600),
        "not yet": lambda: hull.token(jti="n-1", nbf=now + 3600),
        "no jti": hull.token,
        "other jti": lambda: hull.token(jti="n-2"),
    }[forged]()

    answer = hull.post(notification(), hull.headers(_Signature=token))

    assert (answer.status_code, answer.json and answer.json["error"]["code"]) == (400, "INVALID_SIGNATURE")
    assert running.deliveries() == []


def test_a_key_of_another_host_is_never_asked_for(hull: Hull, keys: KeyServer) -> None:
    asked: list[str] = []

    def stranger(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked.append(environ["HTTP_HOST"])
        start_response("200 OK", [])
        return [keys.answer]

    for origin in ("https://evil.test", "http://169.254.169.254"):
        keys.reach(origin, stranger)
    for url in ("https://evil.test/key", "http://169.254.169.254/key", "https://keys.hullapp.test@evil.test/key"):
        answer = hull.post(notification(), hull.headers(_Signature_Public_Key_Url=url))
        assert answer.json is not None
        assert answer.json["error"]["code"] == "INVALID_CERTIFICATE"

    assert (asked, keys.asked) == ([], 0)


def test_a_message_without_an_id_is_named_and_its_neighbours_are_taken(hull: Hull, running: RunningWeb) -> None:
    others = [{"user": {}}, {"user": None}, {}, "text", {"user": {"id": 7}}]
    hull.post(notification(messages=[*others, *notification()["messages"]]))

    with transaction() as session:
        coalesce_deliveries(session)

    [delivery] = running.deliveries()
    assert (delivery.state, delivery.reason) == ("processed", "no_hull_id")
    assert [tuple(row) for row in running.rows("SELECT record_id, entity FROM changes")] == [
        ("5f0000000000000000000001", "person")
    ]
    assert len(running.rows("SELECT 1 FROM sync_events WHERE reason = 'no_hull_id'")) == len(others)


def test_a_thousand_messages_are_one_delivery(hull: Hull, running: RunningWeb) -> None:
    messages = [{"user": {"id": f"{number:024x}", "email": f"u{number}@acme.test"}} for number in range(1000)]

    assert hull.post(notification(messages=messages)).json == NEXT

    assert len(running.deliveries()) == 1


def test_hull_is_slowed_down_while_its_messages_wait(hull: Hull, running: RunningWeb) -> None:
    for number in range(12):
        last = hull.notify(notification_id=f"n-{number}").json

    assert last == {"flow_control": {"type": "next", "size": 100, "in": 1_000}}
    running.change_rows("UPDATE deliveries SET state = 'processed'")
    assert hull.notify(notification_id="later").json == NEXT


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
def test_a_notification_for_a_connector_that_is_not_here_is_refused(
    hull: Hull, running: RunningWeb, changed: dict[str, str]
) -> None:
    configuration = {**notification()["configuration"], **changed}

    answer = hull.post(notification(configuration=configuration))

    assert (answer.status_code, answer.json["error"]["code"]) == (400, "UNKNOWN_CONNECTOR")  # type: ignore[index]
    assert running.deliveries() == []


def test_the_older_names_of_the_segment_lists_are_known_too(hull: Hull, running: RunningWeb) -> None:
    renamed = notification(segments=..., accounts_segments=..., users_segments=[], account_segments=[])

    assert hull.post(renamed).json == NEXT
    assert len(running.deliveries()) == 1


def test_while_the_key_cannot_be_fetched_hull_is_asked_to_come_again(
    hull: Hull, keys: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.clients.hull_notifications.FAILED_S", 0.0)
    keys.status = "503 Service Unavailable"

    answer = hull.post(notification())

    assert (answer.status_code, answer.json["flow_control"]) == (503, RETRY)  # type: ignore[index]
    keys.status = "200 OK"
    assert hull.post(notification()).json == NEXT


def test_while_the_database_is_away_hull_is_asked_to_come_again(
    hull: Hull, running: RunningWeb, database_url: str
) -> None:
    assert hull.post(notification()).json == NEXT
    use_database("postgresql+psycopg2://postgres@127.0.0.1:1/nowhere")

    answer = hull.post(notification())

    use_database(database_url)
    assert (answer.status_code, answer.json["flow_control"]) == (503, RETRY)  # type: ignore[index]
    assert answer.headers["Retry-After"] == "5"


def test_a_body_above_twenty_megabytes_is_too_large(hull: Hull, running: RunningWeb) -> None:
    large = notification(messages=[{"user": {"id": "1", "text": "x" * (2 * 1024 * 1024)}}])

    assert hull.post(large).json == NEXT
    answer = hull.post(b" " * (20 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json["flow_control"]) == (413, RETRY)  # type: ignore[index]


@pytest.mark.parametrize("levels", [40, 140, 300, 5_000])
def test_a_value_that_nests_deep_does_not_cost_its_neighbours(hull: Hull, running: RunningWeb, levels: int) -> None:
    """Otherwise Hull would repeat the same messages. A message that cannot be synchronized is reported later."""
    deep = b'{"user":{"id":"2","x":' + b"[" * levels + b'"]"' + b"]" * levels + b'},"changes":{},"segments":[]}'
    whole = json.dumps(notification(messages=[{"user": {"id": "1"}}, "DEEP", {"user": {"id": "3"}}])).encode()

    assert hull.post(whole.replace(b'"DEEP"', deep)).json == NEXT

    [delivery] = running.deliveries()
    kept = orjson.loads(delivery.body)["messages"]
    assert [each["user"]["id"] for each in kept] == ["1", "2", "3"]
    assert is_nested_deeper(kept[1], LEVELS) == (levels > LEVELS)


def test_neither_secrets_nor_values_reach_the_log_or_the_answer(
    hull: Hull, capsys: pytest.CaptureFixture[str], keys: KeyServer
) -> None:
    wrong = notification(configuration={"id": ACME, "organization": ORGANIZATION, "secret": "canary-wrong"})
    request_body = [notification(), wrong, notification(connector=...), b'{"canary"']
    with capture_logs() as lines:
        texts = [hull.post(body).text for body in request_body]
        keys.answer = b"canary: no key"
        refused = hull.headers(_Signature_Public_Key_Url=KEY_URL + "?canary")
        texts.append(hull.post(notification(), refused).text)

    output = capsys.readouterr()
    assert len(lines) >= 4
    assert "canary" not in repr(lines) + output.out + output.err + "".join(texts)


def test_a_body_that_is_no_json_is_not_searched_for_what_nests_too_deep(
    hull: Hull, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search takes a second for some megabytes, and comes before the signature is looked at."""
    monkeypatch.setattr(request_body, "cut_below", lambda *_: pytest.fail("searched"))

    assert hull.post(b'{"notification_id": "n-1", ' + b'"x": [],' * 10).status_code == 400
