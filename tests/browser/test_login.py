"""The first operator logs in by the link that `pipeline up` prints."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import window
from tests.browser.running import NAME, PASSWORD, RunningPipeline

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def page(browser: Browser, empty: RunningPipeline) -> Iterator[Page]:
    with window(browser, empty) as opened:
        yield opened


def test_the_first_operator_logs_in_and_out_and_in_again(page: Page, empty: RunningPipeline) -> None:
    page.goto(empty.announced["console_url"])
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create operator and log in").click()

    expect(page.get_by_text("No connector yet.")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("link", name="Add Connector")).to_be_visible()
