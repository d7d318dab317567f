"""The firehose: who may post, what a token must prove, and that one bad message harms no other."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.contract.hull.sender import (
    CONNECTOR_ID,
    CREDENTIALS,
    NOW,
    SECRET,
    Hull,
    Json,
    account_message,
    link_message,
    message,
    token,
    user_message,
)

ADA = {"email": "ada@acme.com"}


@pytest.mark.parametrize("path", ["/", "/firehose", "/api/v1/firehose"])
def test_it_listens_where_clients_post(hull: Hull, path: str) -> None:
    assert hull.call("POST", path, {"batch": [user_message(ADA, {"x": 1})]}) == {"ok": True}
    assert hull.user(**ADA).attributes == {"x": 1}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Hull-App-Id": CONNECTOR_ID},
        {"Hull-App-Id": CONNECTOR_ID, "Hull-Access-Token": "wrong"},
        {"Hull-App-Id": "65f000000000000000000002", "Hull-Access-Token": SECRET},
        {"Hull-App-Id": CONNECTOR_ID, "Hull-Access-Token": token(subjectType="user", asUser=ADA)},
    ],
)
def test_strangers_are_refused(hull: Hull, headers: Json) -> None:
    status, _ = hull.ask("POST", "/firehose", {"batch": [user_message(ADA)]}, headers or {"X": "y"})

    assert status == 401
    assert len(hull.state.users) == 0


@pytest.mark.parametrize("body", ["{", "[]", "{}", '{"batch": {}}', "null"])
def test_what_is_no_batch_is_refused(hull: Hull, body: str) -> None:
    response = hull.app.test_client().post("/firehose", data=body, headers=CREDENTIALS)

    assert response.status_code == 400


def _tampered(claims: Json) -> str:
    header, _, signature = token(subjectType="user", asUser=ADA).split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{header}.{payload}.{signature}"


def _unsigned() -> str:
    _, payload, _ = token(subjectType="user", asUser=ADA).split(".")
    none = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"none"}').rstrip(b"=").decode()
    return f"{none}.{payload}."


BAD_TOKENS = {
    "no token": None,
    "not text": 12,
    "the secret itself": SECRET,
    "rubbish": "a.b.c",
    "another secret": token(secret="another made-up secret, as long as that", subjectType="user", asUser=ADA),
    "another algorithm": token(algorithm="HS512", secret=SECRET * 2, subjectType="user", asUser=ADA),
    "no algorithm": _unsigned(),
    "a changed payload": _tampered({"iss": CONNECTOR_ID, "io.hull.asUser": {"email": "eve@acme.com"}}),
    "another issuer": token(iss="65f000000000000000000002", subjectType="user", asUser=ADA),
    "expired": token(exp=NOW, subjectType="user", asUser=ADA),
    "not valid yet": token(nbf=NOW + 1, subjectType="user", asUser=ADA),
    "an expiry that is no time": token(exp=0, subjectType="user", asUser=ADA),
    "an unknown subject": token(subjectType="robot", asUser=ADA),
    "claims that are no object": token(subjectType="user", asUser=["ada@acme.com"]),
}


@pytest.mark.parametrize("bad", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_a_token_that_proves_nothing_drops_its_message_only(hull: Hull, bad: Any) -> None:
    good = user_message({"email": "bo@acme.com"}, {"x": 1})

    hull.send({"type": "traits", "body": {"x": 2}, "headers": {"Hull-Access-Token": bad}}, good)

    assert [user.natural for user in hull.state.users] == ["bo@acme.com"]
    assert [line["event"] for line in hull.state.log] == ["incoming.user.error"]
    assert hull.state.received.count == 1


def test_times_within_bounds_are_accepted(hull: Hull) -> None:
    hull.send(user_message(ADA, {"x": 1}, exp=NOW + 1, nbf=NOW))

    assert hull.user(**ADA).attributes == {"x": 1}


def test_an_unpadded_and_a_reordered_header_are_the_same_token(hull: Hull) -> None:
    sent = user_message(ADA, {"x": 1})
    sent["headers"]["Hull-Access-Token"] += "="
    hull.send(sent)

    assert hull.reasons() == ["wrong signature"]


@pytest.mark.parametrize(
    ("bad", "event", "reason"),
    [
        ("not an object", "incoming.user.error", "a message is an object"),
        (
            message({}, "explode", subjectType="user", asUser=ADA),
            "incoming.user.error",
            "unknown message type 'explode'",
        ),
        ({**user_message(ADA), "type": None}, "incoming.user.error", "unknown message type None"),
        ({**user_message(ADA), "headers": None}, "incoming.user.error", "no token"),
        ({**account_message({"domain": "acme.com"}), "body": [1]}, "incoming.account.error", "the body is no object"),
        (
            account_message({"domain": "acme.com"}, {"event": "E"}, type_="track"),
            "incoming.account.error",
            "accounts have no events",
        ),
        (user_message(ADA, {}, type_="track"), "incoming.user.error", "an event needs a name"),
    ],
)
def test_a_bad_message_is_logged_and_the_next_is_taken(hull: Hull, bad: Any, event: str, reason: str) -> None:
    hull.send(bad, user_message({"email": "bo@acme.com"}, {"x": 1}))

    assert hull.user(email="bo@acme.com").attributes == {"x": 1}
    assert [(line["event"], line["reason"]) for line in hull.state.log] == [(event, reason)]


def test_messages_of_a_batch_are_taken_in_order(hull: Hull) -> None:
    hull.send(*(user_message(ADA, {"x": number}) for number in range(5)))

    assert hull.user(**ADA).attributes == {"x": 4}


def test_it_lists_what_it_received(hull: Hull) -> None:
    hull.send(
        user_message(ADA, {"x": 1}),
        link_message(ADA, {"anonymous_id": "p:44"}, {"y": 2}),
        account_message("5ee2", {"z": 3}),
    )

    assert list(hull.state.received) == [
        ["traits", {"subjectType": "user", "asUser": ADA}, {"x": 1}],
        ["traits", {"subjectType": "account", "asUser": ADA, "asAccount": {"anonymous_id": "p:44"}}, {"y": 2}],
        ["traits", {"subjectType": "account", "asAccount": {"id": "5ee2"}}, {"z": 3}],
    ]


def test_an_event_of_one_id_is_kept_once(hull: Hull) -> None:
    for count in (1, 2):
        body = {"event": "Deal won", "event_id": "e1", "properties": {"count": count}}
        hull.send(user_message(ADA, body, type_="track"))

    (event,) = (hull.user(**ADA).events or {}).values()
    assert event["properties"] == {"count": 2}
    assert event["user_id"] == hull.user(**ADA).id


def test_incinerate_leaves_nothing(hull: Hull) -> None:
    hull.send(link_message({**ADA, "anonymous_id": "p:1", "external_id": "e"}, {"domain": "acme.com"}))
    hull.send(user_message(ADA, type_="incinerate"), account_message({"domain": "acme.com"}, type_="incinerate"))

    assert len(hull.state.users) == len(hull.state.accounts) == hull.state.links == 0
    hull.send(user_message({**ADA, "anonymous_id": "p:1", "external_id": "e"}))
    assert len(hull.state.users) == 1


def test_stats_count_everything(hull: Hull) -> None:
    hull.send(user_message(ADA), user_message({"anonymous_id": "p:1"}), "rubbish")
    hull.send(link_message({**ADA, "anonymous_id": "p:1"}, {"domain": "acme.com"}))

    stats = hull.call("GET", "/__sandbox__/stats")
    expected = {"messages": 4, "batches": 2, "errors": 1, "merges": 1, "users_created": 2, "accounts_created": 1}
    assert stats.items() >= (expected | {"users": 1, "accounts": 1, "links": 1, "received": {"traits": 3}}).items()
