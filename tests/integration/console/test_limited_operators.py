"""An operator who is limited to some connectors sees and does nothing of the others; viewers read no payloads."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from db.session import transaction
from pipeline.accounts import operators
from pipeline.accounts.operators import OperatorRefused
from pipeline.cli.program import program
from pipeline.domain.kinds import Role
from tests import accounts
from tests.integration.console.conftest import Call, ConsoleClient
from tests.integration.console.test_api_looking import foreign
from tests.journeys.test_replays import broken
from tests.system import SyncSystem

NAME = "operator@acme.test"


@pytest.fixture
def limited(system: SyncSystem, operator: ConsoleClient) -> ConsoleClient:
    """An operator who may see `acme` alone; there is `globex` too."""
    foreign()
    accounts.limit(NAME, [system.connector_key])
    return operator


def test_other_connectors_are_not_there(limited: ConsoleClient) -> None:
    assert limited.get("/c/acme/").status_code == 200
    for path in ("/c/globex/", "/c/globex/logs", "/c/globex/settings", "/c/nobody/"):
        assert limited.get(path).status_code == 404, path
    assert limited.post("/c/globex/actions/pause", why="").status_code == 404
    home = limited.text("/")
    assert "acme" in home
    assert "globex" not in home


def test_pages_of_all_connectors_are_refused(limited: ConsoleClient) -> None:
    assert [limited.get(path).status_code for path in ("/workers", "/flower/", "/flower/tasks")] == [403] * 3
    assert 'href="/workers"' not in limited.text("/"), "what they may not see is not offered"


def test_the_api_and_keys_are_limited_too(limited: ConsoleClient, script: Call) -> None:
    assert [each["connector"]["name"] for each in script("GET", "/api/v1/connectors")[1]["connectors"]] == ["acme"]
    assert script("GET", "/api/v1/connectors/acme")[0] == 200
    assert script("GET", "/api/v1/connectors/globex")[0] == 404
    assert script("POST", "/api/v1/connectors/globex/pause")[0] == 404
    assert script("GET", "/api/v1/workers")[0] == 403


def test_alerts_of_others_are_not_shown(system: SyncSystem, limited: ConsoleClient, script: Call) -> None:
    system.change_rows(
        "INSERT INTO alerts (connector_key, rule, state, sentence, sink_states)"
        " SELECT key, 'auth_lost', 'open', name || ' lost', '{}' FROM connectors"
    )

    page, listed = limited.text("/alerts"), script("GET", "/api/v1/alerts")[1]["alerts"]

    assert "acme lost" in page
    assert "globex lost" not in page
    assert [each["connector"] for each in listed] == ["acme"]


def test_lists_of_past_alerts_are_as_long_as_for_others(
    system: SyncSystem, limited: ConsoleClient, script: Call
) -> None:
    """What is left out does not end the list: its next page begins after the last alert that was shown."""
    system.change_rows(
        "INSERT INTO alerts (connector_key, rule, state, sentence, sink_states, resolved_at)"
        " SELECT key, 'auth_lost', 'resolved', name || ' lost', '{}', now() FROM connectors, generate_series(1, 60)"
        "  ORDER BY name"
    )

    listed = script("GET", "/api/v1/alerts/past?limit=20")[1]["alerts"]

    assert [each["connector"] for each in listed] == ["acme"] * 20
    assert limited.text("/alerts").count("acme lost") == 50


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_no_connector_at_all_is_a_limit_too(by_session: Call, role: str) -> None:
    status, added = by_session("POST", "/api/v1/operators", name="bo", role=role, connectors=[])

    assert (status, added["connector_keys"]) == (200, [])


def test_a_change_that_is_refused_in_part_changes_nothing(
    system: SyncSystem, limited: ConsoleClient, by_session: Call
) -> None:
    (theirs,) = [each for each in by_session("GET", "/api/v1/operators")[1]["operators"] if each["name"] == NAME]

    status, _ = by_session("POST", f"/api/v1/operators/{theirs['id']}", role="admin", connectors=["acme"])

    assert status == 400
    assert theirs in by_session("GET", "/api/v1/operators")[1]["operators"]
    assert by_session("POST", f"/api/v1/operators/{theirs['id']}", role="viewer", connectors=["globex"])[0] == 200
    (now,) = [each for each in by_session("GET", "/api/v1/operators")[1]["operators"] if each["name"] == NAME]
    assert (now["role"], now["connector_keys"] != [system.connector_key]) == ("viewer", True)


def test_an_admin_is_never_limited(database: str) -> None:
    assert database
    accounts.add("boss", None, Role.ADMIN)
    accounts.add("bo", None, Role.VIEWER, connector_keys=[1])

    with pytest.raises(OperatorRefused, match="every connector"):
        accounts.limit("boss", [1])
    accounts.change("bo", role=Role.ADMIN)

    with transaction() as session:
        found = operators.rows.find_operator(session, "bo")
        assert found is not None
        assert found.connector_keys is None


@pytest.mark.parametrize("way", ["console", "api", "command"])
def test_a_limit_is_set_and_lifted(
    system: SyncSystem, limited: ConsoleClient, admin: ConsoleClient, by_session: Call, way: str
) -> None:
    (theirs,) = [each for each in by_session("GET", "/api/v1/operators")[1]["operators"] if each["name"] == NAME]
    assert theirs["connector_keys"] == [system.connector_key]

    def change(*names: str) -> Any:
        if way == "api":
            return by_session("POST", f"/api/v1/operators/{theirs['id']}", connectors=list(names) or "all")[0] == 200
        if way == "command":
            done = CliRunner().invoke(program, ["operators", "change", NAME, "--connectors", *(names or ("all",))])
            return done.exit_code == 0
        form = {"connector": list(names)} if names else {"all": "1"}
        return admin.post(f"/operators/{theirs['id']}/limit", **form).status_code == 303

    assert change("globex")
    assert [limited.get(path).status_code for path in ("/c/acme/", "/c/globex/")] == [404, 200]
    assert change()
    assert [limited.get(path).status_code for path in ("/c/acme/", "/c/globex/", "/workers")] == [200] * 3


def test_an_unknown_connector_is_named(by_session: Call) -> None:
    status, problem = by_session("POST", "/api/v1/operators", name="bo", role="viewer", connectors=["nobody"])

    assert status == 400
    assert "'nobody'" in problem["message"]


def test_viewers_read_no_payload(
    system: SyncSystem, viewer: ConsoleClient, operator: ConsoleClient, viewer_script: Call, script: Call
) -> None:
    broken(system, 10)
    (row,) = system.rows("SELECT id FROM failures WHERE payload IS NOT NULL LIMIT 1")
    path = f"/api/v1/connectors/acme/failures/{row.id}"

    assert "As received," in operator.text(f"/c/acme/failures/{row.id}")
    assert "As received," not in viewer.text(f"/c/acme/failures/{row.id}")
    assert script("GET", path)[1]["payload"] is not None
    seen = viewer_script("GET", path)[1]
    assert (seen["payload"], seen["exchange"]) == (None, None)
    assert seen["payload_bytes"] > 0
