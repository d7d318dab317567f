"""`pipeline connectors`: nothing is stored before both systems have accepted the credentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from pipeline.errors import Rejected
from pipeline.settings import settings
from tests.command_line import CommandResult, Run
from tests.system import API_TOKEN, CONNECTOR_ID, HULL_SECRET, SyncSystem


@pytest.fixture
def bare(system: SyncSystem, run: Run) -> SyncSystem:
    """The system before anybody has added its connector."""
    assert run("connectors", "remove", "acme", "--yes").code == 0
    return system


def add(run: Run, folder: Path, *more: str, secret: str = HULL_SECRET, token: str = API_TOKEN) -> CommandResult:
    (folder / "hull").write_text(f"{secret}\n")
    (folder / "pipedrive").write_text(token)
    return run(
        "connectors", "add", "globex", "--hull-organization", "hull.test", "--hull-id", CONNECTOR_ID,
        "--hull-secret-file", str(folder / "hull"), "--pipedrive-token-file", str(folder / "pipedrive"), "--json", *more,
    )  # fmt: skip


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Instead, the connector can be added with the API token of a Pipedrive administrator.",
)
def test_adds_a_connector_with_valid_credentials(bare: SyncSystem, run: Run, tmp_path: Path) -> None:
    result = add(run, tmp_path)

    assert (result.code, result.json["connector"]["name"], result.json["connector"]["state"]) == (0, "globex", "active")
    assert result.json["connector"]["pipedrive_company"].endswith(".pipedrive.com")
    sealed = bare.rows("SELECT name, ciphertext FROM credentials ORDER BY name")
    assert {"hull_secret", "pipedrive_api_token"} <= {row.name for row in sealed}
    assert all(HULL_SECRET.encode() not in bytes(row.ciphertext) for row in sealed)
    assert [row.entity for row in bare.rows("SELECT entity FROM field_definitions ORDER BY 1")] == [
        "organization",
        "person",
    ]


@pytest.mark.guide("Incoming Users", "Adding a connector registers the webhooks, for Persons and for Organizations.")
def test_adding_creates_the_webhooks(bare: SyncSystem, run: Run, tmp_path: Path) -> None:
    add(run, tmp_path)

    assert subscribed(bare) == ["organization", "person"]


def test_a_connector_is_added_without_webhooks_if_pipedrive_cannot_reach_us(
    bare: SyncSystem, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_connector_key: int) -> list[str]:
        raise Rejected("bad_request", "invalid or non-reachable URL")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.operations.connectors.ensure_webhooks", refuse)
        patch.setattr("pipeline.operations.webhooks.subscribe_to_what_is_missing", refuse)
        assert "non-reachable URL" in add(run, tmp_path).json["webhooks"]
        assert run("connectors", "webhooks", "globex").code == 1
    assert run("connectors", "webhooks", "globex").code == 0
    assert subscribed(bare) == ["organization", "person"]


def test_a_new_connector_links_users_by_default(bare: SyncSystem, run: Run, tmp_path: Path) -> None:
    add(run, tmp_path)

    assert run("settings", "show", "globex").json["link_users_in_hull"] is True


def test_settings_stored_in_hull_are_imported(bare: SyncSystem, run: Run, tmp_path: Path) -> None:
    bare.hull.change_connector(
        {
            "private_settings": {
                "access_token": "not-ours",
                "link_users_in_hull": False,
                "incoming_account_attributes": None,
                "incoming_user_attributes": [{"hull": "pipedrive/name", "service": "name", "overwrite": True}],
            }
        }
    )
    add(run, tmp_path)
    shown = run("settings", "show", "globex").json

    assert shown["link_users_in_hull"] is False
    assert shown["incoming_user_attributes"] == [{"hull": "pipedrive/name", "service": "name"}]
    assert "not-ours" not in str(shown)


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Both systems check the credentials before anything is stored: wrong credentials are refused immediately.",
)
@pytest.mark.parametrize(
    ("secrets", "remote"),
    [({"secret": "wrong"}, "Hull: hull_refused"), ({"token": "wrong"}, "Pipedrive: unauthorized")],
)
def test_refused_credentials_leave_nothing_behind(
    secrets: dict[str, str], remote: str, bare: SyncSystem, run: Run, tmp_path: Path
) -> None:
    result = add(run, tmp_path, **secrets)

    assert result.code == 1
    assert remote in result.err
    assert bare.rows("SELECT 1 FROM connectors UNION ALL SELECT 1 FROM credentials") == []


def test_settings_with_mistakes_leave_nothing_behind(bare: SyncSystem, run: Run, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"incoming_user_attributes": [{"hull": "a", "service": "nmae"}]}')
    result = add(run, tmp_path, "--settings-file", str(tmp_path / "settings.json"))

    assert result.code == 1
    assert "no Person field 'nmae'; did you mean name?" in result.err
    assert bare.rows("SELECT 1 FROM connectors") == []


def test_the_same_connector_twice_is_refused(system: SyncSystem, run: Run, tmp_path: Path) -> None:
    result = add(run, tmp_path)

    assert result.code == 1
    assert "already" in result.err


def test_an_empty_secret_file_is_bad_usage(bare: SyncSystem, run: Run, tmp_path: Path) -> None:
    assert add(run, tmp_path, secret="").code == 2


def test_a_connector_is_named_by_id_or_name(system: SyncSystem, run: Run) -> None:
    by_name, by_id = (
        run("connectors", "show", "acme", "--json").json,
        run("connectors", "show", CONNECTOR_ID, "--json").json,
    )

    assert (by_name["id"], by_name["name"]) == (by_id["id"], by_id["name"]) == (CONNECTOR_ID, "acme")


def test_an_unknown_connector_exits_with_2_and_lists_the_existing_ones(system: SyncSystem, run: Run) -> None:
    result = run("connectors", "show", "acne")

    assert result.code == 2
    assert "Choose one of: acme" in result.err


def test_an_unknown_connector_of_the_embedded_database_names_the_database(
    system: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cli.calling.settings", lambda: settings().replace(database_url=None))
    result = run("connectors", "show", "acne")

    assert "in the embedded database in " in result.err
    assert "DATABASE_URL is not set" in result.err


def test_no_secret_is_ever_shown(system: SyncSystem, run: Run) -> None:
    shown = run("connectors", "list", "--json").out + run("connectors", "show", "acme", "--json").out

    assert HULL_SECRET not in shown
    assert API_TOKEN not in shown


def test_pauses_and_resumes(system: SyncSystem, run: Run) -> None:
    def state() -> Any:
        (found,) = run("connectors", "list", "--json").json["connectors"]
        return found["connector"]["state"], found["connector"]["pause_reason"]

    assert run("connectors", "pause", "acme", "--json").json == {"done": "paused"}
    assert state() == ("paused", "connector_paused")
    assert run("fetch", "persons", "acme").code == 1
    assert run("connectors", "resume", "acme", "--json").json == {"done": "resumed"}
    assert state() == ("active", None)


def test_removing_needs_confirmation(system: SyncSystem, run: Run) -> None:
    assert run("connectors", "remove", "acme", text="n\n").code == 1
    assert len(run("connectors", "list", "--json").json["connectors"]) == 1


def test_removing_deletes_everything(system: SyncSystem, run: Run) -> None:
    system.company.create_person(name="Ada")
    run("fetch", "persons", "acme")
    system.work()
    run("connectors", "remove", "acme", "--yes")

    kept = system.rows("SELECT 1 FROM id_mappings UNION ALL SELECT 1 FROM runs UNION ALL SELECT 1 FROM sync_events")
    assert kept == []


def test_new_credentials_resume_a_connector_that_lost_access(system: SyncSystem, run: Run, tmp_path: Path) -> None:
    system.rows(
        "UPDATE connectors SET state = 'paused', pause_reason = 'unauthorized', pipedrive_company = :url RETURNING id",
        url=company_url(system),
    )
    (tmp_path / "token").write_text(API_TOKEN)
    result = run("credentials", "replace-api-token", "acme", "--secret-file", str(tmp_path / "token"))

    assert result.code == 0
    assert run("connectors", "show", "acme", "--json").json["state"] == "active"


def test_a_token_of_another_company_is_refused(system: SyncSystem, run: Run, tmp_path: Path) -> None:
    system.rows("UPDATE connectors SET pipedrive_company = 'https://another.pipedrive.com' RETURNING id")
    (tmp_path / "token").write_text(API_TOKEN)
    result = run("credentials", "replace-api-token", "acme", "--secret-file", str(tmp_path / "token"))

    assert result.code == 1
    assert "another.pipedrive.com" in result.err


def subscribed(system: SyncSystem) -> list[str]:
    answer = Client(system.pipedrive.wsgi_app).get("/api/v1/webhooks", headers={"x-api-token": API_TOKEN})
    return sorted(row["event_object"] for row in answer.json["data"])


def company_url(system: SyncSystem) -> str:
    answer = Client(system.pipedrive.wsgi_app).get("/api/v1/users/me", headers={"x-api-token": API_TOKEN})
    return f"https://{answer.json['data']['company_domain']}.pipedrive.com"


def test_the_webhooks_of_a_connector_are_shown(system: SyncSystem, run: Run) -> None:
    result = run("connectors", "webhooks", "acme", "--json").json

    assert [(row["entity"], row["state"], row["recreated"]) for row in result["subscriptions"]] == [
        ("organization", "active", 0),
        ("person", "active", 0),
    ]
    assert "Webhooks are healthy" in run("connectors", "show", "acme").out


def test_removing_deletes_our_webhooks_in_pipedrive(system: SyncSystem, run: Run) -> None:
    run("connectors", "webhooks", "acme")
    before = subscribed(system)

    result = run("connectors", "remove", "acme", "--yes", "--json").json

    assert (before, subscribed(system), result["left"]) == (["organization", "person"], [], "")


def test_removing_reports_webhooks_that_could_not_be_deleted(system: SyncSystem, run: Run) -> None:
    run("connectors", "webhooks", "acme")
    system.pipedrive.faults.add("/api/v1/webhooks", "status", status=401, count=None)

    result = run("connectors", "remove", "acme", "--yes")

    assert result.code == 0
    assert "could not be deleted in Pipedrive: unauthorized" in result.out
    assert system.rows("SELECT 1 FROM connectors") == []
