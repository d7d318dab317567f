"""Flower as people see it: through the console's door, running under its content policy, with controls for operators alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.house import PASSWORD, House

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def come_in(page: Page, house: House, role: str, tmp_path: Path) -> None:
    """Somebody of this role, made by the command line."""
    name = f"flower-{role}"
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    if name not in {each["name"] for each in house.command("operators", "list")}:
        house.command("operators", "add", name, "--role", role, "--password-file", str(file))
    page.goto("/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/")


def test_a_viewer_sees_workers_and_tasks(page: Page, house: House, tmp_path: Path) -> None:
    come_in(page, house, "viewer", tmp_path)
    page.goto("/workers")
    page.get_by_role("link", name="Flower").click()

    expect(page.get_by_text("Cluster overview")).to_be_visible()
    expect(page.get_by_role("link", name="worker@")).to_be_visible()  # its table asks by itself, every few seconds
    page.get_by_role("link", name="Tasks", exact=True).click()
    expect(page.get_by_role("link", name="control.sweep").first).to_be_visible()
    page.get_by_role("link", name="control.sweep").first.click()
    page.go_back()
    page.get_by_role("link", name="Broker").click()
    expect(page.get_by_text("control").first).to_be_visible()


def grow(page: Page) -> None:
    page.goto("/flower/workers")
    page.get_by_role("link", name="bulk@").click()
    page.get_by_role("tab", name="Pool").click() if page.get_by_role("tab", name="Pool").count() else None
    page.evaluate(
        """() => { document.title = 'asked'; $.ajax({type: 'POST', url: '/flower/api/worker/pool/grow/'
            + $('#workername').text().trim(), data: {n: 1}})
            .done(() => { document.title = 'grown' }).fail(answer => { document.title = 'refused ' + answer.status }) }"""
    )


def test_a_viewer_changes_no_worker(page: Page, house: House, tmp_path: Path) -> None:
    come_in(page, house, "viewer", tmp_path)
    grow(page)

    expect(page).to_have_title("refused 403")


def test_an_operator_does_and_it_is_written_down(page: Page, house: House, tmp_path: Path) -> None:
    come_in(page, house, "operator", tmp_path)
    grow(page)

    expect(page).to_have_title("grown")


def test_a_script_that_is_not_flowers_does_not_run(page: Page, house: House, tmp_path: Path) -> None:
    come_in(page, house, "viewer", tmp_path)
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
