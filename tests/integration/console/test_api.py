"""`/api/v1` for scripts: keys, roles, and what each operation answers."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from db.session import transaction
from pipeline.accounts import operators
from pipeline.domain.kinds import Entity, Role
from tests.integration.console.conftest import ConsoleClient
from tests.system import SyncSystem

BASE = "/api/v1/connectors/acme"
PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize("key", ["", "hpk_wrong", "Bearer", "\x80"])
def test_a_request_without_a_valid_key_is_refused(anonymous: ConsoleClient, key: str) -> None:
    with capture_logs() as lines:
        answer = anonymous.client.get("/api/v1/me", headers={"Authorization": f"Bearer {key}"})

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert [(line["why"], line["operation"]) for line in lines if line["event"] == "api.refused"] == [
        ("credentials", "api.show_me")
    ]
    assert "hpk_" not in str(lines)
    assert answer.json
    assert answer.json["error"] == "unauthorized"


def test_a_refusal_for_the_role_is_logged_without_the_name_in_the_address(script: Any) -> None:
    with capture_logs() as lines:
        status, _ = script("POST", "/api/v1/operators/ana@acme.test/log-out")

    assert status == 403
    assert [(line["why"], line["operation"]) for line in lines if line["event"] == "api.refused"] == [
        ("role", "api.log_operator_out")
    ]
    assert "ana@" not in str(lines)


def test_a_key_acts_as_its_owner(script: Any) -> None:
    assert script("GET", "/api/v1/me") == (200, {"name": "operator@acme.test", "role": "operator"})


def test_the_session_of_a_browser_reads_and_with_its_token_acts(operator: ConsoleClient, system: SyncSystem) -> None:
    assert system
    path = f"{BASE}/pause"

    assert operator.get("/api/v1/me").status_code == 200
    assert operator.client.post(path).status_code == 403
    answer = operator.client.post(path, headers={"X-CSRF-Token": operators.csrf_of(operator.token)})
    assert (answer.status_code, answer.json) == (200, {"done": "paused"})


def test_the_key_of_a_disabled_operator_is_refused(script: Any) -> None:
    with transaction() as session:
        session.execute(text("UPDATE operators SET state = 'disabled'"))

    assert script("GET", "/api/v1/me")[0] == 401


def test_roles_are_enforced(script: Any, system: SyncSystem) -> None:
    assert system
    status, problem = script("PUT", f"{BASE}/settings", document={}, base_version=1)

    assert (status, problem["error"]) == (403, "role")
    assert "needs the role admin" in problem["message"]
    assert script("GET", "/api/v1/audit")[0] == 403


def test_connectors_are_listed_with_their_status(script: Any, system: SyncSystem) -> None:
    assert system
    status, found = script("GET", "/api/v1/connectors")

    assert status == 200
    (acme,) = found["connectors"]
    assert (acme["connector"]["name"], acme["status"]["open_failures"]) == ("acme", 0)
    assert script("GET", BASE) == (200, acme)
    assert script("GET", "/api/v1/connectors/nobody")[0] == 404
    assert script("GET", "/api/v1/connectors/%00")[0] == 404


def test_a_fetch_from_beginning_to_end(script: Any, system: SyncSystem) -> None:
    status, run = script("POST", f"{BASE}/runs", entity="person")
    again, problem = script("POST", f"{BASE}/runs", entity="person")
    system.work()

    assert (status, run["state"], run["cause"]) == (200, "running", "operator@acme.test")
    assert (again, problem["error"]) == (409, "run_in_progress")
    assert script("GET", f"{BASE}/runs/{run['id']}")[1]["state"] == "done"
    assert [each["id"] for each in script("GET", f"{BASE}/runs")[1]["runs"]] == [run["id"]]
    assert script("GET", f"{BASE}/runs?before={run['id']}")[1]["runs"] == []
    assert script("POST", f"{BASE}/runs/{run['id']}/cancel")[0] == 409


def test_cancelling_a_run_is_audited(script: Any, admin_script: Any, system: SyncSystem) -> None:
    run_id = system.start(Entity.PERSON)

    assert script("POST", f"{BASE}/runs/{run_id}/cancel") == (200, {"done": "cancelled"})
    entries = admin_script("GET", "/api/v1/audit")[1]["entries"]
    assert ("run.cancel", f"run {run_id}") in [(each["action"], each["subject"]) for each in entries]


def test_the_run_of_another_connector_is_not_found(script: Any, system: SyncSystem) -> None:
    run_id = system.start(Entity.PERSON)
    with transaction() as session:
        session.execute(
            text("INSERT INTO connectors (id, name, hull_organization) VALUES ('f' , 'globex', 'globex.test')")
        )

    assert script("GET", f"/api/v1/connectors/globex/runs/{run_id}")[0] == 404


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"entity": "deal"}, "entity"),
        ({"entity": "person", "sinse": "2026-01-01T00:00:00Z"}, "sinse"),
        ({"entity": "person", "since": "soon"}, "since"),
    ],
)
def test_a_mistake_is_named_with_its_place(script: Any, system: SyncSystem, body: dict[str, Any], place: str) -> None:
    assert system
    status, problem = script("POST", f"{BASE}/runs", **body)

    assert (status, problem["error"]) == (422, "malformed")
    assert any(mistake.startswith(place) for mistake in problem["mistakes"])


def test_settings_are_saved_unless_another_version_was_saved_since(admin_script: Any, system: SyncSystem) -> None:
    now = admin_script("GET", f"{BASE}/settings")[1]
    changed = now["document"] | {"link_users_in_hull": False}

    status, made = admin_script("PUT", f"{BASE}/settings", document=changed, base_version=now["version"], force=True)
    late, problem = admin_script("PUT", f"{BASE}/settings", document=changed, base_version=now["version"], force=True)
    refused, mistakes = admin_script("PUT", f"{BASE}/settings", document={"x": 1}, base_version=made["version"])

    assert (status, made["version"], made["author"]) == (200, now["version"] + 1, "admin@acme.test")
    assert (late, problem["error"]) == (409, "settings_moved")
    assert (refused, mistakes["error"]) == (400, "settings_refused")
    assert mistakes["mistakes"]
    history = admin_script("GET", f"{BASE}/settings/history")[1]["versions"]
    assert [each["version"] for each in history] == [made["version"], now["version"]]
    assert system.rows("SELECT version FROM settings_versions ORDER BY version DESC LIMIT 1")[0][0] == made["version"]


def test_a_send_names_its_users(script: Any, system: SyncSystem) -> None:
    system.company.create_person(name="Ada")
    system.fetch(Entity.PERSON)
    (known,) = system.users().values()

    assert script("POST", f"{BASE}/sends", entity="person", ids=[known["id"]]) == (
        200,
        {"done": "asked", "count": 1, "missing": 0},
    )
    assert script("POST", f"{BASE}/sends", entity="person")[0] == 400


def test_the_description_names_every_operation_with_its_role(anonymous: ConsoleClient, app: Any) -> None:
    spec = anonymous.get("/api/openapi.json").json
    assert spec
    described = {
        (path.replace("{", "<").replace("}", ">"), verb) for path, verbs in spec["paths"].items() for verb in verbs
    }
    served = {
        (rule.rule.replace("<int:", "<"), verb.lower())
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1")
        for verb in rule.methods - {"HEAD", "OPTIONS"}
    }

    assert described == served
    for verbs in spec["paths"].values():
        for operation in verbs.values():
            assert operation["summary"]
            assert operation["security"] == [{"key": []}]
            assert any(f"Needs the role {role}" in operation["description"] for role in Role)
            assert {"401", "403"} <= set(operation["responses"])


def test_model_names_are_unique() -> None:
    """The description names them: of two, one would be described as the other."""
    names = [
        name
        for path in (PROJECT / "pipeline/web/api.py", *(PROJECT / "pipeline/operations").glob("*.py"))
        for name in re.findall(r"^class (\w+)\(", path.read_text(), re.MULTILINE)
    ]

    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_a_too_large_body_is_refused(script: Any, system: SyncSystem) -> None:
    assert system
    status, problem = script("POST", f"{BASE}/plans", document={"x": "y" * 3_000_000})

    assert (status, problem["error"]) == (413, "too_large")
