"""Flower as people see it: through the console's door, running under its content policy, with controls for operators alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.running import RunningPipeline, log_in

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_a_viewer_sees_workers_and_tasks(page: Page, running: RunningPipeline) -> None:
    log_in(page, running, "flower-viewer", "viewer")
    page.goto("/workers")
    page.get_by_role("link", name="Flower", exact=True).click()

    expect(page.get_by_text("Cluster overview")).to_be_visible()
    expect(page.get_by_role("link", name="live@")).to_be_visible()  # its table asks by itself, every few seconds
    page.get_by_role("link", name="Tasks", exact=True).click()
    expect(page.get_by_role("link", name="control.sweep").first).to_be_visible()
    page.get_by_role("link", name="control.sweep").first.click()
    page.go_back()
    page.get_by_role("link", name="Broker").click()
    expect(page.get_by_text("control").first).to_be_visible()


def press_grow(page: Page) -> None:
    """Ask for one more process of the pool, by Flower's own button."""
    page.goto("/flower/workers")
    page.get_by_role("link", name="bulk@").click()
    page.locator("#worker-pool-grow").click()


def test_a_viewer_changes_no_worker_and_reads_why(page: Page, running: RunningPipeline) -> None:
    log_in(page, running, "flower-viewer", "viewer")
    press_grow(page)

    expect(page.get_by_text("This needs the role operator; you are viewer.")).to_be_visible()


def test_an_operator_does(page: Page, running: RunningPipeline) -> None:
    log_in(page, running, "flower-operator", "operator")
    press_grow(page)

    expect(page.get_by_text("Growing")).to_be_visible()


@pytest.fixture
def watched(browser: Browser, running: RunningPipeline) -> Iterator[Page]:
    """Open a window that collects the errors of the browser."""
    context = browser.new_context(base_url=running.url)
    yield context.new_page()
    context.close()


def test_a_script_that_is_not_flowers_does_not_run(watched: Page, running: RunningPipeline) -> None:
    page = watched
    log_in(page, running, "flower-viewer", "viewer")
    page.goto("/flower/")
    policy_broken: list[str] = []
    page.on("console", lambda line: policy_broken.append(line.text))
    ran = page.evaluate(
        """async () => {
            const script = document.createElement('script'); script.textContent = 'window.ran = true'
            document.body.append(script)
            const reached = await fetch('/account').then(() => true, () => false)
            return [window.ran === true, reached]
        }"""
    )

    assert ran == [False, False]
    assert len(policy_broken) >= 2
