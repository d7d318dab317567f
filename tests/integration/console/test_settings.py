"""The settings editor: what is shown, edited, reviewed, saved, refused, and rolled back."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

from db import connector as connectors
from db.audit import latest_entries
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.errors import Retryable
from pipeline.operations.fields import segments_of
from pipeline.web.console.settings_forms import SECTIONS
from tests.integration.console.conftest import ConsoleClient
from tests.prepared import prepared
from tests.system import SyncSystem

AT = "/c/acme/settings"


def in_force(system: SyncSystem) -> tuple[int, str, dict[str, Any]]:
    with transaction() as session:
        now = connectors.settings_in_force(session, system.connector_key)
        return now.version, now.author, now.document


def rows_form(setting: str, *rows: tuple[str, str]) -> dict[str, str]:
    form = {}
    for number, (hull, service) in enumerate(rows):
        form |= {f"{setting}-{number}-hull": hull, f"{setting}-{number}-service": service}
    return form


def hidden(page: str, name: str) -> str:
    """The value of a hidden field of a page."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, page
    return html.unescape(found[1])


def save(console: ConsoleClient, reviewed: str) -> Any:
    return console.post(f"{AT}/save", document=hidden(reviewed, "document"), base=hidden(reviewed, "base"))


@pytest.fixture
@prepared
def fields(system: SyncSystem) -> SyncSystem:
    """The system once a few records were fetched."""
    system.company.create_person(
        name="Ada Lovelace", emails=[{"value": "ada@acme.test", "primary": True, "label": "work"}]
    )
    system.fetch(Entity.PERSON)
    return system


def code_of(system: SyncSystem, name: str, entity: str = "person") -> str:
    rows = system.rows("SELECT rows FROM field_definitions WHERE entity = :e", e=entity)[0].rows
    return next(str(row["field_code"]) for row in rows if row["field_name"] == name)


def test_every_section_is_there_for_a_viewer(viewer: ConsoleClient, system: SyncSystem) -> None:
    page = viewer.text(AT)

    assert "Version 1 is in force" in page
    for section in SECTIONS:
        assert section.question in html.unescape(viewer.text(f"{AT}/{section.slug}"))
    assert viewer.get(f"{AT}/nothing").status_code == 404


def test_a_mapping_is_shown_by_names_and_on_a_real_record(viewer: ConsoleClient, fields: SyncSystem) -> None:
    page = html.unescape(viewer.text(f"{AT}/users-in"))

    assert "Ada Lovelace" in page
    assert '<optgroup label="Custom fields">' in page
    assert "the address marked as primary" in page
    assert "<strong><bdi>ada@acme.test</bdi></strong> ← <bdi>" in page  # Hull on the left, as in the row above it


def test_another_sample_is_chosen_by_its_id(viewer: ConsoleClient, fields: SyncSystem) -> None:
    fields.company.create_person(name="Bo Builder")
    fields.fetch(Entity.PERSON)
    (bo,) = fields.rows("SELECT max(pipedrive_id) AS id FROM id_mappings")

    assert "Bo Builder" in viewer.text(f"{AT}/users-in?record={bo.id}")
    for wanted in ("999999", "x" * 5000, "²", "<script>"):
        page = viewer.client.get(f"{AT}/users-in", query_string={"record": wanted})
        assert page.status_code == 200
        assert "There is no Person with the id" in page.text
        assert "<script>" not in page.text.replace("<script src", "")


def test_rows_are_added_and_removed_without_a_script(admin: ConsoleClient, fields: SyncSystem) -> None:
    setting = "outgoing_user_attributes"
    form = rows_form(setting, ("plan", "name"), ("tier", "phone"))

    more = admin.post(f"{AT}/users-out", do=f"add:{setting}", base="1", **form).text
    fewer = admin.post(f"{AT}/users-out", do=f"remove:{setting}:0", base="1", **form).text

    assert f'name="{setting}-2-hull"' in more
    assert 'value="plan"' in more
    assert f'name="{setting}-1-hull"' not in fewer
    assert ('value="plan"' in fewer, 'value="tier"' in fewer) == (False, True)
    assert in_force(fields)[0] == 1


def test_reviewed_settings_are_saved_with_their_author_and_sent_to_hull(
    admin: ConsoleClient, fields: SyncSystem
) -> None:
    fields.change_rows("""UPDATE connectors SET hull_settings = '{"link_users_in_hull": true}'""")
    setting = "outgoing_user_attributes"
    title = code_of(fields, "Job title")
    reviewed = admin.post(
        f"{AT}/users-out", do="review", base="1", **rows_form(setting, ("job", title), ("", ""), ("phone", "phone"))
    ).text

    assert "Saving makes version 2, with 2 changes" in reviewed
    assert "job → Job title" in html.unescape(reviewed)
    assert in_force(fields)[0] == 1
    answer = save(admin, reviewed)

    assert answer.status_code == 303
    version, author, document = in_force(fields)
    assert (version, author) == (2, "admin@acme.test")
    assert document[setting] == [{"hull": "job", "service": title}, {"hull": "phone", "service": "phone"}]
    assert "daily_tokens" not in document
    with transaction() as session:
        newest = latest_entries(session)[0]
    assert (newest.action, newest.subject) == ("settings.save", "version 2")
    fields.run_jobs()
    assert fields.hull.connector["private_settings"][setting] == document[setting]
    fields.run_jobs()
    assert in_force(fields)[0] == 2


def test_consequences_are_shown_before_saving(admin: ConsoleClient, fields: SyncSystem) -> None:
    form = rows_form("incoming_user_attributes", ("pipedrive/name", "name"))

    reviewed = html.unescape(admin.post(f"{AT}/users-in", do="review", base="1", **form).text)

    assert re.search(r"About \d Persons are evaluated again from stored data, without tokens", reviewed)
    assert "pipedrive/email ← Email" in reviewed


def test_every_mistake_is_shown_at_its_row(admin: ConsoleClient, fields: SyncSystem) -> None:
    setting = "outgoing_user_attributes"
    form = rows_form(setting, ("a", "nmae"), ("b", "phone"), ("c", "phoen"))

    answer = admin.post(f"{AT}/users-out", do="review", base="1", **form)

    page = html.unescape(answer.text)
    assert answer.status_code == 400
    assert page.count('<tbody class="wrong">') == 2
    assert "did you mean name" in page
    assert 'value="nmae" selected' in page
    assert in_force(fields)[0] == 1


def test_an_incomplete_row_is_named(admin: ConsoleClient, fields: SyncSystem) -> None:
    form = rows_form("outgoing_user_attributes", ("plan", ""), ("", "phone"))

    answer = admin.post(f"{AT}/users-out", do="review", base="1", **form)

    assert answer.status_code == 400
    assert "choose a Pipedrive field" in answer.text
    assert "name a Hull attribute" in answer.text


def test_a_field_used_twice_is_named(admin: ConsoleClient, fields: SyncSystem) -> None:
    form = rows_form("outgoing_user_attributes", ("a", "name"), ("b", "name"))

    answer = admin.post(f"{AT}/users-out", do="review", base="1", **form)

    assert answer.status_code == 400
    assert "service is used more than once: name" in answer.text


def test_invalid_values_are_named_and_kept(admin: ConsoleClient, system: SyncSystem) -> None:
    answer = admin.post(
        f"{AT}/schedules", do="review", base="1", full_fetch_cron="61 * * * *", incremental_minutes="often"
    )

    assert answer.status_code == 400
    assert 'value="61 * * * *"' in answer.text
    assert 'value="often"' in answer.text
    assert "Minutes between fetches of changes" in answer.text


def test_a_cron_is_shown_with_its_next_three_times(admin: ConsoleClient, system: SyncSystem) -> None:
    page = admin.post(
        f"{AT}/schedules", do="preview", base="1", full_fetch_cron="15 2 * * *", incremental_minutes="5"
    ).text

    assert "Every night at 02:15 utc" in page or "at 02:15 UTC" in page
    assert page.count("<time datetime=") == 3


def test_switches_shares_and_segments_are_read_from_forms(admin: ConsoleClient, system: SyncSystem) -> None:
    budget = admin.post(
        f"{AT}/budget", do="review", base="1", daily_tokens="60,000", live_reserve="25 %", change_stop_share="20"
    ).text
    save(admin, budget)
    links = admin.post(f"{AT}/links", do="review", base="2", link_users_in_hull="on", deletion_stop_share="10").text
    save(admin, links)
    segments = admin.post(f"{AT}/segments", do="review", base="3", **{"synchronized_user_segments-more": "s1, s2"}).text
    save(admin, segments)

    version, _, document = in_force(system)
    assert version == 4
    assert (document["daily_tokens"], document["live_reserve"]) == (60_000, 0.25)
    assert document["ignore_deleted_users"] is False
    assert "deletion_stop_share" not in document
    assert (document["synchronized_user_segments"], document["synchronized_account_segments"]) == (["s1", "s2"], [])


def test_every_setting_of_a_section_is_on_its_page(viewer: ConsoleClient, system: SyncSystem) -> None:
    for section in SECTIONS:
        if section.kind == "values":
            page = viewer.text(f"{AT}/{section.slug}")
            assert [name for name in section.settings if f'name="{name}"' not in page] == []


def test_every_setting_is_in_one_section_of_the_console() -> None:
    placed = [name for section in SECTIONS for name in section.settings]

    assert sorted(placed) == sorted(ConnectorSettings.model_fields)


def test_segments_are_chosen_by_the_names_hull_gives_them(viewer: ConsoleClient, system: SyncSystem) -> None:
    system.hull.define_segment("user", "Trial users", [])

    segments_of.forget()

    page = viewer.text(f"{AT}/segments")

    assert "Trial users" in page


def test_the_later_of_two_saves_is_refused_with_the_changes_since(admin: ConsoleClient, system: SyncSystem) -> None:
    mine = admin.post(
        f"{AT}/budget", do="review", base="1", daily_tokens="60000", live_reserve="20", change_stop_share="20"
    ).text
    theirs = admin.post(f"{AT}/schedules", do="review", base="1", full_fetch_cron="", incremental_minutes="5").text
    save(admin, theirs)

    refused = save(admin, mine)

    assert refused.status_code == 409
    assert "Schedule of full fetches" in refused.text
    assert in_force(system)[0] == 2
    again = admin.post(f"{AT}/rebase", document=hidden(refused.text, "document"), base=hidden(refused.text, "base"))
    assert "Saving makes version 3, with 1 change" in again.text
    save(admin, again.text)
    document = in_force(system)[2]
    assert (document["daily_tokens"], document["full_fetch_cron"]) == (60_000, "")


def test_any_version_can_be_rolled_back_to(admin: ConsoleClient, system: SyncSystem) -> None:
    for tokens in ("1000", "2000"):
        base = str(in_force(system)[0])
        save(
            admin,
            admin.post(
                f"{AT}/budget", do="review", base=base, daily_tokens=tokens, live_reserve="20", change_stop_share="20"
            ).text,
        )

    history = html.unescape(admin.text(f"{AT}/history"))
    compared = html.unescape(admin.text(f"{AT}/history/3?against=1"))
    unconfirmed = admin.post(f"{AT}/history/2/roll-back", confirm="3")
    done = admin.post(f"{AT}/history/2/roll-back", confirm="2", why="too many tokens")

    assert "Version 3 is in force" in history
    assert "30,000" in compared
    assert (unconfirmed.status_code, done.status_code) == (400, 303)
    version, author, document = in_force(system)
    assert (version, author, document["daily_tokens"]) == (4, "admin@acme.test", 1000)
    with transaction() as session:
        newest = latest_entries(session)[0]
    assert (newest.action, newest.subject, newest.why) == ("settings.roll_back", "version 4", "too many tokens")
    assert admin.get(f"{AT}/history/99").status_code == 404
    assert admin.get(f"{AT}/history/1?against=99").status_code == 404


def test_history_is_paged_by_version(viewer: ConsoleClient, system: SyncSystem) -> None:
    for tokens in range(1, 41):
        system.change_settings(daily_tokens=tokens)

    first = viewer.text(f"{AT}/history")

    assert "before=12" in first
    assert 'href="/c/acme/settings/history/11"' in viewer.text(f"{AT}/history?before=12")


def test_experts_edit_json(admin: ConsoleClient, system: SyncSystem) -> None:
    document = in_force(system)[2] | {"daily_tokens": 5}

    wrong = admin.post(f"{AT}/json", base="1", document="{")
    mistaken = admin.post(f"{AT}/json", base="1", document=json.dumps({"colour": "red"}))
    save(admin, admin.post(f"{AT}/json", base="1", document=json.dumps(document)).text)

    assert (wrong.status_code, mistaken.status_code) == (400, 400)
    assert "colour" in mistaken.text
    assert in_force(system)[2]["daily_tokens"] == 5


def test_viewers_and_operators_change_nothing(
    viewer: ConsoleClient, operator: ConsoleClient, system: SyncSystem
) -> None:
    for console in (viewer, operator):
        for path in ("users-in", "save", "json", "rebase", "read-fields", "history/1/roll-back"):
            assert console.post(f"{AT}/{path}", base="1", document="{}", confirm="1").status_code == 403
        assert "Review changes…" not in console.text(f"{AT}/users-in")
    assert in_force(system)[0] == 1


def test_incomplete_forms_are_refused(admin: ConsoleClient, system: SyncSystem) -> None:
    assert admin.post(f"{AT}/save", base="1", document="[]").status_code == 404
    assert admin.post(f"{AT}/save", base="one", document="{}").status_code == 404
    assert admin.post(f"{AT}/users-in", base="99", do="review").status_code == 404


def test_hostile_names_are_shown_harmlessly(admin: ConsoleClient, fields: SyncSystem) -> None:
    hostile = "<script>{{7*7}}</script>\u202e\u200b"
    fields.company.create_person(name=hostile)
    fields.fetch(Entity.PERSON)
    form = rows_form("outgoing_user_attributes", (hostile, hostile))

    page = admin.post(f"{AT}/users-out", do="review", base="1", **form).text + admin.text(f"{AT}/users-in")

    assert "<script>{{" not in page
    assert "style=" not in page


def test_fields_that_cannot_be_read_are_reported_in_sentences(
    admin: ConsoleClient, system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Retryable("remote_unavailable", "503")

    monkeypatch.setattr(system.module("sync.definitions"), "fetch_fields", fail)
    admin.post(f"{AT}/read-fields", section="")
    page = html.unescape(admin.text(AT))

    assert "Pipedrive's fields could not be read. The remote system could not be reached" in page
    assert ". The page shows the fields that were read last." in page
    assert "remote_unavailable" not in page


def test_settings_of_another_connector_are_out_of_reach(admin: ConsoleClient, system: SyncSystem) -> None:
    assert admin.get("/c/globex/settings").status_code == 404
    assert admin.post("/c/globex/settings/save", base="1", document="{}").status_code == 404
