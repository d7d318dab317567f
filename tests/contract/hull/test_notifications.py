"""Hull's notifications: bodies, signatures, combined changes, and obedience to flow_control."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from werkzeug.serving import make_server

from sandbox.hull.notifier import MAX_TRIES, HullNotifier
from tests.contract.hull.sender import CONNECTOR_ID, SECRET, Hull, Json, link_message, user_message

ADA = {"email": "ada@acme.com"}
NEXT = (200, '{"flow_control":{"type":"next"}}')


class Connector:
    """Takes notifications; answers from a list, then `next`."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str] | OSError] = []
        self.taken: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.pauses: list[float] = []

    def post(self, _url: str, headers: Any, body: bytes) -> tuple[int, str]:
        self.taken.append(json.loads(body))
        self.headers.append(dict(headers))
        answer = self.answers.pop(0) if self.answers else NEXT
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture
def connector(hull: Hull) -> Connector:
    """Return a connector that was registered after Ada of Acme was created, so that only later changes are sent."""
    hull.send(link_message(ADA, {"domain": "acme.com"}, {"tier": "silver"}), user_message(ADA, {"plan": "free"}))
    taker, notifier = Connector(), notifier_of(hull)
    notifier.post, notifier.pause = taker.post, taker.pauses.append
    notifier.register("http://connector/smart-notifier", "http://acme.hull.test/__sandbox__/public-key")
    return taker


def notifier_of(hull: Hull) -> HullNotifier:
    notifier: HullNotifier = hull.app.extensions["hull_notifier"]
    return notifier


def edit_user(hull: Hull, **attributes: Any) -> None:
    hull.call("POST", f"/__sandbox__/users/{hull.user(**ADA).id}", attributes)


def edit_account(hull: Hull, **attributes: Any) -> None:
    hull.call("POST", f"/__sandbox__/accounts/{hull.account(domain='acme.com').id}", attributes)


def test_an_edited_user_is_sent_completely_with_its_changes(hull: Hull, connector: Connector) -> None:
    edit_user(hull, plan="pro")
    notifier_of(hull).deliver_pending()

    (body,) = connector.taken
    (message,) = body["messages"]
    assert body["channel"] == "user:update"
    assert body["configuration"] == {"id": CONNECTOR_ID, "organization": "acme.hull.test", "secret": SECRET}
    assert (body["connector"]["id"], body["is_export"], body["kraken"]) == (CONNECTOR_ID, False, {"retries": 0})
    assert (message["user"]["email"], message["user"]["traits_plan"]) == ("ada@acme.com", "pro")
    assert "account" not in message["user"]
    assert (message["account"]["domain"], message["account"]["tier"]) == ("acme.com", "silver")
    none = {"entered": [], "left": []}
    expected = {
        "is_new": False,
        "user": {"traits_plan": ["free", "pro"]},
        "account": {},
        "segments": none,
        "account_segments": none,
    }
    assert message["changes"] == expected


def test_the_signature_is_verified_with_the_served_key(hull: Hull, connector: Connector) -> None:
    edit_user(hull, plan="pro")
    notifier_of(hull).deliver_pending()

    headers, (body,) = connector.headers[0], connector.taken
    assert headers["X-Hull-Smart-Notifier"] == "true"
    assert headers["X-Hull-Smart-Notifier-Signature-Version"] == "v1"
    assert headers["X-Hull-Smart-Notifier-Signature-Public-Key-Url"] == "http://acme.hull.test/__sandbox__/public-key"
    client, signature = hull.app.test_client(), headers["X-Hull-Smart-Notifier-Signature"]
    pem = client.post("/__sandbox__/public-key", data=signature).text
    assert pem == client.get("/__sandbox__/public-key").text
    assert pem.startswith("-----BEGIN PUBLIC KEY-----")
    claims = jwt.decode(signature, pem, algorithms=["RS256"], options={"verify_iat": False})
    assert claims["jti"] == body["notification_id"]


def test_an_edited_account_is_sent_and_so_are_its_users(hull: Hull, connector: Connector) -> None:
    edit_account(hull, tier="gold")
    notifier_of(hull).deliver_pending()

    of_account, of_user = connector.taken
    assert (of_account["channel"], of_user["channel"]) == ("account:update", "user:update")
    assert "user" not in of_account["messages"][0]
    assert of_account["messages"][0]["changes"]["account"] == {"tier": ["silver", "gold"]}
    assert of_user["messages"][0]["changes"]["account"] == {"tier": ["silver", "gold"]}
    assert of_user["messages"][0]["changes"]["user"] == {}


def test_changes_are_combined_until_they_are_sent(hull: Hull, connector: Connector) -> None:
    edit_user(hull, plan="team", size=1)
    edit_user(hull, plan="pro", size=None)
    notifier_of(hull).deliver_pending()
    assert connector.taken[0]["messages"][0]["changes"]["user"] == {"traits_plan": ["free", "pro"]}

    edit_user(hull, plan="free")
    edit_user(hull, plan="pro")
    edit_user(hull, plan="pro")
    notifier_of(hull).deliver_pending()
    assert len(connector.taken) == 1


def test_entering_and_leaving_a_segment_is_sent(hull: Hull, connector: Connector) -> None:
    ada = hull.user(**ADA).id
    for ids in ([ada], []):
        leads = hull.call("POST", "/__sandbox__/segments", {"name": "Leads", "entity": "user", "ids": ids})
        notifier_of(hull).deliver_pending()

    entered, left = (body["messages"][0] for body in connector.taken)
    assert [segment["id"] for segment in entered["changes"]["segments"]["entered"]] == [leads["id"]]
    assert (entered["segment_ids"], [segment["name"] for segment in entered["segments"]]) == ([leads["id"]], ["Leads"])
    assert [segment["id"] for segment in left["changes"]["segments"]["left"]] == [leads["id"]]
    assert left["segment_ids"] == []
    assert [segment["id"] for segment in connector.taken[0]["segments"]] == [leads["id"]]


def test_an_account_segment_is_sent_with_the_account_and_its_users(hull: Hull, connector: Connector) -> None:
    acme = hull.account(domain="acme.com").id
    hull.call("POST", "/__sandbox__/segments", {"name": "Targets", "entity": "account", "ids": [acme]})
    notifier_of(hull).deliver_pending()

    for body in connector.taken:
        message = body["messages"][0]
        assert [segment["name"] for segment in message["changes"]["account_segments"]["entered"]] == ["Targets"]
        assert len(message["account_segment_ids"]) == len(body["accounts_segments"]) == 1


def test_messages_of_the_firehose_are_sent_only_on_request(hull: Hull, connector: Connector) -> None:
    hull.send(user_message(ADA, {"plan": "pro"}))
    notifier_of(hull).deliver_pending()
    assert connector.taken == []

    hull.state.notify_on_firehose = True
    hull.send(user_message(ADA, {"plan": "pro"}), link_message({"email": "bo@acme.com"}, {"domain": "globex.com"}))
    notifier_of(hull).deliver_pending()
    accounts, users = (body["messages"] for body in connector.taken)
    assert [(message["account"]["domain"], message["changes"]["is_new"]) for message in accounts] == [
        ("globex.com", True)
    ]
    globex = hull.account(domain="globex.com").id
    assert [message["user"]["email"] for message in users] == ["bo@acme.com"]
    assert users[0]["changes"]["account"]["id"] == [None, globex]


def test_changed_settings_are_sent_with_the_secret(hull: Hull, connector: Connector) -> None:
    hull.call("PUT", f"/api/v1/{CONNECTOR_ID}", {"private_settings": {"a": 1}})
    notifier_of(hull).deliver_pending()

    (body,) = connector.taken
    assert body["channel"] == "ship:update"
    assert (body["messages"][0]["secret"], body["messages"][0]["private_settings"]) == (SECRET, {"a": 1})


@pytest.mark.parametrize(
    ("answer", "pause_s"),
    [
        ((200, '{"flow_control":{"type":"retry","in":250,"size":10,"in_time":10}}'), 0.25),
        ((503, '{"flow_control":{"type":"retry","in":600000}}'), 5.0),
        ((500, '{"flow_control":{"type":"next"}}'), 1.0),
        ((500, "<html>"), 1.0),
        (ConnectionRefusedError("nobody there"), 1.0),
    ],
)
def test_what_was_not_taken_comes_again(
    hull: Hull, connector: Connector, answer: tuple[int, str] | OSError, pause_s: float
) -> None:
    connector.answers = [answer]
    edit_user(hull, plan="pro")
    notifier_of(hull).deliver_pending()

    first, second = connector.taken
    assert second == {**first, "kraken": {"retries": 1}}
    assert connector.pauses == [pause_s]


def test_a_connector_that_never_takes_it_is_given_up(hull: Hull, connector: Connector) -> None:
    connector.answers = [(500, "")] * MAX_TRIES
    edit_user(hull, plan="pro")
    notifier_of(hull).deliver_pending()

    shown = hull.call("GET", "/__sandbox__/notifications")
    assert [exchange["status"] for exchange in shown["exchanges"]] == [500] * MAX_TRIES
    assert shown["exchanges"][-1]["given_up"] is True
    assert shown["waiting"] == 0


def test_the_connector_names_the_size_of_the_next_notification(hull: Hull, connector: Connector) -> None:
    connector.answers = [(200, '{"flow_control":{"type":"next","size":2,"in":100}}')]
    edit_user(hull, plan="pro")
    notifier_of(hull).deliver_pending()

    hull.send(*(user_message({"email": f"u{number}@acme.com"}) for number in range(3)))
    ids = [user.id for user in hull.state.users]
    hull.call("POST", "/__sandbox__/segments", {"name": "All", "entity": "user", "ids": ids})
    notifier_of(hull).deliver_pending()

    assert [len(body["messages"]) for body in connector.taken] == [1, 2, 2]
    assert connector.pauses == [0.1]


def test_a_record_deleted_before_it_was_sent_is_left_out(hull: Hull, connector: Connector) -> None:
    edit_user(hull, plan="pro")
    hull.send(user_message(ADA, type_="incinerate"))
    notifier_of(hull).deliver_pending()

    assert connector.taken == []


@pytest.fixture
def live_connector() -> Iterator[tuple[str, queue.Queue[Json]]]:
    """A URL that takes notifications over a socket, and the queue they arrive in."""
    taken: queue.Queue[Json] = queue.Queue()

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        taken.put(
            {"path": environ["PATH_INFO"], **json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))}
        )
        start_response("200 OK", [("Content-Type", "application/json")])
        return [NEXT[1].encode()]

    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_registered_connector_receives_an_edit_automatically(
    hull: Hull, live_connector: tuple[str, queue.Queue[Json]]
) -> None:
    url, taken = live_connector
    hull.send(user_message(ADA))
    hull.call(
        "PUT",
        f"/api/v1/{CONNECTOR_ID}",
        {"source_url": f"{url}/", "manifest": {"subscriptions": [{"url": "/smart-notifier"}]}},
    )
    edit_user(hull, plan="pro")

    bodies = [taken.get(timeout=10) for _ in range(2)]
    assert {(body["path"], body["channel"]) for body in bodies} == {
        ("/smart-notifier", "ship:update"),
        ("/smart-notifier", "user:update"),
    }


def test_a_url_can_be_set_and_taken_back(hull: Hull, live_connector: tuple[str, queue.Queue[Json]]) -> None:
    url, taken = live_connector
    hull.call("POST", "/__sandbox__/notify_url", {"url": f"{url}/hear", "notify_on_firehose": True})
    hull.send(user_message(ADA))
    assert taken.get(timeout=10)["path"] == "/hear"

    hull.call("POST", "/__sandbox__/notify_url", {"url": None})
    edit_user(hull, plan="pro")
    assert hull.call("GET", "/__sandbox__/notifications")["waiting"] == 0
    assert hull.ask("POST", "/__sandbox__/notify_url", {"url": 5})[0] == 400
