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
from tests.journeys.people import fill
from tests.world import World


@pytest.mark.guide("Incoming Users", "A fetch brings every Person; there is no filter.")
def test_every_person_comes(world: World) -> None:
    world.change_settings(synchronized_user_segments=["vip"])
    fill(world, persons=120, organizations=0)

    world.fetch(Entity.PERSON)

    assert sorted(world.users()) == list(range(1, 121))


@pytest.mark.guide("Incoming Users", "A Person that is deleted in Pipedrive is not brought.")
def test_a_deleted_person_stays_away(world: World) -> None:
    fill(world, persons=3, organizations=0)
    world.company.delete_person(2)

    world.fetch(Entity.PERSON)

    assert sorted(world.users()) == [1, 3]


@pytest.mark.guide("Incoming Users", "A User is linked to the Account of its Person's Organization.")
def test_a_user_is_linked(world: World) -> None:
    acme = add_acme(world)
    ada = add_ada(world, org_id=acme)

    world.fetch(Entity.ORGANIZATION)
    world.fetch(Entity.PERSON)

    assert world.users()[ada]["account_id"] == world.accounts()[acme]["id"]


@pytest.mark.guide(
    "Incoming Users",
    "If that Organization was not fetched yet, Hull gets a shell: an Account that knows its Pipedrive id and nothing"
    " else.",
)
def test_an_unseen_organization_is_a_shell(world: World) -> None:
    acme = add_acme(world)
    ada = add_ada(world, org_id=acme)

    world.fetch(Entity.PERSON)

    shell = world.accounts()[acme]
    assert world.users()[ada]["account_id"] == shell["id"]
    assert [name for name in shell if name.startswith("pipedrive/")] == ["pipedrive/id"]
    assert shell.get("domain") is None


@pytest.mark.guide("Incoming Users", "The shell is filled when its Organization is fetched.")
def test_the_shell_is_filled(world: World) -> None:
    acme = add_acme(world)
    ada = add_ada(world, org_id=acme)
    world.fetch(Entity.PERSON)
    shell = world.accounts()[acme]["id"]

    world.fetch(Entity.ORGANIZATION)

    filled = world.accounts()[acme]
    assert (filled["id"], filled["domain"], filled["pipedrive/name"]) == (shell, "acme.com", "Acme")
    assert world.users()[ada]["account_id"] == shell


@pytest.mark.guide("Incoming Users", "The connector sees to that by itself, within a minute or two.")
def test_a_shell_fills_itself(world: World) -> None:
    """The tick comes every thirty seconds; see `celeryconfig.py`."""
    world.company.create_person(name="Ada", org_id=(acme := add_acme(world)))
    world.fetch(Entity.PERSON)

    world.module("tasks.control").fill_shells()
    world.work()

    assert world.accounts()[acme]["pipedrive/name"]


@pytest.mark.guide("Incoming Users", "Whoever runs the connector starts a fetch by hand: pipeline fetch persons.")
def test_a_fetch_by_hand(world: World) -> None:
    from pipeline.cli.program import program  # noqa: PLC0415 - Celery reads its settings when it is imported

    ada = add_ada(world)

    answer = CliRunner().invoke(program, ["fetch", "persons", "acme"])
    world.work()

    assert (answer.exit_code, list(world.users())) == (0, [ada])


@pytest.mark.guide(
    "Incoming Users", "Every night everything is fetched again; full_fetch_cron sets another time, or none."
)
def test_a_fetch_by_schedule(world: World) -> None:
    ada, acme = add_ada(world), add_acme(world)
    world.module("sync.connectors.settings_change").change_settings(
        connector_of(world), {"incremental_minutes": 0}, "test"
    )
    world.module("tasks.control").start_scheduled()
    early = world.rows("SELECT 1 FROM runs")
    world.change_rows("UPDATE schedules SET next_run_at = now()")

    world.module("tasks.control").start_scheduled()
    world.work()

    assert early == []
    assert (list(world.users()), list(world.accounts())) == ([ada], [acme])


@pytest.mark.guide(
    "Incoming Users",
    "Every few minutes what has changed in Pipedrive is fetched, so that a webhook that was lost costs minutes and nothing else.",
)
def test_changes_without_a_webhook(world: World) -> None:
    world.module("sync.connectors.settings_change").change_settings(
        connector_of(world), {"full_fetch_cron": ""}, "test"
    )
    ada = add_ada(world)

    world.module("tasks.control").start_scheduled()
    world.work()

    assert list(world.users()) == [ada]


def connector_of(world: World) -> object:
    from db.connector import get_connector  # noqa: PLC0415
    from db.session import transaction  # noqa: PLC0415

    with transaction() as session:
        return get_connector(session, world.connector_key)


@pytest.mark.guide(
    "Incoming Users",
    "Pipedrive tells of every new and every changed Person by webhook, and the change is in Hull within seconds.",
)
def test_webhooks_bring_new_and_changed_persons(world: World) -> None:
    said = listen(world)
    ada = add_ada(world)
    deliver(world, *said)
    world.work()
    created = world.users()[ada]["pipedrive/name"]

    world.company.edit_person(ada, name="Ada Lovelace")
    deliver(world, said[-1])
    world.work()

    assert (created, world.users()[ada]["pipedrive/name"]) == ("Ada", "Ada Lovelace")
    assert settings().sweep_s <= 5  # nothing was put off above; a lost wake-up is made up for by the next sweep


@pytest.mark.guide("Incoming Users", "Webhooks are not filtered either.")
def test_every_event_is_subscribed_to(world: World) -> None:
    world.change_settings(synchronized_user_segments=["vip"])
    world.module("sync.connectors.webhooks").ensure_webhooks(world.connector_key)
    said = listen(world)
    ada = add_ada(world)

    deliver(world, *said)
    world.work()

    asked = [(row["event_object"], row["event_action"]) for row in world.pipedrive.subscriptions.by_id.values()]
    assert sorted(asked) == [("organization", "*"), ("person", "*")]
    assert list(world.users()) == [ada]


@pytest.mark.guide(
    "Incoming Users",
    "incoming user attributes: the Person fields that are mapped here become attributes of the User, and no others.",
)
def test_only_mapped_fields_come(world: World) -> None:
    world.change_settings(incoming_user_attributes=[{"hull": "crm_name", "service": "name"}])
    ada = add_ada(world, phones=[{"value": "+1 555", "primary": True}])

    world.fetch(Entity.PERSON)

    assert told(world)[0] == {"crm_name": "Ada", "pipedrive/id": ada}


@pytest.mark.guide(
    "Incoming Users",
    "link user to account in hull: with it off, Users are linked to no Account and no shell is made in Hull.",
)
def test_links_can_be_switched_off(world: World) -> None:
    world.change_settings(link_users_in_hull=False)
    ada = add_ada(world, org_id=add_acme(world))

    world.fetch(Entity.PERSON)

    assert world.users()[ada].get("account_id") is None
    assert world.accounts() == {}


@pytest.mark.guide("Incoming Users", "Adding a connector registers the webhooks, for Persons and for Organizations.")
def test_adding_a_connector_registers_webhooks(world: World) -> None:
    assert sorted(ensure_webhooks(world.connector_key)) == ["organization", "person"]

    subscribed = world.pipedrive.subscriptions.by_id.values()
    assert sorted(each["event_object"] for each in subscribed) == ["organization", "person"]
    assert ensure_webhooks(world.connector_key) == []


@pytest.mark.guide(
    "Incoming Users",
    "With support_user_deletion on, the User of a deleted Person is marked: pipedrive/deleted_at says when, and pipedrive/id "
    "is emptied.",
)
def test_a_deleted_person_is_marked(world: World) -> None:
    world.change_settings(support_user_deletion=True)
    ada, said = add_ada(world), listen(world)
    world.fetch(Entity.PERSON)
    world.company.delete_person(ada)

    deliver(world, *said)
    world.work()

    (user,) = in_hull(world, "user")
    assert (user.get("pipedrive/id"), user["pipedrive/deleted_at"][:10]) == (None, said[0]["meta"]["timestamp"][:10])


@pytest.mark.guide("Incoming Users", "A deletion of which Pipedrive sent no word is noticed by the next full fetch.")
def test_a_deletion_is_noticed_without_a_webhook(world: World) -> None:
    world.change_settings(support_user_deletion=True)
    ada, ben = add_ada(world), world.company.create_person(name="Ben")["id"]
    world.fetch(Entity.PERSON)
    world.company.delete_person(ada)

    world.fetch(Entity.PERSON)

    assert sorted(user.get("pipedrive/id") or 0 for user in in_hull(world, "user")) == [0, ben]


@pytest.mark.guide("Incoming Users", "When the Person is restored, the mark is taken back.")
def test_a_restored_person_is_marked_no_more(world: World) -> None:
    world.change_settings(support_user_deletion=True)
    ada, said = add_ada(world), listen(world)
    world.fetch(Entity.PERSON)
    for change in (world.company.delete, world.company.undelete):
        change("person", ada)
        deliver(world, said[-1])
        world.work()

    assert (world.users()[ada]["email"], world.users()[ada].get("pipedrive/deleted_at")) == ("ada@example.com", None)


@pytest.mark.guide(
    "Incoming Users",
    "As long as it can be restored, thirty days, its e-mail stays its own: another Person with the same e-mail is a User "
    "without it meanwhile.",
)
def test_a_deleted_person_keeps_its_e_mail(world: World) -> None:
    ada, said = add_ada(world), listen(world)
    world.fetch(Entity.PERSON)
    world.company.delete("person", ada)
    again = add_ada(world)
    deliver(world, *said)
    world.work()

    assert world.users()[again].get("email") is None
    assert sorted(user.get("email") or "" for user in in_hull(world, "user")) == ["", "ada@example.com"]


@pytest.mark.guide("Incoming Users", "Persons that are merged in Pipedrive become one User.")
def test_merged_persons_are_one_user(world: World) -> None:
    ada = add_ada(world)
    twin = int(world.company.create_person(name="Ada L.")["id"])
    world.fetch(Entity.PERSON)
    said = listen(world)
    world.company.merge("person", twin, ada)

    deliver(world, *said)
    world.work()

    assert [user["pipedrive/id"] for user in in_hull(world, "user")] == [ada]


@pytest.mark.guide(
    "Incoming Users",
    "A webhook that Pipedrive has dropped, paused or could not deliver is made again within minutes, and what it missed is"
    " fetched.",
)
@pytest.mark.parametrize("trouble", [None, {"is_active": 0}, {"last_http_status": 503}])
def test_webhooks_are_made_again(world: World, trouble: dict[str, int] | None) -> None:
    from celeryconfig import beat_schedule  # noqa: PLC0415 - it reads the settings of this test

    ensure_webhooks(world.connector_key)
    world.module("sync.connectors.settings_change").change_settings(
        connector_of(world), {"incremental_minutes": 5}, "test"
    )
    subscribed = world.pipedrive.subscriptions.by_id
    ill = next(iter(subscribed))
    if trouble is None:
        del subscribed[ill]
    else:
        subscribed[ill] |= trouble
    world.change_rows("UPDATE schedules SET next_run_at = now() + interval '1 hour'")

    world.module("tasks.control").ensure_webhooks()
    ada = add_ada(world)
    world.module("tasks.control").start_scheduled()
    world.work()

    assert ill not in subscribed
    assert sorted(row["event_object"] for row in subscribed.values()) == ["organization", "person"]
    assert list(world.users()) == [ada]
    assert float(str(beat_schedule["ensure_webhooks"]["schedule"])) <= 15 * 60


@pytest.mark.guide(
    "Incoming Users", "A User that came by the webhook of its Person's creation carries pipedrive/created_by_webhook."
)
def test_created_by_webhook(world: World) -> None:
    before = add_ada(world)
    world.fetch(Entity.PERSON)
    said = listen(world)
    after = int(world.company.create_person(name="Bo")["id"])
    world.company.edit_person(before, name="Ada L.")

    deliver(world, *said)
    world.work()

    marked = {number: user.get("pipedrive/created_by_webhook") for number, user in world.users().items()}
    assert marked == {before: None, after: True}


@pytest.mark.guide("Incoming Users", 'The button "Fetch All Persons" in the settings starts the same fetch.')
def test_a_button_fetches_all_persons(world: World, door: FlaskClient) -> None:
    ada = add_ada(world)

    press(door, "/personFetchAll")
    world.work()

    assert list(world.users()) == [ada]
