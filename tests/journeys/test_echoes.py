"""Echoes of our writes end here, and edits that people made in the same time do not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.domain.settings import Owner
from tests.deliveries import HullNotifications, deliver, listen, receive
from tests.journeys.hull_messages import event_details, failures, fetch_everything, outgoing_events, person, writes
from tests.journeys.pipedrive_records import create_records
from tests.manual_clock import Clock, manual_clock
from tests.prepared import prepared
from tests.system import SyncSystem, make_system

PAIRS = {"nickname": "name", "tel": "phone"}
"""Attribute → field, the same in both directions."""


class Desk:
    """One Person and its User, edited on either side; messages of both systems wait here until they are delivered."""

    def __init__(self, system: SyncSystem, clock: Clock) -> None:
        self.system, self.clock = system, clock
        self.webhooks = listen(system)
        self.notifications = HullNotifications(system)
        self.notifications()

    def leave(self) -> None:
        """Stop listening."""
        self.system.company.listeners.pop()
        self.notifications.end()

    def in_hull(self, number: int = 2, **attributes: Any) -> None:
        """Another source writes attributes of the User, a moment later and in the same second."""
        self.clock.move(0.01)
        path = f"/__sandbox__/users/{self.system.users()[number]['id']}"
        assert self.system.hull_app.test_client().post(path, json=attributes).status_code == 200

    def in_pipedrive(self, number: int = 2, **fields: Any) -> None:
        """A salesperson changes fields of the Person, a moment later and in the same second."""
        self.clock.move(0.01)
        self.system.company.edit_person(number, **fields)

    def pass_on_from_hull(self) -> int:
        """Deliver Hull's messages and run due work; return their number."""
        messages = self.notifications()
        receive(self.system, *messages)
        self.system.work()
        return len(messages)

    def pass_on_from_pipedrive(self) -> int:
        """Deliver Pipedrive's webhooks and run due work; return their number."""
        messages = list(self.webhooks)
        self.webhooks.clear()
        deliver(self.system, *messages)
        self.system.work()
        return len(messages)

    def deliver_all(self) -> None:
        """Deliver all messages until none is left."""
        for _ in range(20):
            self.clock.move(5)
            if not self.pass_on_from_hull() + self.pass_on_from_pipedrive():
                return
        raise AssertionError("they never stop talking")

    def sent(self) -> tuple[int, int]:
        """How much was sent to Hull and to Pipedrive so far."""
        return self.system.hull.received.count, len(writes(self.system))

    def held(self, number: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
        """What Hull and what Pipedrive hold of the mapped fields, in Hull's words."""
        user, record = self.system.users()[number], person(self.system, number)
        phone = next((each["value"] for each in record["phones"]), None)
        return (
            {name: user.get(name) for name in PAIRS},
            {"nickname": record["name"], "tel": phone},
        )


@pytest.fixture
def desk(database: str) -> Iterator[Desk]:
    """Return four Persons and their Users with equal values, after all messages were delivered."""
    with manual_clock(datetime(2026, 3, 2, 9, tzinfo=UTC)) as clock, make_system(clock=clock) as system:
        in_step(system)
        yield Desk(system, clock)


@prepared
def in_step(system: SyncSystem) -> None:
    own_the_fields(system, "hull")
    create_records(system, persons=4, organizations=0)
    desk = Desk(system, system.company.clock)
    fetch_everything(system)
    desk.deliver_all()
    desk.leave()
    system.pipedrive.ledger.mutations.clear()


def own_the_fields(system: SyncSystem, owner: Owner) -> None:
    rows = [{"hull": hull, "service": service} for hull, service in PAIRS.items()]
    system.change_settings(
        incoming_user_attributes=rows, outgoing_user_attributes=[{**row, "owner": owner} for row in rows]
    )


def test_the_fixture_has_come_to_rest(desk: Desk) -> None:
    assert desk.held()[0] == desk.held()[1] == {"nickname": "Person 2", "tel": None}
    assert writes(desk.system) == []


def test_our_write_coming_back_by_webhook_sends_nothing(desk: Desk) -> None:
    desk.in_hull(nickname="Anna")
    desk.pass_on_from_hull()
    assert writes(desk.system) == [("PATCH", 2, {"name": "Anna"})]
    sent, asked = desk.sent(), desk.system.pipedrive.ledger.requests.total()

    assert desk.pass_on_from_pipedrive() == 1

    assert desk.sent() == sent
    assert desk.system.pipedrive.ledger.requests.total() == asked


def test_our_write_coming_back_before_we_have_written_it_down_sends_nothing(desk: Desk) -> None:
    """Pipedrive's webhook may be faster than its answer: then it is the read-back that finds nothing new."""
    desk.in_hull(nickname="Anna")
    receive(desk.system, *desk.notifications())
    while not desk.webhooks:
        due = desk.system.next_batch()
        if due is not None:
            desk.system.run_batch_stage(*due)
        else:
            desk.system.module("sync.changes.dispatch").dispatch_changes()
    deliver(desk.system, *desk.webhooks)
    desk.webhooks.clear()
    desk.system.work()
    sent = desk.sent()
    desk.deliver_all()

    assert desk.sent() == sent
    assert writes(desk.system) == [("PATCH", 2, {"name": "Anna"})]


def test_our_read_back_coming_back_by_notification_sends_nothing(desk: Desk) -> None:
    """With an attribute of its own, the read-back changes a value in Hull, and Hull reports it."""
    rows = [{"hull": hull, "service": service} for hull, service in PAIRS.items()]
    desk.system.change_settings(incoming_user_attributes=[*rows, {"hull": "pipedrive/name", "service": "name"}])
    desk.deliver_all()
    desk.in_hull(nickname="Anna")
    desk.pass_on_from_hull()
    assert desk.system.users()[2]["pipedrive/name"] == "Anna"
    sent = desk.sent()

    assert desk.pass_on_from_hull() == 1

    assert desk.sent() == sent
    assert outgoing_events(desk.system)[-1][0] == "outgoing.user.skip"


def test_an_edit_in_pipedrive_is_sent_to_hull_and_ends_there(desk: Desk) -> None:
    desk.in_pipedrive(name="Bea")
    desk.pass_on_from_pipedrive()
    assert desk.held()[0]["nickname"] == "Bea"
    sent = desk.sent()

    assert desk.pass_on_from_hull() == 1

    assert desk.sent() == sent
    assert writes(desk.system) == []


@pytest.mark.parametrize("is_before", [True, False], ids=["before our write", "after our write"])
def test_an_edit_of_another_field_in_the_second_of_our_write_is_not_lost(desk: Desk, is_before: bool) -> None:
    number = [{"value": "+372 5550001", "primary": True}]
    desk.in_hull(nickname="Anna")
    if is_before:
        desk.in_pipedrive(phones=number)
    desk.pass_on_from_hull()
    if not is_before:
        desk.in_pipedrive(phones=number)
    desk.deliver_all()

    assert desk.held() == ({"nickname": "Anna", "tel": "+372 5550001"},) * 2
    assert [body for _, _, body in writes(desk.system)] == [{"name": "Anna"}]


@pytest.mark.parametrize("first", ["echo", "edit", "edit alone"])
def test_an_edit_of_the_same_field_in_the_second_of_our_write_is_not_lost(desk: Desk, first: str) -> None:
    """A person changes our value within the same second, so both have the same update time."""
    desk.in_hull(nickname="Anna")
    desk.pass_on_from_hull()
    desk.in_pipedrive(name="Hanna")
    if first == "edit":
        desk.webhooks.reverse()
    elif first == "edit alone":
        del desk.webhooks[0]
    desk.deliver_all()

    assert desk.held()[0]["nickname"] == desk.held()[1]["nickname"] == "Hanna"
    assert writes(desk.system) == [("PATCH", 2, {"name": "Anna"})]


def test_an_edit_that_sets_back_what_we_wrote_is_not_taken_for_an_echo(desk: Desk) -> None:
    desk.in_hull(nickname="Anna")
    desk.deliver_all()
    desk.in_pipedrive(name="Person 2")
    desk.deliver_all()

    assert desk.held()[0]["nickname"] == desk.held()[1]["nickname"] == "Person 2"
    assert len(writes(desk.system)) == 1


@pytest.mark.parametrize("owner", ["hull", "pipedrive", "latest"])
def test_a_report_older_than_our_last_delivery_undoes_nothing(desk: Desk, owner: Owner) -> None:
    """Hull sent this before it received the edit, with the earlier value of the field."""
    own_the_fields(desk.system, owner)
    desk.deliver_all()
    desk.in_hull(plan="free")
    late = desk.notifications()
    desk.clock.move(1)
    desk.in_pipedrive(name="Bea")
    desk.pass_on_from_pipedrive()
    sent = desk.sent()

    receive(desk.system, *late)
    desk.system.work()

    assert desk.sent() == sent
    desk.deliver_all()
    assert desk.held()[0]["nickname"] == desk.held()[1]["nickname"] == "Bea"


def test_a_report_older_than_one_that_was_sent_undoes_nothing(desk: Desk) -> None:
    """Two reports arrive in the wrong order: the older one has a name that Hull has replaced."""
    desk.in_hull(nickname="Anna")
    late = desk.notifications()
    desk.clock.move(2)
    desk.in_hull(nickname="Hanna")
    desk.pass_on_from_hull()
    receive(desk.system, *late)
    desk.system.work()
    desk.deliver_all()

    assert desk.held()[0]["nickname"] == desk.held()[1]["nickname"] == "Hanna"
    assert [body for _, _, body in writes(desk.system)] == [{"name": "Hanna"}]


def test_a_report_of_an_earlier_delivery_undoes_nothing(desk: Desk) -> None:
    """Both sides are edited and Hull wins; then Hull's report about Pipedrive's value arrives."""
    desk.in_hull(nickname="Anna")
    edit = desk.notifications()
    desk.clock.move(1)
    desk.in_pipedrive(name="Bea")
    desk.pass_on_from_pipedrive()
    late = desk.notifications()
    desk.clock.move(1)
    receive(desk.system, *edit)
    desk.system.work()
    assert desk.held()[1]["nickname"] == "Anna"
    desk.clock.move(1)
    receive(desk.system, *late)
    desk.system.work()
    desk.deliver_all()

    assert desk.held()[0]["nickname"] == desk.held()[1]["nickname"] == "Anna"
    assert [body for _, _, body in writes(desk.system)] == [{"name": "Anna"}]


def test_an_edit_in_hull_survives_a_delivery_of_another_field(desk: Desk) -> None:
    """Hull receives a number while its report of a new name is in flight; both reports are coalesced."""
    desk.in_hull(nickname="Anna")
    edit = desk.notifications()
    desk.clock.move(1)
    desk.in_pipedrive(phones=[{"value": "+372 5550001", "primary": True}])
    desk.pass_on_from_pipedrive()
    receive(desk.system, *edit, *desk.notifications())
    desk.system.work()
    desk.deliver_all()

    assert desk.held() == ({"nickname": "Anna", "tel": "+372 5550001"},) * 2


def test_our_answer_does_not_undo_a_newer_edit_in_hull(desk: Desk) -> None:
    """A person changes the name between Hull's report and Pipedrive's answer to it."""
    desk.in_hull(nickname="Anna")
    edit = desk.notifications()
    desk.clock.move(1)
    desk.in_hull(nickname="Hanna")
    receive(desk.system, *edit)
    desk.system.work()
    assert desk.held()[0]["nickname"] == "Hanna"
    desk.deliver_all()

    assert desk.held()[0]["nickname"] == desk.held()[1]["nickname"] == "Hanna"
    assert [body for _, _, body in writes(desk.system)] == [{"name": "Anna"}, {"name": "Hanna"}]


@pytest.mark.parametrize(("owner", "winner"), [("hull", "Anna"), ("pipedrive", "Bea"), ("latest", "Bea")])
def test_an_edit_that_our_delivery_overwrote_still_counts(desk: Desk, owner: Owner, winner: str) -> None:
    """Hull's reports of the edit and of our delivery arrive together; the newer one has only our value."""
    own_the_fields(desk.system, owner)
    desk.deliver_all()
    desk.in_hull(nickname="Anna")
    edit = desk.notifications()
    desk.clock.move(1)
    desk.in_pipedrive(name="Bea")
    desk.pass_on_from_pipedrive()
    receive(desk.system, *edit, *desk.notifications())
    desk.system.work()
    desk.deliver_all()

    assert desk.held()[0]["nickname"] == desk.held()[1]["nickname"] == winner


@pytest.mark.parametrize("owner", ["hull", "pipedrive", "latest"])
def test_two_edits_in_pipedrive_of_which_hull_reports_one_by_one(desk: Desk, owner: Owner) -> None:
    """Pipedrive has a newer value when Hull reports the first one, and no one in Hull has changed anything."""
    own_the_fields(desk.system, owner)
    desk.deliver_all()
    desk.in_pipedrive(name="Bea")
    desk.pass_on_from_pipedrive()
    first = desk.notifications()
    desk.clock.move(1)
    desk.in_pipedrive(name="Beate")
    desk.pass_on_from_pipedrive()
    receive(desk.system, *first)
    desk.system.work()
    desk.deliver_all()

    assert desk.held()[0]["nickname"] == desk.held()[1]["nickname"] == "Beate"
    assert writes(desk.system) == []


def test_the_first_value_of_a_field_that_was_empty_on_both_sides_is_no_conflict(desk: Desk) -> None:
    own_the_fields(desk.system, "pipedrive")
    desk.deliver_all()
    desk.in_hull(tel="+372 5550001")
    desk.deliver_all()

    assert desk.held()[0]["tel"] == desk.held()[1]["tel"] == "+372 5550001"


def test_a_field_that_pipedrive_owns_and_has_emptied_is_emptied_in_hull(desk: Desk) -> None:
    own_the_fields(desk.system, "pipedrive")
    desk.in_pipedrive(phones=[{"value": "+372 5550001", "primary": True}])
    desk.deliver_all()
    desk.in_pipedrive(phones=[])
    desk.in_hull(tel="+372 5550002")
    desk.deliver_all()

    assert desk.held()[0]["tel"] is None
    assert desk.held()[1]["tel"] is None


@pytest.mark.parametrize(("owner", "winner"), [("hull", "Anna"), ("pipedrive", "Bea"), ("latest", "Bea")])
@pytest.mark.parametrize("webhook_first", [True, False])
def test_who_has_the_last_word_where_both_sides_were_edited(
    desk: Desk, owner: Owner, winner: str, webhook_first: bool
) -> None:
    own_the_fields(desk.system, owner)
    desk.deliver_all()
    desk.in_hull(nickname="Anna")
    desk.clock.move(1)
    desk.in_pipedrive(name="Bea")
    messages = desk.notifications()
    if webhook_first:
        desk.pass_on_from_pipedrive()
    receive(desk.system, *messages)
    desk.system.work()
    desk.deliver_all()

    assert desk.held()[0]["nickname"] == desk.held()[1]["nickname"] == winner


def fight(desk: Desk, answers: list[str], *, rounds: int = 12) -> None:
    """Whenever Hull's rule sees the name that we brought, it makes another one of it; whenever Pipedrive's does, as well."""
    for turn in range(rounds):
        desk.clock.move(3)
        desk.in_hull(nickname=answers[turn % len(answers)])
        desk.pass_on_from_hull()
        desk.pass_on_from_pipedrive()


def test_two_rules_that_fight_are_stopped_within_two_rounds_and_named(desk: Desk) -> None:
    """One rule of Hull's writes a name that the other one does not like."""
    fight(desk, ["ANNA", "Anna"])

    assert [body["name"] for _, _, body in writes(desk.system)] == ["ANNA", "Anna"] * 2
    assert ("outgoing.user.error", "update_loop_detected") in outgoing_events(desk.system)
    assert failures(desk.system) == [(desk.system.users()[2]["id"], "update_loop_detected")]
    assert "nickname → name" in event_details(desk.system, "update_loop_detected")[0]


def test_a_rule_of_hull_s_that_fights_one_of_pipedrive_s_is_stopped_as_well(desk: Desk) -> None:
    """Hull always writes capitals, Pipedrive's own automation always takes them back."""
    for _ in range(8):
        desk.clock.move(3)
        desk.in_hull(nickname="ANNA")
        desk.pass_on_from_hull()
        desk.in_pipedrive(name="Anna")
        desk.deliver_all()

    assert [body["name"] for _, _, body in writes(desk.system)] == ["ANNA"] * 2
    assert failures(desk.system) == [(desk.system.users()[2]["id"], "update_loop_detected")]


def test_other_fields_of_a_record_in_an_update_loop_are_sent(desk: Desk) -> None:
    fight(desk, ["ANNA", "Anna"], rounds=6)
    desk.in_hull(nickname="ANNA", tel="+372 5550001")
    desk.deliver_all()

    assert desk.held()[1]["tel"] == "+372 5550001"
    assert len([body for _, _, body in writes(desk.system) if "name" in body]) == 4
    assert failures(desk.system) == [(desk.system.users()[2]["id"], "update_loop_detected")]


def test_a_change_of_mind_is_no_fight(desk: Desk) -> None:
    for nickname in ("Anna", "Hanna", "Anna", "Johanna", "Anne"):
        desk.clock.move(30)
        desk.in_hull(nickname=nickname)
        desk.deliver_all()

    assert desk.held()[1]["nickname"] == "Anne"
    assert failures(desk.system) == []
