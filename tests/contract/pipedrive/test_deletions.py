"""Records that are merged into another, restored, or purged."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.company import Company, Event
from sandbox.pipedrive.payload import payload
from tests.contract.pipedrive import spec
from tests.contract.pipedrive.conftest import Api, Clock, code

PERSONS, ORGANIZATIONS = "/api/v2/persons", "/api/v2/organizations"
DAY_S = 86_400


@pytest.fixture
def webhook_events(company: Company) -> list[Event]:
    """Return the events of webhooks, in order."""
    events: list[Event] = []
    company.listeners.append(events.append)
    return events


def person(api: Api, **members: Any) -> int:
    return int(api.ok("POST", PERSONS, members)["id"])


def organization(api: Api, **members: Any) -> int:
    return int(api.ok("POST", ORGANIZATIONS, members)["id"])


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
def test_the_record_in_the_path_is_deleted_and_the_other_stays(api: Api, prefix: str) -> None:
    loser, survivor = person(api, name="Jane Doe"), person(api, name="Joan Roe")

    answer = api.call("PUT", f"{prefix}/persons/{loser}/merge", {"merge_with_id": survivor})

    body = answer.get_json()
    assert spec.problems(1, "put", "/persons/{id}/merge", answer.status_code, body) == []
    assert (body["data"]["id"], body["data"]["merge_what_id"], body["data"]["name"]) == (survivor, loser, "Joan Roe")
    assert body["data"]["add_time"] == "2026-03-01 12:00:00"
    assert api.error("GET", f"{PERSONS}/{loser}")[0] == 404
    assert api.ok("GET", PERSONS, ids=f"{loser},{survivor}") == [api.ok("GET", f"{PERSONS}/{survivor}")]


def test_the_survivor_wins_and_takes_what_it_lacks(api: Api, company: Company) -> None:
    title, remarks = code(company, "person", "Job title"), code(company, "person", "Remarks")
    emails = [{"value": "jane@doe.test", "primary": True, "label": "work"}]
    phones = [{"value": "+372 1", "primary": True, "label": "work"}]
    loser = person(api, name="Jane Doe", emails=emails, phones=phones, custom_fields={title: "Captain", remarks: "old"})
    survivor = person(api, name="Joan", emails=[{"value": "joan@roe.test"}], custom_fields={remarks: "new"})

    api.ok("PUT", f"/v1/persons/{loser}/merge", {"merge_with_id": survivor})

    kept = api.ok("GET", f"{PERSONS}/{survivor}")
    assert (kept["name"], kept["first_name"], kept["last_name"]) == ("Joan", "Joan", None)
    assert ([email["value"] for email in kept["emails"]], kept["phones"]) == (["joan@roe.test"], phones)
    assert (kept["custom_fields"][title], kept["custom_fields"][remarks]) == ("Captain", "new")


def test_a_merge_is_sent_as_a_delete_and_a_change(api: Api, webhook_events: list[Event], clock: Clock) -> None:
    loser, survivor = person(api, name="Jane"), person(api, name="Joan")
    webhook_events.clear()
    clock.now += 5

    api.ok("PUT", f"/v1/persons/{loser}/merge", {"merge_with_id": survivor})

    assert [(event.action, event.id, event.merged_to, event.merged_from) for event in webhook_events] == [
        ("delete", loser, survivor, None),
        ("change", survivor, None, loser),
    ]
    assert api.ok("GET", f"{PERSONS}/{survivor}")["update_time"] == "2026-03-01T12:00:05Z"


def test_webhooks_name_the_other_record_of_a_merge(api: Api, company: Company, webhook_events: list[Event]) -> None:
    loser, survivor = person(api, name="Jane"), person(api, name="Joan")
    company.merge("person", loser, survivor)
    subscription = {"id": 1, "owner_id": 1, "type": "general", "version": "2.0"}

    made, _, gone, changed = (payload(company, event, subscription)["meta"] for event in webhook_events)

    assert (gone["merged_to_id"], changed["merged_from_id"]) == (str(survivor), str(loser))
    named = [{name for name in meta if name.startswith("merged_")} for meta in (made, gone, changed)]
    assert named == [set(), {"merged_to_id"}, {"merged_from_id"}]


def test_an_organizations_persons_move_with_it(api: Api, webhook_events: list[Event]) -> None:
    loser, survivor = organization(api, name="Acme"), organization(api, name="Acme Ltd")
    member = person(api, name="Jane", org_id=loser)
    webhook_events.clear()

    answer = api.call("PUT", f"/v1/organizations/{loser}/merge", {"merge_with_id": survivor})

    assert spec.problems(1, "put", "/organizations/{id}/merge", answer.status_code, answer.get_json()) == []
    assert answer.get_json()["data"] == {"id": survivor}
    assert api.ok("GET", f"{PERSONS}/{member}")["org_id"] == survivor
    assert [(event.action, event.entity, event.id) for event in webhook_events] == [
        ("delete", "organization", loser),
        ("change", "person", member),
        ("change", "organization", survivor),
    ]


def test_persons_may_move_without_a_word(api: Api, webhook_events: list[Event], clock: Clock) -> None:
    loser, survivor = organization(api, name="Acme"), organization(api, name="Acme Ltd")
    member = person(api, name="Jane", org_id=loser)
    api.client.post("/__sandbox__/behaviour", json={"move_persons_aloud": False})
    webhook_events.clear()
    clock.now += 60

    api.ok("PUT", f"/v1/organizations/{loser}/merge", {"merge_with_id": survivor})

    moved = api.ok("GET", f"{PERSONS}/{member}")
    assert (moved["org_id"], moved["update_time"]) == (survivor, None)
    assert {event.entity for event in webhook_events} == {"organization"}


@pytest.mark.parametrize(("merge_with_id", "status"), [("7", 400), (None, 400), (True, 400), (999_999, 404), (1, 400)])
def test_a_merge_that_cannot_be_is_refused(
    api: Api, company: Company, merge_with_id: Any, status: int, webhook_events: list[Event]
) -> None:
    assert company.record("person", 1) is not None

    assert api.error("PUT", "/v1/persons/1/merge", {"merge_with_id": merge_with_id})[0] == status
    assert webhook_events == []


def test_merging_costs_forty_tokens(api: Api) -> None:
    loser, survivor = person(api, name="Jane"), person(api, name="Joan")
    before = api.client.get("/__sandbox__/stats").get_json()["tokens_total"]

    api.ok("PUT", f"/v1/persons/{loser}/merge", {"merge_with_id": survivor})

    spent = api.client.get("/__sandbox__/stats").get_json()["tokens_total"] - before
    assert spent == spec.token_cost(1, "put", "/persons/{id}/merge") == 40


def test_a_merged_record_does_not_come_back(api: Api, company: Company) -> None:
    loser, survivor = person(api, name="Jane"), person(api, name="Joan")
    stayed = api.client.post(
        "/__sandbox__/merge", json={"entity": "person", "id": loser, "merge_with_id": survivor}
    ).get_json()

    assert stayed["data"]["id"] == survivor
    assert not company.undelete("person", loser)
    assert api.error("PUT", f"/v1/persons/{loser}/merge", {"merge_with_id": survivor})[0] == 404


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_what_is_gone_may_answer_410(api: Api, company: Company, method: str) -> None:
    company.behaviour.gone_status = 410
    api.ok("DELETE", f"{PERSONS}/{person(api, name='Jane')}")
    gone = company.count("person") and api.ok("DELETE", f"{PERSONS}/{person(api, name='Joan')}")["id"]

    assert api.error(method, f"{PERSONS}/{gone}", {} if method == "PATCH" else None)[0] == 410
    assert api.error(method, f"{PERSONS}/999999", {} if method == "PATCH" else None)[0] == 404


def test_a_deleted_record_can_be_brought_back(api: Api, webhook_events: list[Event], clock: Clock) -> None:
    record_id = person(api, name="Jane Doe")
    api.ok("DELETE", f"{PERSONS}/{record_id}")
    webhook_events.clear()
    clock.now += 30

    back = api.call("POST", "/__sandbox__/undelete", {"entity": "person", "id": record_id})

    assert back.status_code == 200
    found = api.ok("GET", f"{PERSONS}/{record_id}")
    assert (found["name"], found["is_deleted"], found["update_time"]) == ("Jane Doe", False, "2026-03-01T12:00:30Z")
    [event] = webhook_events
    assert (event.action, event.source) == ("change", "app")
    assert api.call("POST", "/__sandbox__/undelete", {"entity": "person", "id": record_id}).status_code == 404


@pytest.mark.parametrize(("action", "sent_actions"), [("create", ["create"]), (None, [])])
def test_the_event_of_a_restored_record_can_be_set(
    api: Api, company: Company, webhook_events: list[Event], action: Any, sent_actions: list[str]
) -> None:
    record_id = person(api, name="Jane Doe")
    api.ok("DELETE", f"{PERSONS}/{record_id}")
    company.behaviour.undelete_event = action
    webhook_events.clear()

    assert company.undelete("person", record_id)
    assert [event.action for event in webhook_events] == sent_actions
    assert all(event.before is None for event in webhook_events)


def test_thirty_days_are_the_limit(api: Api, company: Company, clock: Clock) -> None:
    first, second = person(api, name="Jane"), person(api, name="Joan")
    company.delete("person", first)
    clock.now += DAY_S
    company.delete("person", second)

    clock.now += 29 * DAY_S
    assert not company.undelete("person", first)
    purged = api.client.post("/__sandbox__/purge").get_json()

    assert purged["data"]["purged"] > 0
    assert not company.was_deleted("person", first)
    assert company.undelete("person", second)


def test_ids_are_never_given_twice(api: Api, company: Company, clock: Clock) -> None:
    last = person(api, name="Jane")
    company.delete("person", last)
    clock.now += 31 * DAY_S

    assert company.purge() > 0
    assert person(api, name="Joan") == last + 1


def test_a_switch_of_behaviour_that_is_not_there_is_refused(api: Api) -> None:
    assert api.call("POST", "/__sandbox__/behaviour", {"colour": "red"}).status_code == 400
    assert api.client.get("/__sandbox__/behaviour").get_json()["gone_status"] == 404
