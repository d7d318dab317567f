"""Incoming Users: how Persons come to Hull, and their Organizations with them."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from pipeline.domain.kinds import Entity
from pipeline.settings import settings
from pipeline.sync.connectors.webhooks import ensure_webhooks
from tests.deliveries import deliver, listen
from tests.guide.people import add_acme, add_ada, in_hull, press, told
from tests.journeys.pipedrive_records import create_records
from tests.system import SyncSystem


@pytest.mark.guide("Incoming Users", "A fetch brings every Person; there is no filter.")
def test_every_person_comes(system: SyncSystem) -> None:
    system.change_settings(synchronized_user_segments=["vip"])
    create_records(system, persons=120, organizations=0)

    system.fetch(Entity.PERSON)

    assert sorted(system.users()) == list(range(1, 121))


@pytest.mark.guide("Incoming Users", "A Person that is deleted in Pipedrive is not brought.")
def test_a_deleted_person_stays_away(system: SyncSystem) -> None:
    create_records(system, persons=3, organizations=0)
    system.company.delete_person(2)

    system.fetch(Entity.PERSON)

    assert sorted(system.users()) == [1, 3]


@pytest.mark.guide("Incoming Users", "A User is linked to the Account of its Person's Organization.")
def test_a_user_is_linked(system: SyncSystem) -> None:
    acme = add_acme(system)
    ada = add_ada(system, org_id=acme)

    system.fetch(Entity.ORGANIZATION)
    system.fetch(Entity.PERSON)

    assert system.users()[ada]["account_id"] == system.accounts()[acme]["id"]


@pytest.mark.guide(
    "Incoming Users",
    "If that Organization was not fetched yet, Hull gets a shell: an Account that knows its Pipedrive id and nothing"
    " else.",
)
def test_an_unseen_organization_is_a_shell(system: SyncSystem) -> None:
    acme = add_acme(system)
    ada = add_ada(system, org_id=acme)

    system.fetch(Entity.PERSON)

    shell = system.accounts()[acme]
    assert system.users()[ada]["account_id"] == shell["id"]
    assert [name for name in shell if name.startswith("pipedrive/")] == ["pipedrive/id"]
    assert shell.get("domain") is None


@pytest.mark.guide("Incoming Users", "The shell is filled when its Organization is fetched.")
def test_the_shell_is_filled(system: SyncSystem) -> None:
    acme = add_acme(system)
    ada = add_ada(system, org_id=acme)
    system.fetch(Entity.PERSON)
    shell = system.accounts()[acme]["id"]

    system.fetch(Entity.ORGANIZATION)

    filled = system.accounts()[acme]
    assert (filled["id"], filled["domain"], filled["pipedrive/name"]) == (shell, "acme.com", "Acme")
    assert system.users()[ada]["account_id"] == shell


@pytest.mark.guide("Incoming Users", "The connector sees to that by itself, within a minute or two.")
def test_a_shell_fills_itself(system: SyncSystem) -> None:
    """The tick comes every thirty seconds; see `celeryconfig.py`."""
    system.company.create_person(name="Ada", org_id=(acme := add_acme(system)))
    system.fetch(Entity.PERSON)

    system.module("tasks.control").fill_shells()
    system.work()

    assert system.accounts()[acme]["pipedrive/name"]


@pytest.mark.guide("Incoming Users", "Whoever runs the connector starts a fetch by hand: pipeline fetch persons.")
def test_a_fetch_by_hand(system: SyncSystem) -> None:
    from pipeline.cli.program import program  # noqa: PLC0415 - Celery reads its settings when it is imported

    ada = add_ada(system)

    answer = CliRunner().invoke(program, ["fetch", "persons", "acme"])
    system.work()

    assert (answer.exit_code, list(system.users())) == (0, [ada])


@pytest.mark.guide(
    "Incoming Users", "Every night everything is fetched again; full_fetch_cron sets another time, or none."
)
def test_a_fetch_by_schedule(system: SyncSystem) -> None:
    ada, acme = add_ada(system), add_acme(system)
    system.module("sync.connectors.settings_change").change_settings(
        connector_of(system), {"incremental_minutes": 0}, "test"
    )
    system.module("tasks.control").start_scheduled()
    early = system.rows("SELECT 1 FROM runs")
    system.change_rows("UPDATE schedules SET next_run_at = now()")

    system.module("tasks.control").start_scheduled()
    system.work()

    assert early == []
    assert (list(system.users()), list(system.accounts())) == ([ada], [acme])


@pytest.mark.guide(
    "Incoming Users",
    "Every few minutes what has changed in Pipedrive is fetched, so that a webhook that was lost costs minutes and nothing else.",
)
def test_changes_without_a_webhook(system: SyncSystem) -> None:
    system.module("sync.connectors.settings_change").change_settings(
        connector_of(system), {"full_fetch_cron": ""}, "test"
    )
    ada = add_ada(system)

    system.module("tasks.control").start_scheduled()
    system.work()

    assert list(system.users()) == [ada]


def connector_of(system: SyncSystem) -> object:
    from db.connector import get_connector  # noqa: PLC0415
    from db.session import transaction  # noqa: PLC0415

    with transaction() as session:
        return get_connector(session, system.connector_key)


@pytest.mark.guide(
    "Incoming Users",
    "Pipedrive tells of every new and every changed Person by webhook, and the change is in Hull within seconds.",
)
def test_webhooks_bring_new_and_changed_persons(system: SyncSystem) -> None:
    said = listen(system)
    ada = add_ada(system)
    deliver(system, *said)
    system.work()
    created = system.users()[ada]["pipedrive/name"]

    system.company.edit_person(ada, name="Ada Lovelace")
    deliver(system, said[-1])
    system.work()

    assert (created, system.users()[ada]["pipedrive/name"]) == ("Ada", "Ada Lovelace")
    assert settings().sweep_s <= 5  # nothing was put off above; a lost wake-up is made up for by the next sweep


@pytest.mark.guide("Incoming Users", "Webhooks are not filtered either.")
def test_every_event_is_subscribed_to(system: SyncSystem) -> None:
    system.change_settings(synchronized_user_segments=["vip"])
    system.module("sync.connectors.webhooks").ensure_webhooks(system.connector_key)
    said = listen(system)
    ada = add_ada(system)

    deliver(system, *said)
    system.work()

    asked = [(row["event_object"], row["event_action"]) for row in system.pipedrive.subscriptions.by_id.values()]
    assert sorted(asked) == [("organization", "*"), ("person", "*")]
    assert list(system.users()) == [ada]


@pytest.mark.guide(
    "Incoming Users",
    "incoming user attributes: the Person fields that are mapped here become attributes of the User, and no others.",
)
def test_only_mapped_fields_come(system: SyncSystem) -> None:
    system.change_settings(incoming_user_attributes=[{"hull": "crm_name", "service": "name"}])
    ada = add_ada(system, phones=[{"value": "+1 555", "primary": True}])

    system.fetch(Entity.PERSON)

    assert told(system)[0] == {"crm_name": "Ada", "pipedrive/id": ada}


@pytest.mark.guide(
    "Incoming Users",
    "link user to account in hull: with it off, Users are linked to no Account and no shell is made in Hull.",
)
def test_links_can_be_switched_off(system: SyncSystem) -> None:
    system.change_settings(link_users_in_hull=False)
    ada = add_ada(system, org_id=add_acme(system))

    system.fetch(Entity.PERSON)

    assert system.users()[ada].get("account_id") is None
    assert system.accounts() == {}


@pytest.mark.guide("Incoming Users", "Adding a connector registers the webhooks, for Persons and for Organizations.")
def test_adding_a_connector_registers_webhooks(system: SyncSystem) -> None:
    assert sorted(ensure_webhooks(system.connector_key)) == ["organization", "person"]

    subscribed = system.pipedrive.subscriptions.by_id.values()
    assert sorted(each["event_object"] for each in subscribed) == ["organization", "person"]
    assert ensure_webhooks(system.connector_key) == []


@pytest.mark.guide(
    "Incoming Users",
    "With support_user_deletion on, the User of a deleted Person is marked: pipedrive/deleted_at says when, and pipedrive/id "
    "is emptied.",
)
def test_a_deleted_person_is_marked(system: SyncSystem) -> None:
    system.change_settings(support_user_deletion=True)
    ada, said = add_ada(system), listen(system)
    system.fetch(Entity.PERSON)
    system.company.delete_person(ada)

    deliver(system, *said)
    system.work()

    (user,) = in_hull(system, "user")
    assert (user.get("pipedrive/id"), user["pipedrive/deleted_at"][:10]) == (None, said[0]["meta"]["timestamp"][:10])


@pytest.mark.guide("Incoming Users", "A deletion of which Pipedrive sent no word is noticed by the next full fetch.")
def test_a_deletion_is_noticed_without_a_webhook(system: SyncSystem) -> None:
    system.change_settings(support_user_deletion=True)
    ada, ben = add_ada(system), system.company.create_person(name="Ben")["id"]
    system.fetch(Entity.PERSON)
    system.company.delete_person(ada)

    system.fetch(Entity.PERSON)

    assert sorted(user.get("pipedrive/id") or 0 for user in in_hull(system, "user")) == [0, ben]


@pytest.mark.guide("Incoming Users", "When the Person is restored, the mark is taken back.")
def test_a_restored_person_is_marked_no_more(system: SyncSystem) -> None:
    system.change_settings(support_user_deletion=True)
    ada, said = add_ada(system), listen(system)
    system.fetch(Entity.PERSON)
    for change in (system.company.delete, system.company.undelete):
        change("person", ada)
        deliver(system, said[-1])
        system.work()

    assert (system.users()[ada]["email"], system.users()[ada].get("pipedrive/deleted_at")) == ("ada@example.com", None)


@pytest.mark.guide(
    "Incoming Users",
    "As long as it can be restored, thirty days, its e-mail stays its own: another Person with the same e-mail is a User "
    "without it meanwhile.",
)
def test_a_deleted_person_keeps_its_e_mail(system: SyncSystem) -> None:
    ada, said = add_ada(system), listen(system)
    system.fetch(Entity.PERSON)
    system.company.delete("person", ada)
    again = add_ada(system)
    deliver(system, *said)
    system.work()

    assert system.users()[again].get("email") is None
    assert sorted(user.get("email") or "" for user in in_hull(system, "user")) == ["", "ada@example.com"]


@pytest.mark.guide("Incoming Users", "Persons that are merged in Pipedrive become one User.")
def test_merged_persons_are_one_user(system: SyncSystem) -> None:
    ada = add_ada(system)
    twin = int(system.company.create_person(name="Ada L.")["id"])
    system.fetch(Entity.PERSON)
    said = listen(system)
    system.company.merge("person", twin, ada)

    deliver(system, *said)
    system.work()

    assert [user["pipedrive/id"] for user in in_hull(system, "user")] == [ada]


@pytest.mark.guide(
    "Incoming Users",
    "A webhook that Pipedrive has dropped, paused or could not deliver is made again within minutes, and what it missed is"
    " fetched.",
)
@pytest.mark.parametrize("trouble", [None, {"is_active": 0}, {"last_http_status": 503}])
def test_webhooks_are_made_again(system: SyncSystem, trouble: dict[str, int] | None) -> None:
    from celeryconfig import beat_schedule  # noqa: PLC0415 - it reads the settings of this test

    ensure_webhooks(system.connector_key)
    system.module("sync.connectors.settings_change").change_settings(
        connector_of(system), {"incremental_minutes": 5}, "test"
    )
    subscribed = system.pipedrive.subscriptions.by_id
    ill = next(iter(subscribed))
    if trouble is None:
        del subscribed[ill]
    else:
        subscribed[ill] |= trouble
    system.change_rows("UPDATE schedules SET next_run_at = now() + interval '1 hour'")

    system.module("tasks.control").ensure_webhooks()
    ada = add_ada(system)
    system.module("tasks.control").start_scheduled()
    system.work()

    assert ill not in subscribed
    assert sorted(row["event_object"] for row in subscribed.values()) == ["organization", "person"]
    assert list(system.users()) == [ada]
    assert float(str(beat_schedule["ensure_webhooks"]["schedule"])) <= 15 * 60


@pytest.mark.guide(
    "Incoming Users", "A User that came by the webhook of its Person's creation carries pipedrive/created_by_webhook."
)
def test_created_by_webhook(system: SyncSystem) -> None:
    before = add_ada(system)
    system.fetch(Entity.PERSON)
    said = listen(system)
    after = int(system.company.create_person(name="Bo")["id"])
    system.company.edit_person(before, name="Ada L.")

    deliver(system, *said)
    system.work()

    marked = {number: user.get("pipedrive/created_by_webhook") for number, user in system.users().items()}
    assert marked == {before: None, after: True}


@pytest.mark.guide("Incoming Users", 'The button "Fetch All Persons" in the settings starts the same fetch.')
def test_a_button_fetches_all_persons(system: SyncSystem, client: FlaskClient) -> None:
    ada = add_ada(system)

    press(client, "/personFetchAll")
    system.work()

    assert list(system.users()) == [ada]
