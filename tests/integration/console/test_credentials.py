"""Credentials: what is shown, what is replaced, what is refused; and what people do to a whole connector."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from db import connector as connectors
from db.audit import latest_entries
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.authorising import PUBLIC_URL, Person, installed_app
from tests.integration.console.conftest import ConsoleClient
from tests.system import API_TOKEN, HULL_SECRET, SyncSystem

AT = "/c/acme/credentials"
ACTIONS = "/c/acme/actions"


def connector(system: SyncSystem) -> Any:
    with transaction() as session:
        return connectors.get_connector(session, system.connector_key)


def acts() -> list[tuple[str, str]]:
    with transaction() as session:
        return [(each.action, each.subject) for each in latest_entries(session) if each.action != "operator.login"]


def test_it_is_shown_how_the_connector_is_connected_and_never_a_secret(
    viewer: ConsoleClient, admin: ConsoleClient, system: SyncSystem
) -> None:
    page = viewer.text(AT)

    assert "an API token" in page
    assert "hull.test" in page
    assert connector(system).id in page
    assert "<form" not in page.partition("<main")[2]
    for text in (page, admin.text(AT)):
        assert API_TOKEN not in text
        assert HULL_SECRET not in text


def test_credentials_are_checked_now(admin: ConsoleClient, system: SyncSystem) -> None:
    good = html.unescape(admin.post(f"{AT}/check").text)
    system.hull.connector["secret"] = "another"
    bad = html.unescape(admin.post(f"{AT}/check").text)

    assert "Pipedrive accepts the credentials of user" in good
    assert "Hull accepts the secret" in good
    assert "▲" in bad


def test_a_secret_is_checked_before_it_is_stored(admin: ConsoleClient, system: SyncSystem) -> None:
    refused = admin.post(f"{AT}/replace-hull-secret", secret="canary-wrong")
    empty = admin.post(f"{AT}/replace-hull-secret", secret=" ")
    done = admin.post(f"{AT}/replace-hull-secret", secret=HULL_SECRET)

    assert (refused.status_code, empty.status_code, done.status_code) == (400, 400, 303)
    assert "canary-wrong" not in refused.text
    assert acts() == [("credentials.hull", "acme")]


def test_a_token_is_replaced_and_a_pause_it_caused_ends(admin: ConsoleClient, system: SyncSystem) -> None:
    system.change_rows("UPDATE connectors SET state = 'paused', pause_reason = 'unauthorized'")

    refused = admin.post(f"{AT}/replace-api-token", token="canary-wrong")
    still = connector(system).state
    done = admin.post(f"{AT}/replace-api-token", token=API_TOKEN)

    assert (refused.status_code, still, done.status_code) == (400, "paused", 303)
    assert connector(system).state == "active"
    assert system.rows("SELECT count(*) AS n FROM field_definitions")[0].n == 2
    assert ("credentials.pipedrive_token", "acme") in acts()


def test_oauth_begins_with_a_link_and_ends_connected(admin: ConsoleClient, system: SyncSystem) -> None:
    with installed_app(system):
        page = admin.post(f"{AT}/connect").text
        link = html.unescape(re.findall(r'href="([^"]*/auth/pipedrive[^"]*)"', page)[0])
        person = Person(system)
        back = person.browser.get(person.decide(person.press(link.removeprefix(PUBLIC_URL))))

        assert "is connected to" in back.text
        assert 'href="/c/acme/set-up"' in back.text
        assert "OAuth" in admin.text(AT)
    assert ("credentials.invite", "acme") in acts()


def test_without_an_app_the_missing_settings_are_named(admin: ConsoleClient, system: SyncSystem) -> None:
    assert "PIPEDRIVE_CLIENT_ID" in admin.text(AT)
    assert admin.post(f"{AT}/connect").status_code == 400


def test_the_page_pauses_with_a_reason_and_resumes(admin: ConsoleClient, system: SyncSystem) -> None:
    pause, resume = f"{ACTIONS}/pause", f"{ACTIONS}/resume"
    assert f'action="{pause}"' in admin.text(AT)
    admin.post(pause, why="we move")
    paused = connector(system)

    assert (paused.state, paused.pause_reason) == ("paused", "connector_paused")
    assert f'action="{resume}"' in admin.text(AT)
    with transaction() as session:
        assert latest_entries(session)[0].why == "we move"


@pytest.mark.parametrize("name", ["", "a b", "../x", "<script>", "x" * 64])
def test_an_invalid_name_is_rejected(admin: ConsoleClient, system: SyncSystem, name: str) -> None:
    answer = admin.post(f"{AT}/rename", wanted=name)

    assert answer.status_code == 400
    assert "<script>" not in answer.text.replace("<script src", "")
    assert connector(system).name == "acme"


def test_a_connector_is_renamed(admin: ConsoleClient, system: SyncSystem) -> None:
    answer = admin.post(f"{AT}/rename", wanted="acme-emea")

    assert answer.headers["Location"] == "/c/acme-emea/credentials"
    assert admin.get("/c/acme-emea/credentials").status_code == 200
    assert admin.get(AT).status_code == 404


def test_a_connector_is_removed_by_typing_its_name(admin: ConsoleClient, system: SyncSystem) -> None:
    system.company.create_person(name="Ada")
    system.fetch(Entity.PERSON)

    refused = admin.post(f"{AT}/remove", confirm="acm")
    done = admin.post(f"{AT}/remove", confirm="acme", why="moved")

    assert (refused.status_code, done.headers["Location"]) == (400, "/")
    assert system.rows("SELECT 1 FROM connectors") == []
    assert system.rows("SELECT 1 FROM id_mappings") == []
    assert acts()[0] == ("connector.remove", "acme")


def test_only_admins_do_any_of_this(viewer: ConsoleClient, operator: ConsoleClient, system: SyncSystem) -> None:
    paths = ("replace-hull-secret", "replace-api-token", "connect", "check", "rename", "remove")
    for console in (viewer, operator):
        assert {console.post(f"{AT}/{path}", confirm="acme", wanted="x").status_code for path in paths} == {403}
    assert connector(system).state == "active"
