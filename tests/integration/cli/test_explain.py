"""`pipeline records`, `pipeline explain` and the filters of `pipeline events list`."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.command_line import Run
from tests.journeys.hull_messages import ANN, BEN, send_messages, user
from tests.prepared import prepared
from tests.system import SyncSystem


@pytest.fixture
@prepared
def ada(system: SyncSystem) -> int:
    """Ada came by a fetch, and Hull gave her another name; Ann is in no segment that is sent."""
    system.change_settings(
        outgoing_user_attributes=[{"hull": "pipedrive/name", "service": "name"}], synchronized_user_segments=["vip"]
    )
    ada = int(system.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])["id"])
    system.fetch(Entity.PERSON)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    known = {"pipedrive/id": ada}
    send_messages(system, user(str(system.users()[ada]["id"]), **known, **{"pipedrive/name": "Ada Lovelace"}))
    send_messages(system, user(ANN, segments=("other",), name="Ann"))
    return ada


@pytest.mark.parametrize("asked", ["ada@acme.com", "1"])
def test_a_record_is_shown_side_by_side(ada: int, run: Run, asked: str) -> None:
    answer = run("records", "show", "acme", asked, "--json").json

    assert (answer["pipedrive_id"], answer["state"]) == (ada, "full")
    assert [(each["claim"], each["value"]) for each in answer["claims"]] == [("email", "ada@acme.com")]
    (name,) = [each for each in answer["fields"] if each["field"]["attribute"] == "pipedrive/name"]
    assert (name["pipedrive"], name["hull"], name["field"]["arrow"]) == ("Ada Lovelace", "Ada Lovelace", "↔")
    assert "Both sides have the same values" in run("records", "show", "acme", asked).out


def test_an_unknown_field_is_refused_with_a_suggestion(ada: int, run: Run) -> None:
    result = run("explain", "acme", str(ada), "--field", "pipedrive/nam")

    assert result.code == 2
    assert "no field pipedrive/nam of this person is mapped" in result.err
    assert "did you mean pipedrive/name" in result.err


def test_the_steps_of_an_explanation_are_in_order(ada: int, run: Run) -> None:
    answer = run("explain", "acme", str(ada), "--field", "name", "--json").json

    assert [step["kind"] for step in answer["steps"]] == ["origin", "identity", "rule", "call", "read_back", "value"]
    assert answer["value"] == answer["hull"] == answer["pipedrive"] == "Ada Lovelace"
    assert "PATCH" in run("explain", "acme", str(ada), "--field", "name").out


def test_a_field_is_explained_as_of_a_moment(system: SyncSystem, ada: int, run: Run) -> None:
    system.change_rows(
        "UPDATE sync_events SET at = at - interval '1 day' WHERE event = 'incoming.user.success' AND run_id = 1"
    )
    answer = run("explain", "acme", str(ada), "--field", "pipedrive/name", "--at", "2h", "--json").json

    assert (answer["value"], answer["direction"]) == ("Ada", "incoming")


def test_an_unknown_record_names_what_can_be_searched(ada: int, run: Run) -> None:
    result = run("records", "show", "acme", "nobody@acme.com")

    assert result.code == 2
    assert "a Pipedrive id, a Hull id, an e-mail" in result.err


def test_a_record_is_found_and_its_history_is_listed(ada: int, run: Run) -> None:
    (found,) = run("records", "search", "acme", "ada@acme.com", "--json").json["records"]
    history = run("records", "history", "acme", "ada@acme.com")

    assert (found["entity"], found["pipedrive_id"]) == ("person", ada)
    assert "outgoing.user.success" in history.out
    assert run("explain", "acme", str(ada)).code == 2


def test_a_user_that_was_never_joined_is_explained(ada: int, run: Run) -> None:
    answer = run("records", "show", "acme", ANN, "--json").json

    assert (answer["pipedrive_id"], answer["state"]) == (None, "never joined")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--direction", "outgoing", "--outcome", "success"], ["outgoing.user.success"]),
        (["--reason", "not_in_segment"], ["outgoing.user.skip"]),
        (["--run", "1"], ["incoming.user.success"]),
        (["--record", ANN], ["outgoing.user.skip"]),
        (["--record", BEN], []),
        (["--since", "1h", "--outcome", "skip"], ["outgoing.user.skip"]),
        (["--until", "1h"], []),
    ],
)
def test_events_are_chosen_by_any_filter(ada: int, run: Run, options: list[str], expected: list[str]) -> None:
    assert [each["event"] for each in run("events", "list", "acme", *options, "--json").json["events"]] == expected


def test_an_event_names_its_delivery_and_its_call(ada: int, run: Run) -> None:
    (sent,) = run("events", "list", "acme", "--event", "outgoing.*.success", "--json").json["events"]

    assert sent["delivery_id"] == 1
    assert {"method": "PATCH", "path": f"/api/v2/persons/{ada}", "status": 200, "tokens": 5}.items() <= sent[
        "exchange"
    ].items()
