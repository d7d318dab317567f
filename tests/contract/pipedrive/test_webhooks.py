"""Webhooks: managing subscriptions, and what a subscriber is sent."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import requests

from sandbox.company import Company
from sandbox.pipedrive.app import PipedriveApp, create_app
from tests.contract.pipedrive.conftest import Api, Clock, code
from tests.contract.pipedrive.receiver import BODY, HOOKS, ORIGIN, Receiver
from tests.wsgi_adapter import session_for


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def hooked(company: Company, receiver: Receiver) -> PipedriveApp:
    app = create_app(company, webhook_session=session_for({ORIGIN: receiver}))
    app.delivery.schedule.threads = 0  # several would shuffle what a test wants to read in order
    return app


@pytest.fixture
def hooked_api(hooked: PipedriveApp) -> Api:
    return Api(hooked.test_client())


def sent(app: PipedriveApp, receiver: Receiver) -> list[dict[str, Any]]:
    app.delivery.drain()
    return receiver.payloads()


def test_a_subscription_is_made_listed_and_dropped(api: Api) -> None:
    answer = api.call("POST", HOOKS, BODY)

    made = answer.get_json()["data"]
    assert answer.status_code == 201
    assert made["version"] == "2.0"
    assert api.call("GET", "/v1/webhooks").get_json()["data"] == [made]
    assert api.call("DELETE", f"{HOOKS}/{made['id']}").get_json() == {"status": "ok", "success": True}
    assert api.call("DELETE", f"{HOOKS}/{made['id']}").get_json()["errors"] == {"id": ["not found"]}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"subscription_url": "ftp://x.test"}, "subscription_url"),
        ({"subscription_url": "https://acme.pipedrive.com/x"}, "subscription_url"),
        ({"event_action": "updated"}, "event_action"),
        ({"event_object": "contact"}, "event_object"),
        ({"name": ""}, "name"),
        ({"version": "3.0"}, "version"),
    ],
)
def test_a_subscription_that_is_wrong_is_refused(api: Api, change: dict[str, str], named: str) -> None:
    answer = api.call("POST", HOOKS, {**BODY, **change})

    assert answer.status_code == 400
    assert list(answer.get_json()["errors"]) == [named]


def test_forty_subscriptions_are_the_limit(api: Api) -> None:
    statuses = [api.call("POST", HOOKS, {**BODY, "name": str(n)}).status_code for n in range(41)]

    assert statuses == [201] * 40 + [422]


def test_each_change_is_sent_once(hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, clock: Clock) -> None:
    hook = hooked_api.ok("POST", HOOKS, BODY)
    created = hooked_api.ok("POST", "/api/v2/persons", {"name": "Jane Doe"})
    clock.now += 1.25
    updated = hooked_api.ok("PATCH", f"/api/v2/persons/{created['id']}", {"name": "Jane Roe"})
    hooked_api.ok("DELETE", f"/api/v2/persons/{created['id']}")

    made, changed, deleted = sent(hooked, receiver)

    assert (made["meta"]["action"], made["previous"], made["data"]["name"]) == ("create", None, "Jane Doe")
    assert changed["previous"] == {"name": "Jane Doe", "last_name": "Doe", "update_time": None}
    assert changed["data"]["update_time"] == updated["update_time"] == "2026-03-01T12:00:01Z"
    assert (deleted["meta"]["action"], deleted["data"], deleted["previous"]["name"]) == ("delete", None, "Jane Roe")
    assert changed["meta"]["timestamp"] == "2026-03-01T12:00:01.250Z"
    assert changed["meta"]["entity_id"] == str(created["id"])
    assert changed["meta"]["webhook_id"] == str(hook["id"])
    assert (changed["meta"]["version"], changed["meta"]["attempt"]) == ("2.0", 1)
    assert changed["data"]["visible_to"] == "3"
    assert len({payload["meta"]["id"] for payload in (made, changed, deleted)}) == 3


def test_a_delivery_carries_the_password(hooked: PipedriveApp, hooked_api: Api, receiver: Receiver) -> None:
    hooked_api.ok("POST", HOOKS, BODY)
    hooked_api.ok("PATCH", "/api/v2/persons/1", {"name": "New Name"})
    hooked.delivery.drain()

    [(environ, _)] = receiver.got
    assert environ["HTTP_AUTHORIZATION"] == "Basic " + base64.b64encode(b"etl:secret").decode()
    assert environ["CONTENT_TYPE"] == "application/json"
    assert environ["HTTP_USER_AGENT"] == "Pipedrive-Webhook"


@pytest.mark.parametrize(
    ("action", "entity", "hits"),
    [("*", "*", 2), ("change", "person", 1), ("create", "person", 0), ("*", "organization", 1), ("*", "deal", 0)],
)
def test_a_subscriber_gets_what_it_asked_for(
    hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, action: str, entity: str, hits: int
) -> None:
    hooked_api.ok("POST", HOOKS, {**BODY, "event_action": action, "event_object": entity})

    hooked_api.ok("PATCH", "/api/v2/persons/1", {"name": "New Name"})
    hooked_api.ok("PATCH", "/api/v2/organizations/1", {"name": "New Name"})

    assert len(sent(hooked, receiver)) == hits


def test_an_edit_without_a_change_is_not_sent(hooked: PipedriveApp, hooked_api: Api, receiver: Receiver) -> None:
    hooked_api.ok("POST", HOOKS, BODY)
    name = hooked_api.ok("GET", "/api/v2/persons/1")["name"]

    hooked_api.ok("PATCH", "/api/v2/persons/1", {"name": name})

    assert sent(hooked, receiver) == []


def test_an_edit_by_hand_comes_from_the_app(hooked: PipedriveApp, hooked_api: Api, receiver: Receiver) -> None:
    hooked_api.ok("POST", HOOKS, BODY)

    hooked_api.ok("POST", "/__sandbox__/edit", {"entity": "person", "id": 1, "fields": {"name": "By Hand"}})
    made = hooked_api.ok("POST", "/__sandbox__/create", {"entity": "person", "fields": {"name": "By Hand"}})
    hooked_api.call("POST", "/__sandbox__/delete", {"entity": "person", "id": made["id"]})

    sources = [(payload["meta"]["action"], payload["meta"]["change_source"]) for payload in sent(hooked, receiver)]
    assert sources == [("change", "app"), ("create", "app"), ("delete", "app")]


def test_custom_values_travel_in_shapes_of_their_own(
    hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, company: Company
) -> None:
    options = {field.name: [option.id for option in field.options] for field in company.custom_fields("person")}
    values: dict[str, tuple[Any, dict[str, Any]]] = {
        "Job title": ("Captain", {"type": "varchar", "value": "Captain"}),
        "Remarks": ("text", {"type": "text", "value": "text"}),
        "Greeting": ("Hi", {"type": "varchar_auto", "value": "Hi"}),
        "Direct line": ("+1", {"type": "phone", "value": "+1"}),
        "Lead score": (123, {"type": "double", "value": 123}),
        "Credit limit": (
            {"value": 200, "currency": "EUR"},
            {"type": "monetary", "value": 200, "currency": "EUR"},
        ),
        "Lead source": (options["Lead source"][0], {"type": "enum", "id": options["Lead source"][0]}),
        "Interests": (
            options["Interests"][:2],
            {"type": "set", "values": [{"id": option} for option in options["Interests"][:2]]},
        ),
        "Account manager": (company.users[1].id, {"type": "user", "id": company.users[1].id}),
        "Referred by": (3, {"type": "people", "id": 3}),
        "Previous employer": (2, {"type": "org", "id": 2}),
        "Customer since": ("2023-06-27", {"type": "date", "value": "2023-06-27"}),
        "Contract period": (
            {"value": "2023-01-01", "until": "2023-02-01"},
            {"type": "daterange", "from": "2023-01-01", "until": "2023-02-01"},
        ),
        "Preferred call time": (
            {"value": "00:45:00", "timezone_id": 310},
            {"type": "time", "value": "00:45:00", "timezone_id": 310},
        ),
        "Office hours": (
            {"value": "09:00:00", "until": "11:00:00", "timezone_id": 310},
            {"type": "timerange", "from": "09:00:00", "until": "11:00:00", "timezone_id": 310},
        ),
    }
    created = hooked_api.ok("POST", "/api/v2/persons", {"name": "Jane"})
    hooked_api.ok("POST", HOOKS, BODY)
    codes = {name: code(company, "person", name) for name in values}

    written = {codes[name]: value for name, (value, _) in values.items()}
    hooked_api.ok("PATCH", f"/api/v2/persons/{created['id']}", {"custom_fields": written})

    [payload] = sent(hooked, receiver)
    assert payload["data"]["custom_fields"] == {codes[name]: shape for name, (_, shape) in values.items()}
    assert payload["previous"]["custom_fields"] == dict.fromkeys(codes.values())


def test_an_address_is_flat_and_its_missing_parts_are_empty(
    hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, company: Company
) -> None:
    field = code(company, "person", "Delivery address")
    created = hooked_api.ok("POST", "/api/v2/persons", {"name": "Jane"})
    hooked_api.ok("POST", HOOKS, BODY)

    hooked_api.ok("PATCH", f"/api/v2/persons/{created['id']}", {"custom_fields": {field: {"value": "Tallinn"}}})

    [payload] = sent(hooked, receiver)
    address = payload["data"]["custom_fields"][field]
    assert (address["type"], address["value"], address["locality"]) == ("address", "Tallinn", "")


@pytest.mark.parametrize(("status", "delivered"), [("200 OK", True), ("302 Found", False), ("500 Oops", False)])
def test_a_subscription_remembers_its_last_delivery(
    hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, status: str, delivered: bool
) -> None:
    hooked_api.ok("POST", HOOKS, BODY)
    receiver.status = status

    hooked_api.ok("PATCH", "/api/v2/persons/1", {"name": "New Name"})

    assert len(sent(hooked, receiver)) == 1
    [hook] = hooked_api.ok("GET", HOOKS)
    assert hook["last_http_status"] == int(status[:3])
    assert (hook["last_delivery_time"] is not None) == delivered


def test_an_unreachable_subscriber_does_not_affect_others(company: Company) -> None:
    session = requests.Session()
    session.adapters.clear()
    app = create_app(company, webhook_session=session)
    api = Api(app.test_client())
    api.ok("POST", HOOKS, BODY)

    api.ok("PATCH", "/api/v2/persons/1", {"name": "New Name"})
    app.delivery.drain()

    assert api.ok("GET", HOOKS)[0]["last_http_status"] is None


def test_deleting_an_organization_sends_its_persons_too(
    hooked: PipedriveApp, hooked_api: Api, receiver: Receiver
) -> None:
    person = next(p for p in hooked_api.walk("/api/v2/persons", limit=500) if p["org_id"])
    hooked_api.ok("POST", HOOKS, BODY)

    hooked_api.ok("DELETE", f"/api/v2/organizations/{person['org_id']}")

    sources = [(p["meta"]["action"], p["meta"]["entity"], p["meta"]["entity_id"]) for p in sent(hooked, receiver)]
    assert sources[0] == ("delete", "organization", str(person["org_id"]))
    assert ("change", "person", str(person["id"])) in sources
