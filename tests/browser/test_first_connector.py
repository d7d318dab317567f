"""From an empty console to the first record: add a connector by OAuth, and map a field with a live preview."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Page, expect

from tests.browser.running import RunningPipeline, log_in

pytestmark = [pytest.mark.slow, pytest.mark.browser]

NEWCOMER_S = 300
"""Maximum time of a new admin until the first synchronized record; the automated browser takes much less."""


@pytest.fixture
def admin(page: Page, running: RunningPipeline) -> Page:
    """An admin, logged in."""
    log_in(page, running, "newcomer", "admin")
    return page


def test_a_newcomer_adds_a_connector_by_oauth_sees_the_first_records_and_maps_a_field(
    admin: Page, running: RunningPipeline
) -> None:
    begun = time.monotonic()
    admin.get_by_role("link", name="Add Connector").click()
    expect(admin.get_by_text("Using the sandbox?")).to_be_visible()
    admin.get_by_label("Name", exact=True).fill("first")
    admin.get_by_label("Organization").fill(running.sandbox["hull_organization"])
    admin.locator("[name=hull_id]").fill(running.sandbox["hull_connector_id"])
    admin.locator("[name=secret]").fill(running.sandbox["hull_secret"])
    admin.get_by_role("button", name="Add Connector").click()
    admin.get_by_role("button", name="Connect to Pipedrive").click()
    admin.get_by_role("link", name="Continue to Pipedrive").click()
    admin.get_by_role("button", name="Sign in to Pipedrive").click()
    admin.get_by_text("Allow").first.click()
    admin.get_by_role("link", name="Continue in the console").click()
    admin.get_by_role("button", name="Save identity").click()
    admin.get_by_role("button", name="Save mappings").click()
    admin.get_by_role("button", name="Save segments").click()
    admin.get_by_role("button", name="Fetch records into").click()

    expect(admin.get_by_text("first is set up")).to_be_visible(timeout=60_000)
    assert time.monotonic() - begun < NEWCOMER_S
    map_a_custom_field(admin)


def map_a_custom_field(admin: Page) -> None:
    """Map a custom field; its effect on a record is shown while editing."""
    admin.goto("/c/first/settings/users-in")
    admin.get_by_role("button", name="Add row").click()
    row = admin.locator("table.editor tbody").count() - 1
    setting = f"incoming_user_attributes-{row}"
    admin.locator(f"[name={setting}-hull]").fill("pipedrive/customer_number")
    admin.locator(f"[name={setting}-service]").select_option(label="Customer number")

    expect(admin.locator(f"#says-{row}")).to_contain_text("the text as it is")
    admin.get_by_role("button", name="Review changes…").click()
    expect(admin.get_by_text("pipedrive/customer_number ← Customer number")).to_be_visible()
    expect(admin.get_by_text("without tokens")).to_be_visible()
    admin.get_by_role("button", name="Save as version").click()
    expect(admin.get_by_role("status")).to_contain_text("is in force")
