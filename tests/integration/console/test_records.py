"""One record on one page: both sides, its history and the explanation of each field; and the search."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.integration.console.conftest import ConsoleClient
from tests.journeys.hull_messages import ANN, send_messages, user
from tests.prepared import prepared
from tests.system import CONNECTOR_ID, SyncSystem

RECORDS = "/c/acme/records"
HOSTILE = "<script>alert(1)</script>{{7*7}}\u202eevil\u200b"


@pytest.fixture
@prepared
def ada(system: SyncSystem) -> dict[str, Any]:
    """Ada of Acme is on both sides, and both are joined."""
    system.change_settings(outgoing_user_attributes=[{"hull": "pipedrive/name", "service": "name"}])
    acme = system.company.create_organization(name="Acme")["id"]
    person = system.company.create_person(
        name="Ada", org_id=acme, emails=[{"value": "ada@acme.com", "primary": True}, {"value": "a@home.test"}]
    )
    for entity in (Entity.PERSON, Entity.ORGANIZATION):
        system.fetch(entity)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    return dict(person)


def hull_id(system: SyncSystem, pipedrive_id: int) -> str:
    return str(system.users()[pipedrive_id]["id"])


def rename(system: SyncSystem, pipedrive_id: int, name: str) -> None:
    """Hull gives the User another name, and it is written to Pipedrive."""
    send_messages(system, user(hull_id(system, pipedrive_id), **{"pipedrive/name": name, "pipedrive/id": pipedrive_id}))


def test_a_record_shows_both_sides_and_that_they_agree(
    system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient
) -> None:
    page = viewer.text(f"{RECORDS}/person/{ada['id']}")

    assert "Both sides have the same values in all 7 mapped fields, as last read and sent." in page
    assert "ada@acme.com" in page
    assert hull_id(system, ada["id"]) in page
    assert f'href="/c/acme/records/organization/{ada["org_id"]}"' in page
    assert "an alias" in page  # the second e-mail


def test_the_history_shows_changes_in_both_directions(
    system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient
) -> None:
    rename(system, ada["id"], "Ada Lovelace")
    page = viewer.text(f"{RECORDS}/person/{ada['id']}")

    assert "<del><bdi>Ada</bdi></del>" in page
    assert "<ins><bdi>Ada Lovelace</bdi></ins>" in page
    assert "PATCH 200" in page
    assert "5 tokens" in page


def test_an_explanation_leads_from_the_delivery_to_the_value(
    system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient
) -> None:
    rename(system, ada["id"], "Ada Lovelace")
    story = viewer.text(f"{RECORDS}/person/{ada['id']}/explain?field=pipedrive/name")
    (event,) = system.rows("SELECT delivery_id, exchange FROM sync_events WHERE event = 'outgoing.user.success'")

    assert f'href="/c/acme/deliveries/{event.delivery_id}"' in story
    order = ["Report of Hull", "Match", "Mapping rule", "Write to Pipedrive", "Read-back", "Values"]
    places = [story.index(f"<h2>{title}") for title in order]
    assert places == sorted(places)
    assert f"PATCH /api/v2/persons/{ada['id']} → 200 · 5 tokens" in story
    assert "version 2, by test" in story


def test_an_explanation_of_a_past_moment(system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient) -> None:
    system.change_rows("UPDATE sync_events SET at = at - interval '1 day'")
    rename(system, ada["id"], "Ada Lovelace")
    before = viewer.text(f"{RECORDS}/person/{ada['id']}/explain?field=pipedrive/name&at=1h")

    assert "<h2>Fetch" in before
    assert "Ada Lovelace" not in before
    assert viewer.get(f"{RECORDS}/person/{ada['id']}/explain?at=yesterday").status_code == 400


def test_a_rejected_value_is_shown_beside_the_current_one(
    system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient
) -> None:
    system.change_rows(
        "INSERT INTO sync_events (connector_key, event, entity, pipedrive_id, cause, reason, detail)"
        " VALUES (:c, 'outgoing.user.error', 'person', :id, 'notification', 'too_long', 'name: 300 characters')",
        c=system.connector_key,
        id=ada["id"],
    )

    assert "rejected" in viewer.text(f"{RECORDS}/person/{ada['id']}")
    assert "Rejected value" in viewer.text(f"{RECORDS}/person/{ada['id']}/explain?field=name")


@pytest.mark.parametrize("asked", ["ada@acme.com", " ADA@acme.com ", "a@home.test"])
def test_a_search_with_one_result_opens_the_record(
    system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient, asked: str
) -> None:
    answer = viewer.client.get(RECORDS, query_string={"q": asked})

    assert (answer.status_code, answer.headers["Location"]) == (303, f"{RECORDS}/person/{ada['id']}")


def test_a_hull_id_leads_to_the_record_and_a_number_to_all_that_have_it(
    system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient
) -> None:
    by_hull = viewer.get(f"{RECORDS}?q={hull_id(system, ada['id'])}")
    both = viewer.text(f"{RECORDS}?q={ada['id']}")

    assert by_hull.headers["Location"] == f"{RECORDS}/person/{ada['id']}"
    assert "2 matching records." in both


def test_a_search_without_a_result_names_what_can_be_searched(system: SyncSystem, viewer: ConsoleClient) -> None:
    page = viewer.client.get(RECORDS, query_string={"q": HOSTILE}).text

    assert "No matching record." in page
    assert "an e-mail, a domain" in page
    assert "<script>" not in page.replace("<script src", "")


def test_a_user_that_was_never_joined_has_a_page(
    system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient
) -> None:
    system.change_settings(synchronized_user_segments=["other"])
    send_messages(system, user(ANN, name="Ann"))

    page = viewer.text(f"{RECORDS}/person/hull/{ANN}")
    assert "This User is not matched with a Person in Pipedrive." in page
    assert "not_in_segment" in page
    assert viewer.get(f"{RECORDS}?q={ANN}").headers["Location"] == f"{RECORDS}/person/hull/{ANN}"
    assert viewer.get(f"{RECORDS}/person/hull/{ANN}/explain?field=name").status_code == 200


def test_a_matched_user_has_the_address_of_its_pipedrive_id(
    system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient
) -> None:
    answer = viewer.get(f"{RECORDS}/person/hull/{hull_id(system, ada['id'])}")

    assert answer.headers["Location"] == f"{RECORDS}/person/{ada['id']}"


def test_hostile_values_are_shown_harmlessly(system: SyncSystem, viewer: ConsoleClient) -> None:
    person = system.company.create_person(name=HOSTILE, emails=[{"value": "x@evil.test", "primary": True}])
    system.fetch(Entity.PERSON)
    for path in ("", "/explain?field=name"):
        page = viewer.text(f"{RECORDS}/person/{person['id']}{path}")

        assert "<script>alert" not in page
        assert "{{7*7}}" in page
        assert "\u202e" not in page
        assert "\\u202e" in page


def test_a_value_of_a_megabyte_is_cut(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.change_settings(
        incoming_user_attributes=[{"hull": "pipedrive/name", "service": "name"}, {"hull": "x", "service": "email"}]
    )
    system.company.put_raw(
        "person", {"id": 9, "name": "y" * 1_000_000, "update_time": "2026-01-01T00:00:00Z", "emails": [{"value": "e"}]}
    )
    system.fetch(Entity.PERSON)

    page = viewer.get(f"{RECORDS}/person/9")
    assert page.status_code in (200, 404)  # Hull takes no text of this length
    assert len(page.data) < 3_000_000


@pytest.mark.parametrize(
    "path",
    [
        "/person/4711",
        "/person/99999999999999999999999",
        "/deal/1",
        "/person/hull/nobody",
        "/person/4711/explain?field=name",
        "/organization/hull/%00",
    ],
)
def test_unknown_records_are_not_found(system: SyncSystem, viewer: ConsoleClient, path: str) -> None:
    assert viewer.get(f"{RECORDS}{path}").status_code == 404


def test_a_record_of_another_connector_is_not_found(
    system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient
) -> None:
    system.change_rows(
        "INSERT INTO connectors (id, name, hull_organization) VALUES (:id, 'globex', 'globex.test')",
        id=CONNECTOR_ID[::-1],
    )
    system.change_rows(
        "INSERT INTO settings_versions (connector_key, version, document, author)"
        " SELECT key, 1, '{}', 'test' FROM connectors WHERE name = 'globex'"
    )

    assert viewer.get(f"/c/globex/records/person/{ada['id']}").status_code == 404
    assert "No matching record." in viewer.text("/c/globex/records?q=ada@acme.com")


def test_records_need_a_login(system: SyncSystem, ada: dict[str, Any], anonymous: ConsoleClient) -> None:
    for path in (f"/person/{ada['id']}", f"/person/{ada['id']}/explain", "?q=ada@acme.com"):
        assert anonymous.get(f"{RECORDS}{path}").status_code == 303


def test_hull_is_on_the_left_as_in_mappings(system: SyncSystem, ada: dict[str, Any], viewer: ConsoleClient) -> None:
    page = viewer.text(f"{RECORDS}/person/{ada['id']}")
    row = page.partition('title="name">')[2].partition("</tr>")[0]

    assert row.index('data-label="Hull"') < row.index("↔") < row.index('data-label="Pipedrive"')


def test_a_missing_record_keeps_the_layout_of_its_connector(viewer: ConsoleClient, system: SyncSystem) -> None:
    answer = viewer.get(f"{RECORDS}/person/999999")

    assert answer.status_code == 404
    assert f'action="{RECORDS}"' in answer.text  # the search that the next step speaks of
    assert 'aria-current="page"' not in answer.text


def test_values_that_hull_has_not_reported_are_not_equal(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.change_settings(outgoing_user_attributes=[{"hull": "job", "service": "phone"}])
    system.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])
    system.fetch(Entity.PERSON)

    assert "mapped fields; 1 outgoing value not received from Hull yet." in viewer.text("/c/acme/records/person/1")


def test_an_unknown_address_leads_back(viewer: ConsoleClient, anonymous: ConsoleClient) -> None:
    answer = viewer.get("/nonsense", Accept="text/html")

    assert answer.status_code == 404
    assert "This address does not exist." in answer.text
    assert 'href="/"' in answer.text
    assert anonymous.get("/nonsense", Accept="text/html").mimetype == "text/plain"
    assert viewer.get("/nonsense").json["error"] == "not_found"


def test_the_identifiers_of_a_deleted_record_are_released(
    system: SyncSystem, operator: ConsoleClient, viewer: ConsoleClient
) -> None:
    system.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])
    system.fetch(Entity.PERSON)
    page = "/c/acme/records/person/1"

    refused = operator.post(f"{page}/release-claims", why="")
    system.change_rows("UPDATE id_mappings SET state = 'deleted', deleted_at = now()")
    offered = ["Release identifiers" in each.text(page) for each in (operator, viewer)]
    forbidden = viewer.post(f"{page}/release-claims", why="")
    released = operator.post(f"{page}/release-claims", why="she is another now")

    assert (refused.status_code, "keeps its identifiers" in refused.text) == (409, True)
    assert (offered, forbidden.status_code) == ([True, False], 403)
    assert released.headers["Location"] == page
    assert "Release identifiers" not in operator.text(page)
    (entry,) = system.rows("SELECT operator, subject, why FROM audit_log WHERE action = 'claims.release'")
    assert tuple(entry) == ("operator@acme.test", "person 1", "she is another now")
