"""Changes through `/api/v1`: roles, confirmations and audit entries."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.accounts import operators
from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected
from tests.integration.console.conftest import Call, ConsoleClient
from tests.integration.console.test_failures import refused
from tests.journeys.hull_messages import failures as failed
from tests.journeys.hull_messages import fetch_everything, person
from tests.journeys.pipedrive_records import create_records
from tests.journeys.planning import FIRST_NAME, with_more
from tests.journeys.test_replays import advance, broken, fail_job, fixed
from tests.system import CONNECTOR_ID, HULL_SECRET, SyncSystem

BASE = "/api/v1/connectors/acme"


def done(system: SyncSystem, action: str) -> list[Any]:
    return system.rows("SELECT operator, subject, why FROM audit_log WHERE action = :a ORDER BY id", a=action)


# --- failures and replays ---------------------------------------------------------------------------------------------


def test_a_replay_is_previewed_started_and_ends(system: SyncSystem, script: Call) -> None:
    broken(system, 10, 11)
    fixed(system, 10)
    chosen = {"reason": "no_update_time"}

    too_few = script("POST", f"{BASE}/replays", failures=chosen, count=1, why="fixed")
    status, begun = script("POST", f"{BASE}/replays", failures=chosen, count=2, why="fixed", per_second=50)
    advance(system)
    ended = script("GET", f"{BASE}/replays/{begun['id']}")[1]
    items = script("GET", f"{BASE}/replays/{begun['id']}/items")[1]["items"]

    assert (too_few[0], too_few[1]["error"]) == (409, "more_than_expected")
    assert (status, begun["total"], begun["state"]) == (200, 2, "running")
    assert ended["counts"] == {"came_through": 1, "failed_again": 1}
    assert ended["summary"] == "2 items: 1 succeeded, 1 failed again."
    assert [each["state"] for each in items] == ["came_through", "failed_again"]
    assert script("GET", f"{BASE}/replays/{begun['id']}/items?after={items[0]['id']}")[1]["items"] == items[1:]
    assert [tuple(each) for each in done(system, "failures.replay")] == [
        ("operator@acme.test", "reason no_update_time", "fixed")
    ]


def test_a_replay_is_paused_resumed_and_aborted(system: SyncSystem, script: Call) -> None:
    broken(system, 10, 11)
    number = script("POST", f"{BASE}/replays", failures={}, count=2, why="x", per_second=0.1)[1]["id"]

    assert script("POST", f"{BASE}/replays/{number}/pause") == (200, {"done": "paused"})
    assert script("POST", f"{BASE}/replays/{number}/pause")[1]["error"] == "wrong_state"
    assert script("POST", f"{BASE}/replays/{number}/resume") == (200, {"done": "resumed"})
    assert script("POST", f"{BASE}/replays/{number}/abort") == (200, {"done": "aborted"})
    assert [each["state"] for each in script("GET", f"{BASE}/replays")[1]["replays"]] == ["aborted"]


def test_a_stopped_replay_has_a_reason_and_is_resumed(
    system: SyncSystem, script: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(system, 10, 11)
    fixed(system, 10, 11)
    number = script("POST", f"{BASE}/replays", failures={}, count=2, why="x")[1]["id"]
    fail_job(system, monkeypatch, Rejected("refused_by_pipedrive", "result no"))()

    stopped = script("GET", f"{BASE}/replays/{number}")[1]
    resumed = script("POST", f"{BASE}/replays/{number}/resume")
    advance(system)
    ended = script("GET", f"{BASE}/replays/{number}")[1]

    assert (stopped["state"], stopped["reason"], stopped["detail"]) == ("stopped", "refused_by_pipedrive", "result no")
    assert stopped["meaning"] == "Pipedrive refused the write."
    assert stopped["advice"].endswith("Then resume the replay.")
    assert resumed == (200, {"done": "resumed"})
    assert (ended["state"], ended["reason"], ended["advice"]) == ("done", None, "")
    assert ended["counts"] == {"came_through": 2}


def test_no_more_failures_are_discarded_than_counted(system: SyncSystem, script: Call) -> None:
    broken(system, 10, 11)

    assert script("POST", f"{BASE}/failures/discard", failures={}, count=1, why="tests")[0] == 409
    assert script("POST", f"{BASE}/failures/discard", failures={}, count=2)[0] == 422
    assert script("POST", f"{BASE}/failures/discard", failures={}, count=2, why="tests") == (
        200,
        {"done": "discarded", "count": 2},
    )
    assert failed(system) == []
    assert [tuple(each) for each in done(system, "failures.discard")] == [
        ("operator@acme.test", "all open failures", "tests")
    ]


def test_a_payload_is_edited_tried_and_replayed(system: SyncSystem, script: Call) -> None:
    failure_id = refused(system)
    path = f"{BASE}/failures/{failure_id}"
    payload = script("GET", path)[1]["payload"]
    payload["user"]["nickname"] = "Anna King"

    tried = script("POST", f"{path}/try-payload", payload=payload)[1]
    wrong = script("POST", f"{path}/try-payload", payload={"user": {"id": "somebody else"}})
    status, begun = script("POST", f"{path}/replay-edited", payload=payload, why="her real name")
    advance(system)

    assert [(each["path"], each["after"]) for each in tried["differences"]] == [("user.nickname", "Anna King")]
    assert tried["preview"]["kind"] == "changes"
    assert (wrong[0], wrong[1]["error"]) == (400, "payload_refused")
    assert (status, begun["total"]) == (200, 1)
    assert person(system, 1)["name"] == "Anna King"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("replays", {"failures": {}, "count": 1, "why": "x"}),
        ("failures/discard", {"failures": {}, "count": 1, "why": "x"}),
        ("failures/1/try-payload", {"payload": {}}),
        ("failures/1/replay-edited", {"payload": {}, "why": "x"}),
        ("replays/1/abort", {}),
        ("plans", {"document": {}}),
        ("plans/1/apply", {}),
        ("settings/roll-back", {"version": 1}),
        ("settings/review", {"document": {}, "base_version": 1}),
        ("runs/1/confirm", {}),
        ("fetch-changes", {}),
        ("verify", {}),
        ("pause", {}),
        ("rename", {"name": "x"}),
        ("remove", {"name": "acme"}),
        ("credentials/invite", {}),
        ("fields/read", {}),
    ],
)
def test_a_viewer_may_read_but_not_act(
    system: SyncSystem, viewer_script: Call, path: str, body: dict[str, Any]
) -> None:
    assert system
    status, problem = viewer_script("POST", f"{BASE}/{path}", **body)

    assert (status, problem["error"]) == (403, "role")


@pytest.mark.parametrize("path", ["plans/1/apply", "remove", "rename", "settings/roll-back", "credentials/check"])
def test_changes_of_connectors_and_settings_are_for_admins(system: SyncSystem, script: Call, path: str) -> None:
    assert system
    assert script("POST", f"{BASE}/{path}", name="acme")[0] == 403


# --- settings and plans -----------------------------------------------------------------------------------------------


def test_a_plan_is_created_read_and_applied(system: SyncSystem, admin_script: Call) -> None:
    create_records(system, persons=3, organizations=1)
    fetch_everything(system)
    document = with_more("incoming_user_attributes", FIRST_NAME)

    plan = admin_script("POST", f"{BASE}/plans", document=document)[1]
    items = admin_script("GET", f"{BASE}/plans/{plan['id']}/items?direction=incoming&entity=person&limit=2")[1]
    rest = admin_script(
        "GET", f"{BASE}/plans/{plan['id']}/items?direction=incoming&entity=person&after={items['next_after']}"
    )
    status, applied = admin_script("POST", f"{BASE}/plans/{plan['id']}/apply", number=3)
    system.work()

    assert (plan["state"], plan["written"], plan["changed"]) == ("ready", 3, ["incoming_user_attributes"])
    assert plan["sides"][0]["fields"][0]["name"] == "pipedrive/given"
    assert (len(items["items"]), len(rest[1]["items"])) == (2, 1)
    assert (status, applied["left_out"]) == (200, 0)
    assert system.users()[1]["pipedrive/given"] == "Person"
    assert admin_script("POST", f"{BASE}/plans/{plan['id']}/apply", number=3)[0] == 409
    assert admin_script("POST", f"{BASE}/plans/{plan['id']}/discard")[1]["error"] == "wrong_state"
    again = admin_script("POST", f"{BASE}/plans/{plan['id']}/again")[1]
    assert admin_script("POST", f"{BASE}/plans/{again['id']}/discard") == (200, {"done": "discarded"})
    assert admin_script("POST", f"{BASE}/plans", document={"daily_tokns": 1})[1]["mistakes"]


def test_settings_are_reviewed_compared_and_rolled_back(system: SyncSystem, admin_script: Call) -> None:
    system.module("sync.runs.runs")
    now = admin_script("GET", f"{BASE}/settings")[1]
    changed = now["document"] | {"link_users_in_hull": not now["document"].get("link_users_in_hull", True)}

    review = admin_script("POST", f"{BASE}/settings/review", document=changed, base_version=now["version"])
    admin_script("PUT", f"{BASE}/settings", document=changed, base_version=now["version"], force=True)
    difference = admin_script("GET", f"{BASE}/settings/difference?before={now['version']}&after={now['version'] + 1}")[
        1
    ]
    late = admin_script("POST", f"{BASE}/settings/review", document=changed, base_version=now["version"])
    back = admin_script("POST", f"{BASE}/settings/roll-back", version=now["version"], why="too early")

    assert [each["setting"] for each in difference["changes"]] == ["link_users_in_hull"]
    assert review[0] == 200
    assert review[1]["changes"] == difference["changes"]
    assert (late[0], late[1]["error"]) == (409, "settings_moved")
    assert (back[0], back[1]["version"]) == (200, now["version"] + 2)
    assert admin_script("POST", f"{BASE}/settings/roll-back", version=99)[0] == 404
    assert [tuple(each)[1:] for each in done(system, "settings.roll_back")] == [
        (f"version {now['version'] + 2}", "too early")
    ]


def test_a_large_segment_is_sent_by_a_worker(system: SyncSystem, script: Call) -> None:
    system.company.create_person(name="Ada")
    system.fetch(Entity.PERSON)
    (known,) = system.users().values()

    assert script("POST", f"{BASE}/sends", entity="person", ids=[known["id"]])[1] == {
        "done": "asked",
        "count": 1,
        "missing": 0,
    }
    assert [each["state"] for each in script("GET", f"{BASE}/sends")[1]["sends"]] == ["running"]
    assert script("POST", f"{BASE}/sends", entity="person")[0] == 400
    assert done(system, "send")[0].subject == "1 User"


# --- connectors and people --------------------------------------------------------------------------------------------


def test_pausing_and_resuming_work_as_in_the_console(system: SyncSystem, script: Call) -> None:
    system.change_rows("UPDATE connectors SET state = 'paused', pause_reason = 'unauthorized'")

    assert script("POST", f"{BASE}/pause")[0] == 200
    assert system.rows("SELECT pause_reason FROM connectors")[0].pause_reason == "connector_paused"
    assert script("POST", f"{BASE}/runs", entity="person")[1]["error"] == "impossible"
    assert script("POST", f"{BASE}/resume")[0] == 200
    system.change_rows("DELETE FROM credentials WHERE name LIKE 'pipedrive%'")
    status, problem = script("POST", f"{BASE}/resume")
    assert (status, problem["error"]) == (400, "refused")
    assert "not connected to Pipedrive" in problem["message"]


def test_a_connector_is_renamed_and_removed_by_its_name(system: SyncSystem, admin_script: Call) -> None:
    assert admin_script("POST", f"{BASE}/rename", name="a b")[0] == 400
    assert admin_script("POST", f"{BASE}/rename", name="acme2") == (200, {"done": "renamed"})
    assert admin_script("POST", "/api/v1/connectors/acme2/remove", name="acme")[1]["error"] == "not_confirmed"
    assert admin_script("POST", "/api/v1/connectors/acme2/remove", name="acme2", why="moved") == (
        200,
        {"done": "removed", "left": ""},
    )
    assert admin_script("GET", "/api/v1/connectors")[1] == {"connectors": []}
    assert [tuple(each) for each in done(system, "connector.remove")] == [("admin@acme.test", "acme2", "moved")]


def test_a_connector_is_added_once_hull_accepts_its_secret(system: SyncSystem, admin_script: Call) -> None:
    admin_script("POST", f"{BASE}/remove", name="acme")
    new = {"name": "fresh", "hull_organization": "hull.test", "hull_id": CONNECTOR_ID}

    refused_ = admin_script("POST", "/api/v1/connectors", **new, hull_secret="wrong")
    status, made = admin_script("POST", "/api/v1/connectors", **new, hull_secret=HULL_SECRET)

    assert refused_[0] == 400
    assert (status, made["connector"]["pause_reason"]) == (200, "not_connected")
    assert HULL_SECRET not in f"{made}"
    assert done(system, "connector.add")[0].subject == "fresh"


def test_operators_are_added_and_changed_and_the_last_admin_stays(system: SyncSystem, by_session: Call) -> None:
    added = by_session("POST", "/api/v1/operators", name="Bo@acme.test", role="viewer", password="long enough it is")[1]
    me = next(
        each for each in by_session("GET", "/api/v1/operators")[1]["operators"] if each["name"] == "admin@acme.test"
    )

    assert (added["name"], added["role"]) == ("bo@acme.test", "viewer")
    assert "password" not in f"{added}"
    assert by_session("POST", f"/api/v1/operators/{added['id']}", role="operator") == (200, {"done": "changed"})
    assert by_session("POST", f"/api/v1/operators/{added['id']}", state="disabled") == (200, {"done": "changed"})
    assert by_session("POST", f"/api/v1/operators/{me['id']}", role="viewer")[0] == 400
    assert by_session("POST", f"/api/v1/operators/{me['id']}")[0] == 400
    assert by_session("POST", "/api/v1/operators/999999", role="viewer")[0] == 404
    assert len(done(system, "operator.change")) == 2


@pytest.mark.parametrize(
    "body",
    [
        '{"document": {"\\u0000": 1}}',
        '{"document": {"a": "\\ud800"}}',
        '{"\\ud800": 1}',
        '{"document": ' + "[" * 5_000 + "]" * 5_000 + "}",
        '{"document": {"a": ' + "[" * 300 + "]" * 300 + "}}",
        "{",
        "[]",
        "null",
    ],
)
def test_unusable_text_is_refused_before_any_change(system: SyncSystem, admin: Any, body: str) -> None:
    from pipeline.accounts import operators  # noqa: PLC0415 - as in the fixtures

    assert system
    present = operators.who_is(admin.token)
    assert present
    headers = {"Authorization": f"Bearer {operators.create_key(present, 'test')}"}
    answer = admin.client.post(f"{BASE}/plans", data=body, headers=headers, content_type="application/json")

    assert answer.status_code in (400, 422), answer.text[:300]
    assert answer.json


def test_a_comparison_is_requested_without_a_body_too(system: SyncSystem, script: Call) -> None:
    assert script("POST", f"{BASE}/verify") == (200, {"done": "asked", "job_id": 1})
    assert script("POST", f"{BASE}/replays")[0] == 422
    assert script("POST", f"{BASE}/verify", everything=True) == (200, {"done": "asked", "job_id": 2})

    titles = [row.title for row in system.rows("SELECT title FROM jobs ORDER BY id")]
    assert titles == ["Compare 500 records of each kind", "Compare all records"]


def test_an_invalid_body_starts_nothing(system: SyncSystem, operator: ConsoleClient, anonymous: ConsoleClient) -> None:
    present = operators.who_is(operator.token)
    assert present
    key = {"Authorization": f"Bearer {operators.create_key(present, 'test')}", "Content-Type": "application/json"}

    answers = [
        anonymous.client.post(f"{BASE}/verify", data=data, headers=key) for data in ("{everything", "null", "[]")
    ]

    assert [each.status_code for each in answers] == [422] * 3
    assert system.rows("SELECT 1 FROM jobs") == []
