"""Webhooks, tokens, settings, status and log: what broke around the work itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from flask.testing import FlaskClient

from db.connector import settings_in_force
from db.field_definition import keep_fields
from db.session import transaction
from pipeline import connections, telemetry
from pipeline import settings as settings_room
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.wiring import open_connector
from sandbox.hull.notifier import NotificationTarget
from tests.authorising import Person, installed_app
from tests.deliveries import deliver, listen
from tests.guide.people import add_ada, press, save_in_hull
from tests.journeys.hull_messages import fetch_everything, send_messages, user, writes
from tests.logs import captured_log
from tests.system import API_TOKEN, HULL_SECRET, SyncSystem
from tests.wsgi_adapter import session_for

TO_NAME = [{"hull": "label", "service": "name"}]
FOREIGN = {
    "subscription_url": "https://other.test/hull.test",
    "event_action": "*",
    "event_object": "person",
    "name": "x",
}


def webhooks(system: SyncSystem) -> dict[int, dict[str, Any]]:
    """What Pipedrive is subscribed to, by id."""
    listed: dict[int, dict[str, Any]] = system.pipedrive.subscriptions.by_id
    return listed


def check_webhooks(system: SyncSystem) -> None:
    system.module("sync.connectors.webhooks").ensure_webhooks(system.connector_key)


@pytest.mark.defect(17, "Webhooks were of the old version, and carried Hull's secret in their address.")
def test_webhooks_are_of_version_two_and_carry_no_secret_of_hull(system: SyncSystem) -> None:
    check_webhooks(system)

    asked = list(webhooks(system).values())
    assert {(each["event_object"], each["version"]) for each in asked} == {("person", "2.0"), ("organization", "2.0")}
    assert [each for each in asked if HULL_SECRET in str(each) or API_TOKEN in str(each)] == []
    assert all(each["http_auth_user"] and each["http_auth_password"] for each in asked)


@pytest.mark.defect(17, "Webhooks whose address held the organization's name were deleted, whosesoever they were.")
def test_webhooks_of_others_are_left_alone(system: SyncSystem) -> None:
    asked = system.pipedrive.test_client().post("/api/v1/webhooks", json=FOREIGN, headers={"x-api-token": API_TOKEN})
    assert asked.json is not None
    foreign = dict(webhooks(system))

    for _ in range(2):
        check_webhooks(system)

    assert len(foreign) == 1
    assert {number: webhooks(system).get(number) for number in foreign} == foreign
    assert len(webhooks(system)) == 3


@pytest.mark.defect(17, "A webhook that was noted here and gone in Pipedrive was never made again.")
def test_a_webhook_that_is_gone_is_made_again(system: SyncSystem) -> None:
    check_webhooks(system)
    webhooks(system).clear()

    check_webhooks(system)

    assert sorted(each["event_object"] for each in webhooks(system).values()) == ["organization", "person"]


@pytest.mark.defect(17, "Before anything else webhooks were seen to, and when that failed nothing was done at all.")
def test_work_goes_on_without_webhooks(system: SyncSystem, client: FlaskClient) -> None:
    system.pipedrive.faults.add("/webhooks", "status", status=403, count=None)
    system.change_settings(outgoing_user_attributes=TO_NAME)
    with pytest.raises(system.module("sync.stage").StageFailed, match="webhooks_forbidden"):
        system.module("tasks.control").ensure_webhooks()

    ada = add_ada(system)
    fetch_everything(system)
    send_messages(system, user(system.users()[ada]["id"], label="Ada L."))

    assert writes(system) == [("PATCH", ada, {"name": "Ada L."})]
    assert press(client, "/status")["status"] == "warning"


@pytest.fixture
def authorised(system: SyncSystem) -> Iterator[SyncSystem]:
    """A system whose connector was connected by OAuth."""
    with installed_app(system):
        assert Person(system).authorise().status_code == 200
        yield system


def call(system: SyncSystem) -> None:
    """Ask Pipedrive something."""
    with transaction() as session:
        pipedrive = open_connector(session, system.connector_key).pipedrive
    pipedrive.me()


def let_the_token_end_soon(system: SyncSystem) -> None:
    system.change_rows(
        "UPDATE credentials SET expires_at = now() + interval '60 s', updated_at = now() - interval '55 min'"
        " WHERE expires_at IS NOT NULL"
    )


@pytest.mark.defect(18, "An access token was renewed only once Pipedrive had refused it.")
def test_a_token_is_renewed_before_it_ends(authorised: SyncSystem) -> None:
    let_the_token_end_soon(authorised)

    call(authorised)

    assert authorised.pipedrive.grants.counts["refreshes"] == 1
    assert authorised.pipedrive.ledger.statuses[401] == 0


@pytest.mark.defect(18, "When a token ends was kept under one name at first and under another after a renewal.")
def test_a_renewal_moves_the_moment_at_which_the_token_ends(authorised: SyncSystem) -> None:
    let_the_token_end_soon(authorised)

    for _ in range(3):
        call(authorised)

    ends = authorised.rows(
        "SELECT expires_at > now() + interval '50 min' AS late FROM credentials WHERE expires_at IS NOT NULL"
    )
    assert [row.late for row in ends] == [True]
    assert authorised.pipedrive.grants.counts["refreshes"] == 1


@pytest.mark.defect(18, "The company's own address was thrown away, and another host called instead.")
def test_calls_go_to_the_address_that_came_with_the_token(system: SyncSystem) -> None:
    system.pipedrive.grants.switches.api_domain = "https://acme.pipedrive.com"
    session = session_for({"http://pipedrive.test": system.pipedrive, "https://acme.pipedrive.com": system.pipedrive})
    connections.use_http(lambda: session)
    with installed_app(system, pipedrive_api_url=None):
        assert Person(system).authorise().status_code == 200
        session.adapters.pop("http://pipedrive.test")  # from here on the API has one address

        call(system)

    assert system.pipedrive.ledger.requests["user"] == 2


@pytest.mark.defect(19, "Who wrote settings wrote them all, so a renewed token and a new webhook undid one another.")
def test_renewal_webhooks_and_a_person_do_not_undo_one_another(authorised: SyncSystem) -> None:
    chosen = {"outgoing_user_attributes": TO_NAME, "synchronized_user_segments": ["vip"]}
    hull_said = authorised.hull.connector
    hull_said["private_settings"] = dict(chosen)
    with transaction() as session:
        authorised.module("sync.connectors.settings_change").enqueue_settings_sync(session, authorised.connector_key)

    authorised.pipedrive.grants.expire_access_tokens()
    call(authorised)
    check_webhooks(authorised)
    authorised.run_jobs()
    call(authorised)

    with transaction() as session:
        document = settings_in_force(session, authorised.connector_key).document
    assert {name: document[name] for name in chosen} == chosen
    said = hull_said["private_settings"]
    assert {name: said[name] for name in chosen} == chosen
    assert said.keys() <= ConnectorSettings.model_fields.keys()  # neither tokens nor webhooks are kept there
    assert (authorised.pipedrive.grants.counts["refreshes"], len(webhooks(authorised))) == (1, 2)


@pytest.mark.defect(
    19, "Of two who changed different settings, the later one took back what the earlier one had changed."
)
def test_two_who_change_different_settings_both_have_their_way(system: SyncSystem) -> None:
    save_in_hull(system, synchronized_user_segments=["vip"])
    system.change_settings(daily_tokens=5_000)

    save_in_hull(system, synchronized_user_segments=["vip"], link_users_in_service=True)

    with transaction() as session:
        document = settings_in_force(session, system.connector_key).document
    names = ("synchronized_user_segments", "daily_tokens", "link_users_in_service")
    assert [document[name] for name in names] == [["vip"], 5_000, True]


LISTS = ["/fields-pipedrive-person-out", "/fields-pipedrive-account-out"]


@pytest.mark.defect(20, "A list of fields that held one came as that field, and not as a list.")
@pytest.mark.parametrize("route", LISTS, ids=["persons", "organizations"])
def test_a_list_of_one_field_is_a_list(system: SyncSystem, client: FlaskClient, route: str) -> None:
    with transaction() as session:
        for entity in Entity:
            name = {"field_code": "name", "field_name": "Name", "field_type": "varchar"}
            keep_fields(session, system.connector_key, entity, [name])

    assert press(client, route) == {"options": [{"value": "name", "label": "Name"}]}


@pytest.mark.defect(20, "The status was written to Hull twice each time it was asked for.")
def test_the_status_is_written_once(system: SyncSystem, client: FlaskClient) -> None:
    check_webhooks(system)

    told = press(client, "/status")
    for _ in range(2):
        system.run_jobs()

    assert (system.hull.counts["status_reports"], system.hull.connector["status"]) == (1, told)
    assert told == {"status": "ok", "messages": ["Everything is in order."]}


@pytest.fixture
def hull_knocks(system: SyncSystem) -> Iterator[Callable[[], list[Any]]]:
    """Have Hull send its signed notifications to the door; the call delivers what is pending, and tells (status, answer)."""
    from pipeline.web.app import create_app  # noqa: PLC0415 - Celery reads its settings when it is imported

    apps = {"http://pipedrive.test": system.pipedrive, "http://hull.test": system.hull_app}
    session = session_for(apps | {"https://hull.test": system.hull_app})
    connections.use_http(lambda: session)
    settings_room.use(
        settings_room.settings().replace(hull_key_hosts=("hull.test",), hull_key_path="/__sandbox__/public-key")
    )
    client = create_app(wake=lambda: None).test_client()
    notifier = system.hull_app.extensions["hull_notifier"]
    notifier.target = NotificationTarget("/smart-notifier", "https://hull.test/__sandbox__/public-key")

    def post(url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        answer = client.post(url, headers=dict(headers), data=body)
        return answer.status_code, answer.text

    def knock() -> list[Any]:
        notifier.deliver_pending()
        return [(each["status"], json.loads(each["response"])) for each in notifier.exchanges]

    notifier.post = post
    yield knock
    telemetry.configure("error")


@pytest.mark.defect(20, "To the news that its settings had changed the connector answered with an error.")
def test_changed_settings_are_welcome(system: SyncSystem, hull_knocks: Callable[[], list[Any]]) -> None:
    system.hull.change_connector({"private_settings": {"incoming_user_attributes": TO_NAME}})

    assert hull_knocks() == [(200, {"flow_control": {"type": "next"}})]


@pytest.mark.defect(20, "For a minute after they were saved, webhooks and buttons went by the settings of before.")
def test_saved_settings_are_in_force_at_once(system: SyncSystem, hull_knocks: Callable[[], list[Any]]) -> None:
    ada = add_ada(system)
    fetch_everything(system)
    said = listen(system)
    mapping = [{"hull": "called", "service": "name"}]

    system.hull.change_connector({"private_settings": {"incoming_user_attributes": mapping}})
    hull_knocks()
    system.run_jobs()
    system.company.edit_person(ada, name="Ada L.")
    deliver(system, *said)
    system.work()

    assert system.users()[ada]["called"] == "Ada L."


@pytest.mark.defect(21, "That a record was left out, and why, was logged where nobody looks.")
@pytest.mark.parametrize("way", ["outgoing", "incoming"])
def test_what_is_left_out_is_said_at_the_usual_level(system: SyncSystem, way: str) -> None:
    ada = add_ada(system)
    fetch_everything(system)
    said = listen(system)

    with captured_log("info") as lines:
        if way == "outgoing":
            system.change_settings(synchronized_user_segments=["vip"])
            send_messages(system, user(system.users()[ada]["id"], segments=("others",)))
        else:
            system.company.delete_person(ada)
            deliver(system, *said)
            system.work()

    (line,) = [each for each in lines if each["event"] == f"{way}.user.skip"]
    assert line["reason"] == {"outgoing": "not_in_segment", "incoming": "deletion_not_supported"}[way]
    assert (line["log_level"], bool(line["advice"])) == ("info", True)


@pytest.mark.defect(21, "In the settings two switches about deleted Users had one and the same description.")
def test_every_setting_is_described_in_words_of_its_own(client: FlaskClient) -> None:
    manifest = client.get("/manifest.json").json
    assert manifest is not None
    described = {each["name"]: each["description"] for each in manifest["private_settings"]}

    assert len(set(described.values())) == len(described)
    assert "pipedrive/deleted_at" in described["support_user_deletion"]
    assert "not sent again" in described["ignore_deleted_users"]
