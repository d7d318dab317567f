"""Troubleshooting: changes do not come to Pipedrive."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from tests.guide.people import (
    ADA,
    account_changed,
    add_acme,
    add_ada,
    fetch_all,
    in_hull,
    reached_at,
    tell_hull,
    user_changed,
)
from tests.journeys.hull_messages import (
    BEN,
    GLOBEX,
    account,
    as_segments,
    fetch_everything,
    field_code,
    send_messages,
    user,
    writes,
)
from tests.system import SyncSystem


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    'Send the Users or Accounts by hand: select them in Hull and choose "Send to". They are sent whatever their'
    " segments.",
)
def test_send_to_needs_no_segment(system: SyncSystem) -> None:
    system.change_settings(
        synchronized_user_segments=["vip"],
        synchronized_account_segments=["vip"],
        outgoing_user_attributes=[{"hull": "full_name", "service": "name"}],
        outgoing_account_attributes=[{"hull": "label", "service": "name"}],
    )
    ada, acme = add_ada(system), add_acme(system)
    fetch_all(system)

    user_changed(system, ada, segments=(), is_export=True, full_name="Ada Lovelace")
    account_changed(system, acme, segments=(), is_export=True, label="Acme Inc.")

    person, organization = system.company.record("person", ada), system.company.record("organization", acme)
    assert person is not None
    assert organization is not None
    assert (person["name"], organization["name"]) == ("Ada Lovelace", "Acme Inc.")


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "A selection that Hull hands over as a file is sent in the same way.",
)
def test_a_file_needs_no_segment_either(system: SyncSystem) -> None:
    system.change_settings(
        synchronized_user_segments=["vip"], outgoing_user_attributes=[{"hull": "full_name", "service": "name"}]
    )
    ada = add_ada(system)
    fetch_all(system)
    (user,) = in_hull(system, "user")
    system.hull_app.test_client().post(f"/__sandbox__/users/{user['id']}", json={"full_name": "Ada Lovelace"})

    send_as_file(system, "http://127.0.0.1:9101/__sandbox__/export?entity=user")

    person = system.company.record("person", ada)
    assert person is not None
    assert person["name"] == "Ada Lovelace"


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "Whoever runs the connector sends them from the command line, by id or by segment: pipeline send users and pipeline"
    " send accounts.",
)
@pytest.mark.parametrize("by", ["id", "segment"])
@pytest.mark.parametrize(("kind", "claim"), [("user", {"email": ADA}), ("account", {"domain": "acme.com"})])
def test_they_are_sent_from_the_command_line(system: SyncSystem, kind: Any, claim: dict[str, str], by: str) -> None:
    from pipeline.cli.program import program  # noqa: PLC0415 - Celery reads its settings when it is imported

    system.change_settings(synchronized_user_segments=["vip"], synchronized_account_segments=["vip"])
    fetch_everything(system)
    tell_hull(system, kind, claim, {"name": "New"})
    (hull_id,) = (each["id"] for each in in_hull(system, kind))
    chosen = hull_id if by == "id" else system.hull.define_segment(kind, "chosen", [hull_id]).id

    said = CliRunner().invoke(program, ["send", f"{kind}s", "acme", f"--{by}", chosen])
    system.run_jobs()
    system.work()

    assert (said.exit_code, f"1 {kind.capitalize()}" in said.stdout) == (0, True)
    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "New")]


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "If a record is still not there, look for outgoing.user.skip, outgoing.user.error, outgoing.account.skip and"
    " outgoing.account.error in the logs.",
)
def test_what_was_not_sent_is_told(system: SyncSystem, log: list[Any]) -> None:
    system.change_settings(synchronized_user_segments=["vip"], synchronized_account_segments=["vip"])
    fetch_everything(system)

    send_messages(system, user(segments=("others",)))
    send_messages(system, account(segments=("others",)))
    send_messages(system, user(BEN, changes=entered("segments")))
    send_messages(system, account(GLOBEX, changes=entered("account_segments")))

    told = [(line["event"], line["reason"]) for line in log if line["event"].endswith((".skip", ".error"))]
    assert told == [
        ("outgoing.user.skip", "not_in_segment"),
        ("outgoing.account.skip", "not_in_segment"),
        ("outgoing.user.error", "name_missing"),
        ("outgoing.account.error", "name_missing"),
    ]


def entered(name: str) -> dict[str, Any]:
    return {name: {"entered": as_segments(("vip",)), "left": []}}


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "Each says why; a value that its field cannot take is named, and the other fields are written.",
)
def test_a_value_that_does_not_fit_is_named(system: SyncSystem, log: list[Any]) -> None:
    source = field_code(system, "person", "Lead source")
    rows = [{"hull": "name", "service": "name"}, {"hull": "origin", "service": source}]
    system.change_settings(outgoing_user_attributes=rows)
    fetch_everything(system)

    send_messages(system, user(email=ADA, name="Ada", origin="from nowhere"))

    (told,) = [line for line in log if line["event"] == "outgoing.user.error"]
    assert (told["reason"], source in told["detail"], bool(told["advice"])) == ("option_unknown", True, True)
    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "Ada")]


def send_as_file(system: SyncSystem, url: str) -> None:
    """Hull hands a file over; what that asks for is done."""
    exports = system.module("jobs.exports")
    with reached_at(system, "127.0.0.1:9101"):
        exports.enqueue(system.connector_key, exports.ExportOrder(url=url, form="json", entity="person"))
        system.run_jobs()
    system.work()
