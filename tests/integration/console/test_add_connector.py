"""Add Connector: all steps to the first record in Hull, and their errors."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from db import connector as connectors
from db.session import transaction
from tests.authorising import PUBLIC_URL, Person, installed_app
from tests.integration.console.conftest import ConsoleClient
from tests.system import API_TOKEN, CONNECTOR_ID, HULL_SECRET, SyncSystem

FORM = {"name": "globex", "organization": "hull.test", "hull_id": CONNECTOR_ID, "secret": HULL_SECRET}
AT = "/c/globex/set-up"


@pytest.fixture
def empty(system: SyncSystem) -> SyncSystem:
    """The remote systems with a few records, and no connector yet."""
    with transaction() as session:
        connectors.remove_rows_of(session, system.connector_key)
    system.company.create_organization(name="Globex", website="https://www.globex.test")
    system.company.create_person(name="Ada Lovelace", emails=[{"value": "ada@globex.test", "primary": True}])
    return system


def key_of(name: str) -> int:
    with transaction() as session:
        found = connectors.find_connector(session, name)
    assert found
    return found.key


def document(name: str = "globex") -> dict[str, Any]:
    with transaction() as session:
        return connectors.settings_in_force(session, key_of(name)).document


def checked(page: str, name: str) -> list[str]:
    """What is ticked on a page under a name."""
    boxes = re.findall(rf'<input type="checkbox" name="{name}" value="([^"]*)" checked', page)
    return [html.unescape(each) for each in boxes]


def to_the_first_fetch(admin: ConsoleClient, system: SyncSystem) -> None:
    mappings = admin.text(f"{AT}/mappings")
    chosen = {name: checked(mappings, name) for name in ("incoming_user_attributes", "incoming_account_attributes")}
    assert admin.post(f"{AT}/mappings", **chosen).headers["Location"] == f"{AT}/segments"
    assert admin.post(f"{AT}/segments").headers["Location"] == f"{AT}/first-fetch"
    warning = admin.text(f"{AT}/first-fetch")
    assert "cannot be filtered" in warning
    assert "10 tokens" in warning
    assert admin.post(f"{AT}/first-fetch", what=["persons", "organizations"]).status_code == 303
    assert "Fetching" in admin.text(f"{AT}/first-fetch")
    system.work()


def test_a_newcomer_comes_to_the_first_record_with_a_token(admin: ConsoleClient, empty: SyncSystem) -> None:
    assert "Add Connector" in admin.text("/connectors/new")

    made = admin.post("/connectors/new", **FORM)
    assert made.headers["Location"] == f"{AT}/pipedrive"
    assert admin.get(AT).headers["Location"] == f"{AT}/pipedrive"
    assert admin.post(f"{AT}/pipedrive", token=API_TOKEN).headers["Location"] == f"{AT}/identity"
    identity = admin.text(f"{AT}/identity")
    assert re.search(r'<option value="emails?" selected>Email', identity)
    assert admin.post(f"{AT}/identity", user_email="email", account_domain="website").status_code == 303
    assert admin.get(AT).headers["Location"] == f"{AT}/mappings"
    to_the_first_fetch(admin, empty)

    page = admin.text(f"{AT}/first-fetch")
    assert "2 records of Pipedrive are in Hull: globex is set up" in page
    (user,) = empty.users().values()
    assert (user["email"], user["pipedrive/name"]) == ("ada@globex.test", "Ada Lovelace")
    assert document()["synchronized_user_segments"] == []


def test_a_connector_is_set_up_by_oauth_to_the_first_record(admin: ConsoleClient, empty: SyncSystem) -> None:
    with installed_app(empty):
        admin.post("/connectors/new", **FORM)
        page = admin.post(f"{AT}/pipedrive/connect").text
        assert "connector_secret" not in page
        link = html.unescape(re.findall(r'href="([^"]*/auth/pipedrive[^"]*)"', page)[0])
        person = Person(empty)
        back = person.browser.get(person.decide(person.press(link.removeprefix(PUBLIC_URL)))).text
        assert f'href="{AT}"' in back
        assert admin.get(AT).headers["Location"] == f"{AT}/identity"
        admin.post(f"{AT}/identity", user_email="email", account_domain="website")
        to_the_first_fetch(admin, empty)

        assert "is set up" in admin.text(f"{AT}/first-fetch")
        assert len(empty.users()) == 1


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"secret": "canary-wrong"}, "Hull:"),
        ({"secret": ""}, "Fill in"),
        ({"name": "a b"}, "is not a valid connector name"),
        ({"name": "<script>{{7*7}}"}, "is not a valid connector name"),
        ({"hull_id": "0" * 24}, "Hull:"),
    ],
)
def test_mistakes_are_shown_and_entries_are_kept(
    admin: ConsoleClient, empty: SyncSystem, wrong: dict[str, str], expected: str
) -> None:
    answer = admin.post("/connectors/new", **FORM | wrong)

    assert answer.status_code == 400
    assert expected in html.unescape(answer.text)
    assert 'value="hull.test"' in answer.text
    assert "canary" not in answer.text
    assert "<script>{{" not in answer.text
    assert empty.rows("SELECT 1 FROM connectors") == []


def test_a_name_or_id_in_use_is_reported(admin: ConsoleClient, system: SyncSystem) -> None:
    answer = admin.post("/connectors/new", **FORM)

    assert answer.status_code == 400
    assert "already" in answer.text


def test_a_wrong_token_leaves_the_step_where_it_was(admin: ConsoleClient, empty: SyncSystem) -> None:
    admin.post("/connectors/new", **FORM)

    answer = admin.post(f"{AT}/pipedrive", token="canary-wrong")

    assert answer.status_code == 400
    assert "canary-wrong" not in answer.text
    assert admin.post(f"{AT}/pipedrive", token="").status_code == 400
    assert admin.get(AT).headers["Location"] == f"{AT}/pipedrive"
    assert admin.post(f"{AT}/first-fetch", what="persons").status_code == 400
    assert "not connected yet" in admin.text(f"{AT}/mappings")


def test_steps_are_resumable_and_may_be_taken_again(admin: ConsoleClient, empty: SyncSystem) -> None:
    admin.post("/connectors/new", **FORM)
    admin.post(f"{AT}/pipedrive", token=API_TOKEN)

    assert admin.post(f"{AT}/mappings").status_code == 400
    admin.post(f"{AT}/mappings", incoming_user_attributes=["phone"])
    again = admin.text(f"{AT}/mappings")
    admin.post(f"{AT}/mappings", incoming_user_attributes=["job_title", "made-up"])

    assert "1 mapping already saved" in again
    rows = document()["incoming_user_attributes"]
    assert rows[0]["service"] == "phone"
    assert "made-up" not in str(rows)
    assert admin.get(AT).headers["Location"] == f"{AT}/segments"
    assert admin.get(f"{AT}/nothing").status_code == 404


def test_rows_point_to_the_side_that_gets_the_value(admin: ConsoleClient, system: SyncSystem) -> None:
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", admin.text("/c/acme/set-up/mappings")))

    incoming, outgoing = page.partition("User ← Person")[2].split("User → Person")
    assert "first_name ← First name" in incoming
    assert "→" not in incoming
    assert "first_name → First name" in outgoing
    assert "←" not in outgoing


def test_only_admins_add_connectors(viewer: ConsoleClient, operator: ConsoleClient, system: SyncSystem) -> None:
    for console in (viewer, operator):
        assert console.get("/connectors/new").status_code == 403
        assert console.post("/connectors/new", **FORM).status_code == 403
        for step in ("pipedrive", "identity", "mappings", "segments", "first-fetch"):
            assert console.get(f"/c/acme/set-up/{step}").status_code == 403
            assert console.post(f"/c/acme/set-up/{step}").status_code == 403
