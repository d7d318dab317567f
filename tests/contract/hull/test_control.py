"""The sandbox's own paths: look inside, edit, order faults; the seeded records; the sink."""

from __future__ import annotations

import json

import pytest
from werkzeug.test import Client

from benchmarks.sink import create_sink
from sandbox.company import names
from sandbox.hull.app import create_app
from sandbox.hull.identity import FREEMAIL
from tests.contract.hull.sender import CONNECTOR_ID, CREDENTIALS, SECRET, Hull, Json, link_message, user_message

ADA = {"email": "ada@acme.com"}


def lines(hull: Hull, path: str) -> list[Json]:
    return [json.loads(line) for line in hull.app.test_client().get(path).text.splitlines()]


def test_received_can_be_followed(hull: Hull) -> None:
    hull.send(user_message(ADA, {"x": 1}), user_message(ADA, {"x": 2}))
    assert [body for _, _, body in lines(hull, "/__sandbox__/received")] == [{"x": 1}, {"x": 2}]

    response = hull.app.test_client().get("/__sandbox__/received?since=1")
    assert [json.loads(line)[2] for line in response.text.splitlines()] == [{"x": 2}]
    assert response.headers["X-Sandbox-Next"] == "2"
    assert lines(hull, "/__sandbox__/received?since=2") == []


def test_only_the_newest_are_kept_but_all_are_counted() -> None:
    app = create_app(connector_id=CONNECTOR_ID, secret=SECRET, organization="o", received_limit=3)
    hull = Hull(app, app.extensions["hull"])
    hull.send(*(user_message(ADA, {"x": number}) for number in range(5)))

    assert [body["x"] for _, _, body in hull.state.received] == [2, 3, 4]
    assert [body["x"] for _, _, body in lines(hull, "/__sandbox__/received?since=3")] == [3, 4]
    assert hull.state.received.count == 5


def test_export_is_complete_and_sorted(hull: Hull) -> None:
    hull.send(
        user_message({"email": "bo@acme.com"}, {"plan": "pro"}), link_message(ADA, {"domain": "acme.com"}, {"n": 1})
    )

    bo, ada = lines(hull, "/__sandbox__/export?entity=user")
    (acme,) = lines(hull, "/__sandbox__/export?entity=account")

    assert bo["id"] < ada["id"]
    assert (bo["plan"], bo["account_id"], ada["account_id"]) == ("pro", None, acme["id"])
    assert (acme["domain"], acme["n"]) == ("acme.com", 1)
    assert hull.ask("GET", "/__sandbox__/export?entity=deal")[0] == 400


def test_a_person_edits_a_record(hull: Hull) -> None:
    hull.send(link_message(ADA, {"domain": "acme.com"}))
    ada, acme = hull.user(**ADA), hull.account(domain="acme.com")

    answer = hull.call("POST", f"/__sandbox__/users/{ada.id}", {"plan": "pro", "seen_at": "soon"})
    assert answer["record"]["plan"] == "pro"
    assert answer["changes"] == {"plan": [None, "pro"]}
    assert answer["problems"] == ["seen_at: 'soon' is not a date"]

    hull.call("POST", f"/__sandbox__/accounts/{acme.id}", {"tier": "gold"})
    assert acme.attributes == {"tier": "gold"}
    assert hull.ask("POST", f"/__sandbox__/users/{acme.id}", {})[0] == 404


def test_the_log_has_each_problem(hull: Hull) -> None:
    hull.send("rubbish")

    (line,) = hull.call("GET", "/__sandbox__/log")
    assert (line["event"], line["reason"], line["message"]) == (
        "incoming.user.error",
        "a message is an object",
        "rubbish",
    )


def test_a_fault_fails_the_next_matching_requests(hull: Hull) -> None:
    rule = {
        "path": "^/firehose",
        "kind": "status",
        "status": 429,
        "headers": {"Retry-After": "7"},
        "skip": 1,
        "count": 2,
    }
    hull.call("POST", "/__sandbox__/faults", [rule])

    client = hull.app.test_client()
    answers = [client.post("/firehose", data=json.dumps({"batch": []}), headers=CREDENTIALS) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 429, 429, 200]
    assert answers[1].headers["Retry-After"] == "7"
    assert hull.call("GET", "/api/v1/app")["id"] == CONNECTOR_ID
    assert hull.call("GET", "/__sandbox__/faults")[0]["seen"] == 4


@pytest.mark.parametrize(("late", "taken"), [(False, 0), (True, 1)])
def test_a_late_fault_loses_only_the_answer(hull: Hull, *, late: bool, taken: int) -> None:
    hull.call("POST", "/__sandbox__/faults", [{"path": "firehose", "kind": "html", "late": late}])

    response = hull.app.test_client().post(
        "/firehose", data=json.dumps({"batch": [user_message(ADA)]}), headers=CREDENTIALS
    )

    assert (response.status_code, response.mimetype) == (502, "text/html")
    assert len(hull.state.users) == taken


def test_a_truncated_and_a_slow_answer(hull: Hull) -> None:
    whole = hull.app.test_client().get("/api/v1/app", headers=CREDENTIALS).data
    naps: list[float] = []
    hull.app.extensions["hull_faults"].sleep = naps.append
    rules = [{"path": "app", "kind": "truncated"}, {"path": "app", "kind": "slow", "seconds": 12, "method": "GET"}]
    hull.call("POST", "/__sandbox__/faults", rules)

    answers = [hull.app.test_client().get("/api/v1/app", headers=CREDENTIALS).data for _ in range(3)]

    assert answers == [whole[: len(whole) // 2], whole, whole]
    assert naps == [12]


@pytest.mark.parametrize(
    "rules",
    [[{"path": "("}], [{"path": "a", "kind": "explode"}], [{"kind": "status"}], [{"path": "(", "kind": "html"}], 5],
)
def test_a_rule_that_is_none_is_refused(hull: Hull, rules: object) -> None:
    assert hull.ask("POST", "/__sandbox__/faults", rules)[0] == 400


def test_seeded_records_are_the_same_each_time_and_hang_together() -> None:
    def make(seed: int) -> Hull:
        app = create_app(connector_id=CONNECTOR_ID, secret=SECRET, organization="o", seed=seed, users=300, accounts=200)
        return Hull(app, app.extensions["hull"])

    one, two, other = make(1), make(1), make(2)
    times = {"created_at", "updated_at", "indexed_at"}
    shown = [
        [
            {name: value for name, value in record.items() if name not in times}
            for record in lines(hull, "/__sandbox__/export?entity=user")
        ]
        for hull in (one, two, other)
    ]
    assert shown[0] == shown[1] != shown[2]
    assert len({record["email"] for record in shown[0]}) == len(shown[0]) == 300
    assert len({account.natural for account in one.state.accounts}) == len(one.state.accounts) == 200
    assert 200 < one.state.links < 300
    generated = {names.domain(number) for number in range(1, 201)}
    assert sum(account.natural in generated for account in one.state.accounts) == 100
    for user in one.state.users:
        account, domain = one.state.account_of(user), (user.natural or "").partition("@")[2]
        assert domain in FREEMAIL if account is None else account.natural == domain


def test_the_sink_counts_and_keeps_nothing() -> None:
    client = Client(create_sink(connector_id=CONNECTOR_ID, secret=SECRET, organization="o"))
    batch = json.dumps({"batch": [user_message(ADA), user_message(ADA)]}, separators=(",", ":"))

    assert client.post("/", data=batch, headers=CREDENTIALS).json == {"ok": True}
    assert (
        client.post("/api/v1/firehose", data=batch, headers={**CREDENTIALS, "Hull-Access-Token": "wrong"}).status_code
        == 401
    )
    assert client.get("/__sandbox__/stats").json == {"batches": 1, "messages": 2, "bytes": len(batch)}
    assert (client.get("/api/v1/app").json or {})["id"] == CONNECTOR_ID
    assert client.get("/api/v1/users_segments?shipId=1").json == []
