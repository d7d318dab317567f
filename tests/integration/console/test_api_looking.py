"""Reads through `/api/v1`: records, events, explanations, failures, plans and the overview of a connector."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from db import connector as connectors
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.integration.console.conftest import Call
from tests.journeys.hull_messages import fetch_everything, send_messages, user
from tests.journeys.test_replays import broken
from tests.prepared import prepared
from tests.system import API_TOKEN, HULL_SECRET, SyncSystem

BASE = "/api/v1/connectors/acme"


@pytest.fixture
@prepared
def ada(system: SyncSystem) -> SyncSystem:
    """Ada of Acme is known on both sides, and Hull has given her another name."""
    system.change_settings(outgoing_user_attributes=[{"hull": "pipedrive/name", "service": "name"}])
    acme = system.company.create_organization(name="Acme")["id"]
    system.company.create_person(name="Ada", org_id=acme, emails=[{"value": "ada@acme.com", "primary": True}])
    for entity in (Entity.PERSON, Entity.ORGANIZATION):
        system.fetch(entity)
    fetch_everything(system)
    send_messages(system, user(str(system.users()[1]["id"]), **{"pipedrive/name": "Ada Lovelace", "pipedrive/id": 1}))
    return system


def foreign() -> None:
    """Another connector, without objects of this one."""
    with transaction() as session:
        other = connectors.Connector(id="f" * 24, name="globex", hull_organization="globex.test")
        session.add(other)
        session.flush()
        connectors.add_settings(session, other.key, {}, author="test")


def test_a_record_is_found_and_shown_with_both_sides(ada: SyncSystem, viewer_script: Call) -> None:
    hull_id = str(ada.users()[1]["id"])
    found = viewer_script("GET", f"{BASE}/records?q=ada@acme.com")[1]["records"]
    status, record = viewer_script("GET", f"{BASE}/records/person/1")
    by_hull = viewer_script("GET", f"{BASE}/records/person/{hull_id}?by=hull")[1]

    assert [(each["pipedrive_id"], each["hull_id"]) for each in found] == [(1, hull_id)]
    assert (status, record["title"], record["state"]) == (200, "Ada Lovelace", "full")
    (name,) = [each for each in record["fields"] if each["field"]["attribute"] == "pipedrive/name"]
    assert (name["pipedrive"], name["hull"], name["differs"]) == ("Ada Lovelace", "Ada Lovelace", False)
    assert record["organization"] == {"pipedrive_id": 1, "is_known": True}
    assert by_hull["pipedrive_id"] == 1
    assert viewer_script("GET", f"{BASE}/records/person/99")[0] == 404
    assert viewer_script("GET", f"{BASE}/records/person/{'9' * 30}")[0] == 404
    assert viewer_script("GET", f"{BASE}/records/deal/1")[0] == 422


def test_the_history_of_a_record_and_the_explanation_of_a_field(ada: SyncSystem, viewer_script: Call) -> None:
    assert ada
    events = viewer_script("GET", f"{BASE}/records/person/1/history")[1]["events"]
    found = viewer_script("GET", f"{BASE}/records/person/1/explain?field=pipedrive/name")[1]

    assert "outgoing.user.success" in [each["event"] for each in events]
    assert found["value"] == "Ada Lovelace"
    assert [each["kind"] for each in found["steps"]] == ["origin", "identity", "rule", "call", "read_back", "value"]
    assert viewer_script("GET", f"{BASE}/records/person/1/history?before={events[-1]['id']}")[1] == {
        "events": [],
        "more": None,
    }
    assert viewer_script("GET", f"{BASE}/records/person/1/explain?field=name&at=yesterday")[0] == 422
    assert viewer_script("GET", f"{BASE}/records/person/1/explain?field=name&at=999999d")[0] == 422
    assert viewer_script("GET", f"{BASE}/records/person/1/explain")[0] == 422


def test_events_by_filter_and_page_by_page(ada: SyncSystem, viewer_script: Call) -> None:
    assert ada
    outgoing = viewer_script("GET", f"{BASE}/events?direction=outgoing&outcome=success&since=2h&record=ada@acme.com")[1]
    first = viewer_script("GET", f"{BASE}/events?limit=1")[1]
    second = viewer_script("GET", f"{BASE}/events?limit=1&before={first['more']}")[1]
    (event,) = outgoing["events"]
    one = viewer_script("GET", f"{BASE}/events/{event['id']}")[1]

    assert [(each["before"], each["after"]) for each in event["changes"]] == [("Ada", "Ada Lovelace")]
    assert first["events"][0]["id"] > second["events"][0]["id"]
    assert one["event"] == event
    assert [each["event"] for each in viewer_script("GET", f"{BASE}/events?event=outgoing.*.success")[1]["events"]] == [
        "outgoing.user.success"
    ]
    for strange in ("outgoing.%25", "outgoing_user_success", "outgoing.*\\"):
        assert viewer_script("GET", f"{BASE}/events?event={strange}")[1]["events"] == [], strange
    assert viewer_script("GET", f"{BASE}/events?outcome=splendid")[0] == 422
    assert viewer_script("GET", f"{BASE}/events?sinse=2h")[0] == 422


def test_objects_of_another_connector_are_not_found(system: SyncSystem, script: Call) -> None:
    broken(system, 10)
    run, batch, event, failure = (
        system.rows(f"SELECT min(id) AS id FROM {table}")[0].id  # noqa: S608 - tables of ours
        for table in ("runs", "batches", "sync_events", "failures")
    )
    script("POST", f"{BASE}/replays", failures={}, count=1, why="x")
    foreign()
    other = "/api/v1/connectors/globex"

    for path in (
        f"runs/{run}", f"runs/{run}/details", f"batches/{batch}", f"events/{event}", f"failures/{failure}", "replays/1",
        "replays/1/items", "records/person/10", "plans/1", "deliveries/1",
    ):  # fmt: skip
        assert script("GET", f"{other}/{path}")[0] == 404, path
    for path in ("replays/1/abort", f"runs/{run}/cancel", "plans/1/discard"):
        assert script("POST", f"{other}/{path}")[0] == 404, path
    assert script("POST", f"{other}/failures/{failure}/try-payload", payload={})[0] == 404
    assert (
        script("POST", f"{other}/replays", failures={"ids": [failure]}, count=9, why="x")[1]["error"] == "nothing_fits"
    )
    assert script("GET", f"{BASE}/failures/{failure}")[0] == 200


def test_failures_are_grouped_listed_and_shown(system: SyncSystem, viewer_script: Call, script: Call) -> None:
    broken(system, 10, 11)
    (group,) = viewer_script("GET", f"{BASE}/failures/groups")[1]["groups"]
    found = viewer_script("GET", f"{BASE}/failures?reason=no_update_time&limit=1")[1]["failures"]
    whole = script("GET", f"{BASE}/failures/{found[0]['failure']['id']}")[1]
    total = viewer_script("GET", f"{BASE}/failures/preview?fingerprint={group['fingerprint']}")[1]

    assert (group["reason"], group["count"], len(group["daily"])) == ("no_update_time", 2, 14)
    assert [each["preview"]["kind"] for each in found] == ["fails_again"]
    assert (whole["payload"]["id"], whole["failure"]["record_id"]) == (11, "11")
    assert (total["total"], total["kinds"]) == (2, {"fails_again": 2})
    assert viewer_script("GET", f"{BASE}/failures?state=discarded")[1] == {"failures": []}
    assert len(viewer_script("GET", f"{BASE}/failures?ids=1&ids=2")[1]["failures"]) == 2


def test_the_overview_of_a_connector(ada: SyncSystem, viewer_script: Call) -> None:
    assert ada
    seen = viewer_script("GET", f"{BASE}/overview?by=minute")[1]
    budget = viewer_script("GET", f"{BASE}/budget")[1]
    counts = viewer_script("GET", f"{BASE}/mappings")[1]["counts"]

    assert "Everything changed in Pipedrive up to" in seen["in_step"]["text"]
    assert len(seen["traffic"]["times"]) == 60
    assert [each["kind"] for each in seen["last_runs"]] == ["full"] * 4
    assert budget["spent"] == sum(lane["tokens"] for lane in budget["lanes"])
    assert {(each["entity"], each["state"]): each["records"] for each in counts} == {
        ("organization", "full"): 1,
        ("person", "full"): 1,
    }
    assert viewer_script("GET", f"{BASE}/shells")[1]["shells"] == 0
    assert viewer_script("GET", f"{BASE}/schedules")[0] == 200
    assert viewer_script("GET", f"{BASE}/fetch-preview?entity=person")[1]["known"] == 1
    assert viewer_script("GET", f"{BASE}/workers")[1]["level"] in ("ok", "warning", "error")
    assert viewer_script("GET", f"{BASE}/verify")[1]["last"] is None
    assert "name" in [each["code"] for each in viewer_script("GET", f"{BASE}/fields?entity=person")[1]["fields"]]


def test_a_run_and_its_batches(ada: SyncSystem, viewer_script: Call) -> None:
    _, run = viewer_script("GET", f"{BASE}/runs?entity=person&kind=full&state=done")[1]["runs"]
    details = viewer_script("GET", f"{BASE}/runs/{run['id']}/details")[1]
    batch = viewer_script("GET", f"{BASE}/batches/{details['batches'][0]['id']}")[1]

    assert details["run"]["counts"]["read"] == run["read"]
    assert [each["state"] for each in details["walks"]] == ["done"] * len(details["walks"])
    assert batch["batch"] == details["batches"][0]
    assert batch["run_id"] == run["id"] == ada.rows("SELECT id FROM runs WHERE entity = 'person' ORDER BY id")[0].id


def test_runs_and_batches_are_shown_without_the_payloads_of_failures(system: SyncSystem, viewer_script: Call) -> None:
    """The page of a run reads its failures every two seconds, and a payload can be large."""
    broken(system, 10)
    (failure,) = system.rows("SELECT run_id, batch_id FROM failures")
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", record)
    try:
        answers = [
            viewer_script("GET", f"{BASE}/{path}")[1]
            for path in (f"runs/{failure.run_id}/details", f"batches/{failure.batch_id}")
        ]
    finally:
        event.remove(Engine, "before_cursor_execute", record)

    assert [len(each["failures"]) for each in answers] == [1, 1]
    assert [each for each in statements if "failures.payload" in each or "failures.traceback" in each] == []


def test_credentials_are_shown_without_secrets(system: SyncSystem, viewer_script: Call, admin_script: Call) -> None:
    assert system
    known = viewer_script("GET", f"{BASE}/credentials")[1]
    checks = admin_script("POST", f"{BASE}/credentials/check")[1]["checks"]

    assert known["connection"]["how"] == "api_token"
    assert {"hull_secret", "pipedrive_api_token"} <= known["kept"].keys()
    assert [each["trouble"] for each in checks] == ["", ""]
    assert API_TOKEN not in f"{known}{checks}"
    assert HULL_SECRET not in f"{known}{checks}"
    assert viewer_script("POST", f"{BASE}/credentials/check")[0] == 403


def test_the_body_of_a_delivery_is_for_operators(ada: SyncSystem, viewer_script: Call, script: Call) -> None:
    delivery = ada.rows("SELECT id FROM deliveries WHERE source = 'hull' LIMIT 1")[0].id

    assert viewer_script("GET", f"{BASE}/deliveries/{delivery}")[0] == 403
    status, found = script("GET", f"{BASE}/deliveries/{delivery}")
    assert (status, found["delivery"]["id"]) == (200, delivery)
    assert found["document"]


def test_unusable_text_and_deep_nesting_are_shown(system: SyncSystem, script: Call) -> None:
    hostile: dict[str, Any] = {"id": 7, "name": "<script>\ud800{{7*7}}\u202e"}
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    from db import failure as failures  # noqa: PLC0415 - needed here alone
    from pipeline.domain.json_text import write_lenient  # noqa: PLC0415

    for number, payload in enumerate((hostile, {"id": 7, "deep": deep})):
        new = failures.NewFailure(
            connector_key=system.connector_key, kind="record", subject=f"outgoing:person:{number}", direction="outgoing",
            entity="person", stage="load", reason="refused_by_pipedrive", detail="400", record_id=str(number),
            payload=write_lenient(payload),
        )  # fmt: skip
        with transaction() as session:
            failures.keep_failures(session, [new])
    (first, second) = system.rows("SELECT id FROM failures ORDER BY id")

    assert script("GET", f"{BASE}/failures/{first.id}")[1]["payload"]["name"] == "<script>\\ud800{{7*7}}\u202e"
    assert "nested" in script("GET", f"{BASE}/failures/{second.id}")[1]["payload"]


def test_a_too_expensive_filter_is_refused_in_time(
    system: SyncSystem, viewer_script: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from db import event_log  # noqa: PLC0415 - needed here alone

    def slow(*_: Any, **__: Any) -> None:
        raise event_log.TooManyEvents

    assert system
    monkeypatch.setattr("db.event_log.page_of_events", slow)
    status, problem = viewer_script("GET", f"{BASE}/events?reason=nothing")

    assert (status, problem["error"]) == (400, "too_much")
    with transaction() as session:
        assert session.scalar(text("SELECT 1")) == 1
