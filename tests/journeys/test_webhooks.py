"""A webhook of a change in Pipedrive: delivery, change, batch, Hull; missing values are read again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.clients.hull import HullClient
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.pipedrive_records import age_records, create_records, hull_names, pipedrive_names
from tests.logs import captured_log
from tests.prepared import prepared
from tests.system import SyncSystem


@prepared
def five_persons(system: SyncSystem) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)


@pytest.fixture
def webhooks(system: SyncSystem) -> list[dict[str, Any]]:
    """Create five Persons in both systems, and return a list that collects Pipedrive's webhooks."""
    five_persons(system)
    return listen(system)


def requests(system: SyncSystem) -> dict[str, int]:
    return {name: count for name, count in system.pipedrive.ledger.requests.items() if count}


def custom(system: SyncSystem, name: str) -> str:
    return next(field.code for field in system.company.custom_fields("person") if field.name == name)


def since_then(system: SyncSystem) -> list[Any]:
    query = "SELECT event, reason, cause, pipedrive_id FROM sync_events WHERE cause <> 'fetch' ORDER BY id"
    return [tuple(row) for row in system.rows(query)]


@pytest.mark.guide("Incoming Accounts", "Pipedrive sends a webhook for every new and every changed Organization.")
@pytest.mark.guide(
    "Incoming Users",
    "Pipedrive sends a webhook for every new and every changed Person, and the change is in Hull within seconds.",
)
@pytest.mark.guide("Incoming Users", "Webhooks are not filtered either.")
def test_a_new_person_in_pipedrive_becomes_a_user_in_hull(system: SyncSystem) -> None:
    system.change_settings(
        synchronized_user_segments=["vip"], synchronized_account_segments=["vip"]
    )  # for outgoing only
    system.fetch(Entity.PERSON)
    payloads = listen(system)
    system.company.create_organization(name="Acme")
    system.company.create_person(name="Ada", emails=[{"value": "Ada@Example.com", "primary": True}], org_id=1)

    deliver(system, *payloads)
    system.work()

    user, account = system.users()[1], system.accounts()[1]
    assert (user["email"], user["pipedrive/name"]) == ("ada@example.com", "Ada")
    assert (account["pipedrive/name"], user["account_id"]) == ("Acme", account["id"])
    assert [tuple(row) for row in system.rows("SELECT state, reason FROM deliveries")] == [("processed", None)] * 2
    assert system.rows("SELECT 1 FROM changes") == []

    system.company.edit_organization(1, name="Acme Inc.")
    deliver(system, payloads[-1])
    system.work()
    assert system.accounts()[1]["pipedrive/name"] == "Acme Inc."


@pytest.mark.guide(
    "Incoming Users",
    "Pipedrive sends a webhook for every new and every changed Person, and the change is in Hull within seconds.",
)
def test_a_whole_payload_costs_no_request(system: SyncSystem, webhooks: list[Any]) -> None:
    before = requests(system)
    system.company.edit_person(3, name="Edited", emails=[{"value": "new@example.com", "primary": True}])

    deliver(system, *webhooks)
    with captured_log("info") as lines:
        system.work()

    assert requests(system) == before
    assert (system.users()[3]["pipedrive/name"], system.users()[3]["email"]) == ("Edited", "new@example.com")
    assert since_then(system) == [("incoming.user.success", None, "webhook", 3)]
    mine = [line for line in lines if line["event"] == "incoming.user.success"]
    assert [(line["pipedrive_id"], line["effect"]) for line in mine] == [(3, "changed")]


def test_repeated_deliveries_coalesce_into_one_change(system: SyncSystem, webhooks: list[Any]) -> None:
    for name in ("One", "Two", "Three"):
        system.company.edit_person(3, name=name)
    sent_before = system.hull.received.count

    deliver(system, *webhooks, *webhooks)
    system.work()

    assert len(system.rows("SELECT 1 FROM deliveries")) == 3
    assert hull_names(system)[3] == "Three"
    assert system.hull.received.count == sent_before + 1


def test_a_change_delivered_twice_is_sent_once(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    deliver(system, *webhooks)
    system.work()
    sent_before, logged = system.hull.received.count, len(system.events())

    webhooks[0]["meta"]["id"] = "another delivery of the same"
    deliver(system, *webhooks)
    system.work()

    assert (system.hull.received.count, len(system.events())) == (sent_before, logged)


def test_a_custom_field_the_webhook_leaves_open_is_read_again(system: SyncSystem) -> None:
    """Webhooks omit unset custom fields: only a read shows whether one was emptied."""
    code = custom(system, "Customer number")
    system.change_settings(incoming_user_attributes=[{"hull": "number", "service": code}])
    system.company.create_person(name="Ada", custom_fields={code: "C-1"})
    age_records(system)
    system.fetch(Entity.PERSON)
    payloads = listen(system)
    system.company.edit_person(1, name="Ada L.")
    del payloads[0]["data"]["custom_fields"][code]
    before = requests(system)["list"]

    deliver(system, *payloads)
    system.work()

    assert requests(system)["list"] == before + 1
    assert system.users()[1]["number"] == "C-1"


def test_a_custom_field_that_was_emptied_is_cleared_in_hull(system: SyncSystem) -> None:
    code = custom(system, "Customer number")
    system.change_settings(incoming_user_attributes=[{"hull": "number", "service": code}])
    system.company.create_person(name="Ada", custom_fields={code: "C-1"})
    age_records(system)
    system.fetch(Entity.PERSON)
    payloads = listen(system)
    before = requests(system)["list"]
    system.company.edit_person(1, custom_fields={code: None})

    deliver(system, *payloads)
    system.work()

    assert system.users()[1].get("number") is None
    assert requests(system)["list"] == before


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_field_webhooks_never_carry_is_not_lost(system: SyncSystem, snapshot: bool) -> None:
    """`open_deals_count` comes only when it is asked for, and never with a webhook."""
    system.change_settings(
        incoming_user_attributes=[
            {"hull": "name", "service": "name"},
            {"hull": "deals", "service": "open_deals_count"},
        ]
    )
    payloads = listen(system)
    system.company.create_person(name="Ada")
    if snapshot:
        system.fetch(Entity.PERSON)
    fetched = system.company.edit_person(1, name="Ada L.")
    assert fetched is not None

    deliver(system, *payloads)
    system.work()
    by_webhook = dict(system.users()[1])
    system.fetch(Entity.PERSON)

    assert by_webhook["name"] == "Ada L."
    assert by_webhook.get("deals") is not None
    assert by_webhook["deals"] == system.users()[1]["deals"]
    assert [event for event in system.events() if event[1] is not None] == []


def test_a_reading_by_id_and_a_fetch_of_one_state_are_the_same(system: SyncSystem) -> None:
    """Otherwise every re-read would be undone by the next fetch, and the other way round."""
    rows = [{"hull": name, "service": name} for name in ("name", "open_deals_count", "smart_bcc_email", "add_time")]
    system.change_settings(incoming_user_attributes=rows)
    create_records(system, persons=3, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    payloads = listen(system)
    system.company.edit_person(2, name="Edited")
    payloads[0]["data"]["update_time"] = "2020-01-01T00:00:00Z"
    deliver(system, *payloads)
    system.work()
    sent = system.hull.received.count

    run = system.fetch(Entity.PERSON, changed_only=True)

    assert (run.changed, run.new) == (0, 0)
    assert system.hull.received.count == sent


def test_a_webhook_and_a_fetch_of_one_state_are_the_same(system: SyncSystem) -> None:
    rows = [{"hull": field.code, "service": field.code} for field in system.company.custom_fields("person")]
    system.change_settings(incoming_user_attributes=[*rows, {"hull": "name", "service": "name"}])
    from sandbox.company import Company  # noqa: PLC0415

    filled = Company(seed=11, persons=20, organizations=5)
    for body in filled.export("person"):
        system.company.load("person", json.loads(body))
    age_records(system)
    system.fetch(Entity.PERSON)
    payloads = listen(system)
    for number in pipedrive_names(system):
        system.company.edit_person(number, name=f"Edited {number}")
    before = requests(system)["list"]
    deliver(system, *payloads)
    system.work()
    sent, listed = system.hull.received.count, requests(system)["list"]

    run = system.fetch(Entity.PERSON, changed_only=True)

    assert run.changed == 0
    assert system.hull.received.count == sent
    assert listed <= before + 1


def test_a_missing_record_is_reported_and_not_retried(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    system.company.delete_person(3)

    deliver(system, *webhooks)
    system.work()

    assert since_then(system) == [("incoming.user.skip", "deletion_not_supported", "webhook", 3)]
    assert system.rows("SELECT 1 FROM changes") == []
    assert system.rows("SELECT 1 FROM failures") == []


@pytest.mark.guide(
    "Supported Objects",
    "Nothing else is synchronized: a webhook about a deal, for example, is only logged.",
)
def test_what_is_not_synchronized_is_refused_by_name(system: SyncSystem) -> None:
    deal = {"meta": {"entity": "deal", "action": "change", "entity_id": "5", "timestamp": "2026-01-01T00:00:00.000Z"}}

    deliver(system, deal)
    system.work()

    assert [tuple(row) for row in system.rows("SELECT state, reason FROM deliveries")] == [
        ("refused", "not_synchronized")
    ]
    assert system.events() == [("incoming.job.skip", "not_synchronized", None)]


MALFORMED: list[Any] = [
    b"not json",
    b"",
    b"\xff\xfe",
    b"[]",
    b"null",
    b'"text"',
    b"[" * 5000,
    {},
    {"meta": None},
    {"meta": {"entity": "person"}},
    {"meta": {"entity": "person", "action": "change", "entity_id": "abc", "timestamp": "x"}},
    {"meta": {"entity": "person", "action": "explode", "entity_id": "1", "timestamp": "2026-01-01T00:00:00.000Z"}},
    {"meta": {"entity": ["person"], "action": {}, "entity_id": [], "timestamp": []}},
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: str(body)[:40])
def test_a_malformed_delivery_delays_no_other(system: SyncSystem, webhooks: list[Any], body: Any) -> None:
    system.company.edit_person(3, name="Edited")

    deliver(system, body, *webhooks)
    system.work()

    assert hull_names(system)[3] == "Edited"
    states = [row.state for row in system.rows("SELECT state FROM deliveries ORDER BY id")]
    assert states == ["refused", "processed"]
    (event,) = system.rows(
        "SELECT event, reason, detail FROM sync_events WHERE reason IN ('webhook_malformed', 'webhook_without_id')"
    )
    assert event.event == "incoming.job.error"
    assert event.detail.startswith("delivery 1: ")


def soon() -> str:
    """Return a time after all changes, but not too far in the future."""
    return (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


META = {"entity": "person", "action": "change", "entity_id": "3", "timestamp": soon(), "id": "odd"}
HALF: list[Any] = [
    {"meta": META},
    {"meta": META, "data": None},
    {"meta": META, "data": []},
    {"meta": META, "data": {"id": 4}},
    {"meta": META, "data": {"id": 3}, "previous": "text"},
    {"meta": META, "data": {"id": 3, "custom_fields": "text"}},
    {"meta": META, "data": {"id": 3, "update_time": "never"}},
    {
        "meta": META,
        "data": {"id": 3, "update_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "name": "Fal\x00se"},
        "previous": {"custom_fields": [1]},
    },
]


@pytest.mark.parametrize(
    "body", HALF, ids=["no data", "null", "list", "other id", "previous text", "custom text", "no time", "odd values"]
)
def test_a_payload_that_cannot_be_used_is_only_a_hint(system: SyncSystem, webhooks: list[Any], body: Any) -> None:
    """Its head names a record: that is read again, and the others of its batch go on."""
    system.company.edit_person(2, name="Neighbour")
    system.company.edit_person(3, name="Edited")

    deliver(system, webhooks[0], body)
    system.work()

    assert hull_names(system) == pipedrive_names(system)
    assert system.rows("SELECT 1 FROM failures") == []
    assert system.rows("SELECT 1 FROM changes") == []


def test_a_malformed_record_in_a_webhook_leaves_the_others_alone(system: SyncSystem, webhooks: list[Any]) -> None:
    for number in (2, 3, 4):
        system.company.edit_person(number, name=f"Edited {number}")
    webhooks[1]["data"]["name"] = "Od\ud800d"

    deliver(system, *webhooks)
    system.work()

    assert (hull_names(system)[2], hull_names(system)[4]) == ("Edited 2", "Edited 4")
    assert [event for event in since_then(system) if event[1]] == [
        ("incoming.user.error", "unusable_text", "webhook", 3)
    ]


def test_a_newer_delivery_while_the_batch_is_at_work_is_not_lost(
    system: SyncSystem, webhooks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    system.company.edit_person(3, name="First")
    deliver(system, webhooks[0])
    real, once = HullClient.post_batches, []

    def send_more(self: Any, *args: Any, **options: Any) -> Any:
        if not once:
            once.append(1)
            system.company.edit_person(3, name="Second")
            webhooks[1]["data"]["update_time"] = soon()
            deliver(system, webhooks[1])
            system.module("sync.changes.dispatch").dispatch_changes()
        return real(self, *args, **options)

    monkeypatch.setattr(HullClient, "post_batches", send_more)
    system.work()

    assert hull_names(system)[3] == "Second"
    assert system.rows("SELECT 1 FROM changes") == []
    assert len(system.rows("SELECT 1 FROM batches WHERE queue = 'live'")) == 2


def test_one_record_is_never_in_two_batches_at_once(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="First")
    deliver(system, webhooks[0])
    system.module("sync.changes.dispatch").dispatch_changes()
    system.company.edit_person(3, name="Second")
    deliver(system, webhooks[1])

    made = system.module("sync.changes.dispatch").dispatch_changes()

    assert made == 0
    assert [tuple(row) for row in system.rows("SELECT revision, claimed_revision FROM changes")] == [(2, 1)]


def test_a_failed_batch_does_not_block_a_later_delivery(
    system: SyncSystem, webhooks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    system.company.edit_person(3, name="First")
    deliver(system, webhooks[0])
    with monkeypatch.context() as patch:
        patch.setattr(system.module("tasks.incoming"), "transform_batch", lambda _batch: 1 / 0)
        system.work()
    system.company.edit_person(3, name="Second")

    deliver(system, webhooks[1])
    system.work()

    assert hull_names(system)[3] == "Second"
    (failure,) = system.rows("SELECT reason, stage FROM failures WHERE state = 'open'")
    assert tuple(failure) == ("internal_error", "transform")


def test_a_webhook_before_any_fetch_delivers_what_a_fetch_would(system: SyncSystem) -> None:
    """Without the field definitions an option would arrive as its number, and the next fetch would change it."""
    code = custom(system, "Lead source")
    options = next(field for field in system.company.custom_fields("person") if field.code == code).options
    system.change_settings(incoming_user_attributes=[{"hull": "source", "service": code}])
    payloads = listen(system)
    system.company.create_person(name="Ada", custom_fields={code: options[0].id})

    deliver(system, *payloads)
    system.work()
    by_webhook = system.users()[1].get("source")
    run = system.fetch(Entity.PERSON, changed_only=True)

    assert by_webhook == options[0].label
    assert (run.changed, system.users()[1]["source"]) == (0, options[0].label)


def test_half_a_surrogate_pair_in_an_unmapped_field_stops_nothing(system: SyncSystem) -> None:
    create_records(system, persons=2, organizations=0)
    record = system.company.record("person", 1)
    assert record is not None
    system.company.put_raw("person", {**record, "nickname": "Od\ud800d"})
    age_others = system.fetch(Entity.PERSON)
    payloads = listen(system)
    for number in (1, 2):
        system.company.edit_person(number, name=f"Edited {number}")
        payloads[-1]["data"]["update_time"] = soon()

    deliver(system, *payloads)
    system.work()

    assert age_others.state == "done"
    assert hull_names(system) == {1: "Edited 1", 2: "Edited 2"}


def test_many_changes_are_read_a_hundred_to_a_request(system: SyncSystem) -> None:
    create_records(system, persons=230, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    payloads = listen(system)
    for number in range(1, 231):
        system.company.edit_person(number, name=f"Edited {number}")
    for webhook in payloads:
        webhook["data"]["update_time"] = "2020-01-01T00:00:00Z"
    before = requests(system)["list"]

    deliver(system, *payloads)
    system.work()

    assert requests(system)["list"] - before == 3
    assert hull_names(system) == pipedrive_names(system)


def test_organizations_are_carried_over_before_persons(system: SyncSystem) -> None:
    payloads = listen(system)
    system.company.create_person(name="Ada")
    system.company.create_organization(name="Acme")

    deliver(system, *payloads)
    system.module("sync.changes.dispatch").dispatch_changes()

    assert [row.entity for row in system.rows("SELECT entity FROM batches ORDER BY id")] == ["organization", "person"]


def test_a_webhook_without_changes_costs_no_request(system: SyncSystem, webhooks: list[Any]) -> None:
    """The echo of a write of ours has the very second of the answer that was carried over."""
    system.company.edit_person(3, name="Edited")
    deliver(system, webhooks[0])
    system.work()
    before, sent = requests(system), system.hull.received.count

    webhooks[0]["meta"]["id"] = "the same once more"
    deliver(system, webhooks[0])
    system.work()

    assert requests(system) == before
    assert system.hull.received.count == sent


def test_another_content_of_the_same_second_is_read_again(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    deliver(system, webhooks[0])
    system.work()
    before = requests(system)["list"]

    webhooks[0]["meta"]["id"] = "another"
    webhooks[0]["data"]["name"] = "Never there"
    deliver(system, webhooks[0])
    system.work()

    assert requests(system)["list"] == before + 1
    assert hull_names(system)[3] == "Edited"


@pytest.mark.guide(
    "Incoming Users",
    "A User that was created by the webhook of its new Person has pipedrive/created_by_webhook.",
)
@pytest.mark.defect(15, "The mark of Users that a webhook created never reached Hull.")
def test_a_user_created_by_a_webhook_names_its_cause(system: SyncSystem, webhooks: list[Any]) -> None:
    """A Person created and edited before it was read still counts as created by webhook. Others and Accounts do not."""
    ada = system.company.create_person(name="Ada")["id"]
    system.company.edit_person(ada, name="Ada Lovelace")
    acme = system.company.create_organization(name="Acme")["id"]
    system.company.edit_person(3, name="Edited")

    deliver(system, *webhooks)
    system.work()

    marked = {number for number, user in system.users().items() if user.get("pipedrive/created_by_webhook") is True}
    assert (marked, hull_names(system)[ada]) == ({ada}, "Ada Lovelace")
    assert "pipedrive/created_by_webhook" not in system.accounts()[acme]


def test_a_fetch_leaves_the_mark_of_the_webhook_as_it_is(system: SyncSystem, webhooks: list[Any]) -> None:
    ada = system.company.create_person(name="Ada")["id"]
    deliver(system, *webhooks)
    system.work()

    run = system.fetch(Entity.PERSON, changed_only=True)
    system.company.edit_person(ada, name="Ada Lovelace")
    system.fetch(Entity.PERSON)

    assert run.changed == 0
    assert system.users()[ada]["pipedrive/created_by_webhook"] is True


@pytest.mark.guide(
    "Incoming Users",
    "A User that was created by the webhook of its new Person has pipedrive/created_by_webhook.",
)
def test_a_person_that_a_fetch_brought_first_was_not_created_by_webhook(
    system: SyncSystem, webhooks: list[Any]
) -> None:
    ada = system.company.create_person(name="Ada")["id"]
    system.fetch(Entity.PERSON)

    webhooks[0]["data"]["update_time"] = soon()
    webhooks[0]["data"]["name"] = "Ada Lovelace"
    deliver(system, *webhooks)
    system.work()

    assert system.users()[ada]["pipedrive/name"] == "Ada Lovelace"
    assert "pipedrive/created_by_webhook" not in system.users()[ada]
