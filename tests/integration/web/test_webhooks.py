"""Webhooks of Pipedrive: authenticated ones are stored before the answer; others learn nothing."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from sqlalchemy import delete
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from db import watchdog
from db.connector import Connector, Credential, SettingsVersion, keep_credential
from db.delivery import Delivery
from db.session import engine, transaction, use_database
from pipeline.settings import Settings
from pipeline.transform.webhooks import find_head
from pipeline.vault import Vault
from pipeline.web import credentials_check
from pipeline.web.request_body import ENDS_BYTES
from tests.integration.web.conftest import ACME, GLOBEX, SECRETS, RunningWeb, add_connector, basic, webhook
from tests.logs import captured_log
from tests.read_only import demoted_database

PATH = f"/webhooks/pipedrive/{ACME}/{SECRETS['webhook_path']}"


def post(running: RunningWeb, body: Any = None, *, path: str = PATH, **options: Any) -> TestResponse:
    options.setdefault("headers", basic())
    if isinstance(body, io.BytesIO):
        return running.client.post(path, input_stream=body, **options)
    data = body if isinstance(body, bytes) else json.dumps(webhook() if body is None else body)
    return running.client.post(path, data=data, **options)


def test_a_webhook_is_stored_whole_under_its_event_id(running: RunningWeb) -> None:
    answer = post(running)

    assert (answer.status_code, answer.json) == (200, {"status": "stored"})
    [delivery] = running.deliveries()
    assert (delivery.connector_key, delivery.source, delivery.state) == (running.acme, "pipedrive", "new")
    assert delivery.key == "7c812ffd-8f50-45ea-a597-b8fcba2da9c0"
    assert json.loads(delivery.body) == webhook()


def test_a_second_attempt_of_the_same_event_is_acknowledged_and_not_stored_again(running: RunningWeb) -> None:
    again = webhook()
    again["meta"]["attempt"] = 2

    assert [post(running).json, post(running, again).json] == [{"status": "stored"}, {"status": "known"}]
    assert len(running.deliveries()) == 1


def test_events_without_an_id_differ_by_content(running: RunningWeb) -> None:
    nameless = webhook()
    del nameless["meta"]["id"]
    other = json.loads(json.dumps(nameless)) | {"data": {"id": 8, "name": "Bo"}}
    retried = json.loads(json.dumps(nameless))
    retried["meta"]["attempt"] = 3

    answers = [post(running, body).json["status"] for body in (nameless, retried, other)]  # type: ignore[index]

    assert answers == ["stored", "known", "stored"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/webhooks/pipedrive/{GLOBEX}/{SECRETS['webhook_path']}", basic()),
        ("/webhooks/pipedrive/acme/" + SECRETS["webhook_path"], basic()),
        (f"/webhooks/pipedrive/{ACME}/wrong", basic()),
        (f"/webhooks/pipedrive/{ACME}/canary-p%C3%A4th-%00", basic()),
        (PATH, basic(user="wrong")),
        (PATH, basic(password="wrong")),
        (PATH, basic(password="")),
        (PATH, basic(user="canary-user:canary", password="pässword")),
        (PATH, {}),
        (PATH, {"Authorization": "Bearer canary-pässword".encode().decode("latin-1")}),
        (PATH, {"Authorization": "Basic !!!"}),
        (PATH, {"Authorization": "Basic //79/w=="}),
    ],
    ids=[
        "unknown connector",
        "by name",
        "wrong path",
        "path of odd bytes",
        "wrong user",
        "wrong password",
        "no password",
        "parts moved",
        "no credentials",
        "bearer",
        "not base64",
        "not UTF-8",
    ],
)
def test_all_wrong_credentials_get_the_same_answer(running: RunningWeb, path: str, headers: dict[str, str]) -> None:
    answer = post(running, path=path, headers=headers)

    assert (answer.status_code, answer.json) == (401, {"error": "unauthorized"})
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="webhooks", charset="UTF-8"'
    assert running.deliveries() == []
    assert running.woken == []


def test_secrets_are_compared_in_constant_time_on_digests_of_bytes(
    running: RunningWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    original = credentials_check.hmac.compare_digest

    def compare(expected: bytes, presented: bytes) -> bool:
        compared.append((expected, presented))
        return original(expected, presented)

    monkeypatch.setattr(credentials_check.hmac, "compare_digest", compare)

    post(running)
    post(running, path=f"/webhooks/pipedrive/{GLOBEX}/{SECRETS['webhook_path']}")

    assert len(compared) == 4  # each is compared with what is kept, which is nothing yet, and with what is read
    assert all(isinstance(side, bytes) and len(side) == 32 for pair in compared for side in pair)
    assert not any(secret.encode() in side for pair in compared for side in pair for secret in SECRETS.values())


def test_the_secrets_of_one_connector_do_not_authenticate_another(running: RunningWeb, environment: Settings) -> None:
    with transaction() as session:
        add_connector(session, environment, GLOBEX, "globex", {"webhook_path": "other"})

    assert post(running, path=f"/webhooks/pipedrive/{GLOBEX}/{SECRETS['webhook_path']}").status_code == 401
    assert post(running, path=f"/webhooks/pipedrive/{GLOBEX}/other").status_code == 401


def test_an_unreadable_secret_affects_its_connector_only(running: RunningWeb, environment: Settings) -> None:
    with transaction() as session:
        globex = add_connector(session, environment, GLOBEX, "globex", SECRETS)
        session.get_one(Credential, (globex, "webhook_path")).ciphertext = b"garbage"

    assert post(running).status_code == 200
    assert post(running, path=f"/webhooks/pipedrive/{GLOBEX}/{SECRETS['webhook_path']}").status_code == 401


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_json"),
        (b"meta=1", "not_json"),
        (b'{"meta": ', "not_json"),
        (b"\xff\xfe{\x00}\x00", "not_json"),
        (b'{"data": {"value": NaN}}', "not_json"),
        (b'{"data": {"value": -Infinity}}', "not_json"),
        (b'{"data": ' + b"9" * 5000 + b"x}", "not_json"),
        (b"[" * 100_000, "too_deep"),
        (b"[]", "not_an_object"),
        (b'"person"', "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "too_deep"),
        (b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", "too_deep"),
    ],
)
def test_an_unreadable_body_is_stored_and_answered_200(running: RunningWeb, body: bytes, code: str) -> None:
    """Ten failures would ban the webhook, and its events would be lost."""
    with capture_logs() as lines:
        answers = [post(running, body), post(running, body)]

    assert [(answer.status_code, answer.json) for answer in answers] == [
        (200, {"status": "stored"}),
        (200, {"status": "known"}),
    ]
    assert [delivery.body for delivery in running.deliveries()] == [body]
    output = [line for line in lines if line["event"] == "webhook.unreadable"]
    assert [(line["reason"], line["size_bytes"], line["connector_id"]) for line in output] == [
        (code, len(body), ACME)
    ] * 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 32 + b"1" + b"}" * 32,
        b"{}",
        b'{"meta": []}',
        b'{"meta": {"entity": "deal", "action": "change"}}',
        b'{"meta": {"entity": "person", "action": "change", "entity_id": "-1", "timestamp": 1}}',
    ],
)
def test_an_object_that_makes_no_sense_is_kept_for_a_person_to_see(running: RunningWeb, body: bytes) -> None:
    assert [post(running, body).json, post(running, body).json] == [{"status": "stored"}, {"status": "known"}]

    [delivery] = running.deliveries()
    assert delivery.body == body


@pytest.mark.parametrize("event_id", ["a\x00b", "\ud800", "ü", "x" * 256, "a\nb"])
def test_an_event_id_no_database_would_hold_is_kept_as_its_digest(running: RunningWeb, event_id: str) -> None:
    body = json.dumps(webhook(event_id)).encode()

    assert [post(running, body).json, post(running, body).json] == [{"status": "stored"}, {"status": "known"}]
    [delivery] = running.deliveries()
    assert len(delivery.key) == 32


def test_a_name_with_half_a_surrogate_pair_does_not_cost_the_delivery(running: RunningWeb) -> None:
    assert post(running, webhook(name="\ud83d")).status_code == 200
    assert len(running.deliveries()) == 1


@pytest.mark.parametrize("is_meta_first", [True, False])
def test_of_a_body_above_one_megabyte_both_ends_are_kept(running: RunningWeb, is_meta_first: bool) -> None:
    allowed = json.dumps(webhook(name="x" * (1024 * 1024 - 600))).encode()
    large = webhook("another", name="x" * (20 * 1024 * 1024))
    above = json.dumps(dict(sorted(large.items(), reverse=is_meta_first))).encode()

    answers = [post(running, body).status_code for body in (allowed, above)]

    whole, ends = (bytes(delivery.body) for delivery in running.deliveries())
    assert (answers, whole == allowed, len(ends)) == ([200, 200], True, 2 * ENDS_BYTES + 1)
    head = find_head(ends)
    assert head is not None
    assert (head.entity, head.pipedrive_id, head.action) == ("person", 8, "change")


@pytest.mark.parametrize("size", [1024 * 1024, 1024 * 1024 + 1, 3 * 1024 * 1024])
def test_a_body_may_come_in_chunks(running: RunningWeb, size: int) -> None:
    """As the server hands it over: no length, and a stream that ends by itself."""
    body = json.dumps(webhook()).encode().ljust(size)

    answer = post(running, io.BytesIO(body), environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": ""})

    assert answer.status_code == 200
    assert [len(delivery.body) for delivery in running.deliveries()] == [
        size if size <= 1024 * 1024 else 2 * ENDS_BYTES + 1
    ]


def test_a_large_body_of_a_stranger_is_not_even_read(running: RunningWeb) -> None:
    assert post(running, b"x" * (2 * 1024 * 1024), headers={}).status_code == 401


def test_only_post_is_taken(running: RunningWeb) -> None:
    answer = running.client.get(PATH, headers=basic())

    assert (answer.status_code, answer.json["error"]) == (405, "method_not_allowed")  # type: ignore[index]
    assert "POST" in answer.headers["Allow"]


def test_a_paused_connector_stores_deliveries(running: RunningWeb) -> None:
    with transaction() as session:
        session.get_one(Connector, running.acme).state = "paused"

    assert post(running).status_code == 200


def test_with_the_database_away_the_sender_is_asked_to_come_again(running: RunningWeb, database_url: str) -> None:
    assert post(running).status_code == 200
    engine().dispose()
    use_database("postgresql+psycopg2://postgres@127.0.0.1:1/nowhere")

    answers = [post(running, webhook("another")), running.client.get("/metrics")]

    use_database(database_url)
    assert [answer.status_code for answer in answers] == [503, 503]
    assert all(answer.headers["Retry-After"] == "5" for answer in answers)
    assert answers[0].json["error"] == "database_unavailable"  # type: ignore[index]
    assert post(running, webhook("another")).json == {"status": "stored"}


def test_a_connector_removed_a_moment_ago_is_unknown(running: RunningWeb) -> None:
    assert post(running, webhook("first")).status_code == 200
    with transaction() as session:
        for table in (Delivery, Credential, SettingsVersion, Connector):
            session.execute(delete(table))

    assert post(running, webhook("second")).status_code == 401


def test_new_secrets_work_immediately(running: RunningWeb, environment: Settings) -> None:
    credentials = credentials_check.CredentialsCheck(clock=lambda: 100.0)
    given = (GLOBEX, SECRETS["webhook_path"], SECRETS["webhook_user"], SECRETS["webhook_password"])

    assert credentials.authenticate_webhook(*given) is None
    with transaction() as session:
        globex = add_connector(session, environment, GLOBEX, "globex", SECRETS)
    assert credentials.authenticate_webhook(*given) == globex  # in the very same moment: ten refusals ban a webhook
    with transaction() as session:
        keep_credential(
            session, globex, "webhook_path", Vault(environment.secret_keys).seal(globex, "webhook_path", "new")
        )
    assert credentials.authenticate_webhook(GLOBEX, "new", *given[2:]) == globex
    assert post(running, path=f"/webhooks/pipedrive/{GLOBEX}/new").status_code == 200


def test_secrets_that_were_replaced_no_longer_open_it(running: RunningWeb) -> None:
    now = [100.0]
    credentials = credentials_check.CredentialsCheck(clock=lambda: now[0])
    given = (ACME, SECRETS["webhook_path"], SECRETS["webhook_user"], SECRETS["webhook_password"])

    assert credentials.authenticate_webhook(*given) == running.acme
    with transaction() as session:
        session.execute(delete(Credential))
    assert credentials.authenticate_webhook(*given) == running.acme
    now[0] += credentials_check.RENEW_S
    assert credentials.authenticate_webhook(*given) is None


def test_neither_secrets_nor_values_reach_the_log_or_the_answer(
    running: RunningWeb, capsys: pytest.CaptureFixture[str], database_url: str
) -> None:
    texts = []
    with capture_logs() as lines:
        texts += [post(running).text, post(running, b'{"canary": ').text, post(running, path=PATH + "x").text]
        texts += [post(running, headers=basic(password="canary-guess")).text]
        use_database("postgresql+psycopg2://canary:canary@127.0.0.1:1/canary")
        texts.append(post(running, webhook("canary-event")).text)
        use_database(database_url)

    output = capsys.readouterr()
    assert len(lines) >= 4
    assert "canary" not in repr(lines) + output.out + output.err + "".join(texts)


def test_a_webhook_comes_again_while_the_database_takes_no_writes(
    running: RunningWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_reported_at", float("-inf"))
    with captured_log() as lines, demoted_database():
        refused = [post(running, webhook()) for _ in range(2)]
    taken = post(running, webhook())

    assert [answer.status_code for answer in refused] == [503, 503]
    assert refused[0].headers["Retry-After"]
    assert taken.status_code == 200
    assert [line["event"] for line in lines].count("database.read_only") == 1
