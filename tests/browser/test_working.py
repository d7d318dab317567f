"""Daily work with a connector: map, plan, fetch, correct, explain; also with the keyboard only."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from pipeline.domain.kinds import Entity
from tests.browser.life import ADMIN, CONNECTOR, edit_user, field_codes, known_users, open_failures, refuse, wait_for
from tests.browser.places import BASE, find_places
from tests.browser.running import PASSWORD, RunningPipeline, log_in

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def admin(active_page: Page, active_connector: RunningPipeline) -> Page:
    log_in(active_page, active_connector, ADMIN, "admin")
    return active_page


def test_a_custom_field_is_mapped_planned_applied_and_in_hull(admin: Page, active_connector: RunningPipeline) -> None:
    admin.goto(f"{BASE}/settings/users-in")
    add_row(admin, "incoming_user_attributes", "pipedrive/direct_line", "Direct line")
    admin.get_by_role("button", name="Review changes…").click()
    admin.get_by_role("button", name="Preview all records").click()
    apply = admin.get_by_role("button", name="Apply to")
    expect(apply).to_be_visible(timeout=60_000)
    expect(admin.locator(".answer")).to_contain_text("would be updated (pipedrive/direct_line)")
    number = admin.get_by_label("Type")
    if number.count():
        number.fill(re.findall(r"Type ([\d,]+)", admin.locator("label[for=f-number]").inner_text())[0])
    apply.click()

    expect(admin.get_by_text("Applied by")).to_be_visible(timeout=60_000)
    wait_for(lambda: any(each.get("pipedrive/direct_line") for each in known_users(active_connector).values()))


def test_a_fetch_is_started_from_actions_and_watched_to_its_end(admin: Page) -> None:
    admin.goto(f"{BASE}/actions")
    admin.get_by_role("link", name="Fetch All Organizations…").click()
    expect(admin.locator(".answer")).to_contain_text("tokens and")
    admin.get_by_role("button", name="Fetch all").click()

    expect(admin.get_by_role("heading", name="Full fetch of Organizations")).to_be_visible()
    expect(admin.locator(".answer")).to_contain_text("Done:", timeout=60_000)  # the page updates itself
    expect(admin.locator(".answer")).to_contain_text("none failed")


def test_what_pipedrive_refused_is_corrected_and_replayed(admin: Page, active_connector: RunningPipeline) -> None:
    code, number = field_codes(active_connector, Entity.PERSON)["Job title"], 30
    user = known_users(active_connector)[number]
    refuse(active_connector, number)
    edit_user(active_connector, user, job_title="Tresurer")
    wait_for(lambda: any(each["record_id"] == user["id"] for each in open_failures(active_connector)))
    refuse(active_connector)

    admin.goto(f"{BASE}/failures?direction=outgoing")
    admin.locator("a[href*='/failures/group/']").first.click()
    admin.get_by_role("link", name=user["id"]).click()
    expect(admin.get_by_text("An automation does not let this record be changed.")).not_to_have_count(0)
    admin.get_by_role("link", name="Edit payload…").click()
    text = admin.get_by_label("Payload, JSON")
    text.fill(text.input_value().replace("Tresurer", "Treasurer"))
    admin.get_by_role("button", name="Show changes").click()
    expect(admin.locator("del").first).to_have_text("Tresurer")
    admin.get_by_label("Why").fill("the title was misspelt")
    admin.get_by_role("button", name="Replay with this payload").click()

    expect(admin.locator(".answer")).to_contain_text("succeeded", timeout=60_000)  # the page updates itself
    expect(admin.locator("tbody tr").first).to_contain_text("succeeded")
    assert person(active_connector, number)["custom_fields"][code] == "Treasurer"


def test_a_field_is_explained_from_its_record(admin: Page) -> None:
    admin.goto(f"{BASE}/records/person/1")
    admin.get_by_role("row", name="Name Ada Lovelace").get_by_role("link", name="Explain").click()

    expect(admin.locator(".answer")).to_contain_text("pipedrive/name")
    for heading in ("Mapping rule", "Match", "Message to Hull"):
        expect(admin.get_by_role("heading", name=heading)).to_be_visible()
    admin.get_by_role("link", name="Person 1", exact=True).click()
    expect(admin.get_by_role("heading", name="Ada Lovelace")).to_be_visible()


def test_the_keyboard_alone_reaches_a_record_and_comes_back(
    active_page: Page, active_connector: RunningPipeline
) -> None:
    page, keyboard = active_page, active_page.keyboard
    active_connector.add_operator(ADMIN, "admin")
    page.goto("/login")
    keyboard.type(ADMIN)  # the field has the focus already
    keyboard.press("Tab")
    keyboard.type(PASSWORD)
    keyboard.press("Enter")
    page.wait_for_url("**/")
    tab_to(page, CONNECTOR)
    keyboard.press("Enter")
    page.wait_for_url(f"**{BASE}/")
    tab_to(page, "Search records by id, e-mail or domain")
    keyboard.type("1")
    keyboard.press("Enter")
    page.wait_for_url("**/records?q=1")
    tab_to(page, "Person 1")
    keyboard.press("Enter")

    expect(page.get_by_role("heading", name="Ada Lovelace")).to_be_visible()
    keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.go_back()
    expect(page.get_by_role("link", name="Person 1", exact=True)).to_be_visible()


def test_everything_can_be_read_and_sent_without_javascript(
    plain_page: Page, active_connector: RunningPipeline
) -> None:
    log_in(plain_page, active_connector, ADMIN, "admin")
    for name, path in find_places(plain_page).items():
        if name not in ("flower", "refused"):
            answer = plain_page.goto(path)
            assert answer is not None
            assert (answer.status, plain_page.locator(".answer").count()) == (200, 1), f"{name}: {path}"

    plain_page.goto(f"{BASE}/settings/users-out")
    plain_page.get_by_role("button", name="Add row").click()
    expect(plain_page.locator("table.editor tbody").last.locator("input").first).to_have_value("")
    plain_page.goto(f"{BASE}/actions")
    plain_page.get_by_role("button", name="Fetch changes now").click()
    expect(plain_page.get_by_role("status")).to_be_visible()


def add_row(page: Page, setting: str, attribute: str, field: str) -> None:
    page.get_by_role("button", name="Add row").click()
    row = page.locator("table.editor tbody").count() - 1
    page.locator(f"[name={setting}-{row}-hull]").fill(attribute)
    page.locator(f"[name={setting}-{row}-service]").select_option(label=field)


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element of this name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED) == name:
            return
    raise AssertionError(f"the keyboard does not reach {name!r}")


FOCUSED = """() => {
    const held = document.activeElement
    return (held.getAttribute('aria-label') || held.innerText || '').trim()
}"""


def person(running: RunningPipeline, number: int) -> Any:
    return running.pipedrive("GET", f"/api/v2/persons/{number}")
