"""Every page of the console of a connector with history, found by the links on other pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Page

from pipeline.web.console.add_connector import STEPS
from pipeline.web.console.settings_forms import SECTIONS

BASE: Final = "/c/demo"
OPEN: Final[Mapping[str, str]] = {"log-in": "/login"}
"""Pages that need no login."""
FIXED: Final[Mapping[str, str]] = {
    "connectors": "/",
    "overview": f"{BASE}/",
    "settings": f"{BASE}/settings",
    **{f"settings-{each.slug}": f"{BASE}/settings/{each.slug}" for each in SECTIONS},
    "settings-json": f"{BASE}/settings/json",
    "settings-history": f"{BASE}/settings/history",
    "plans": f"{BASE}/plans",
    "credentials": f"{BASE}/credentials",
    "runs": f"{BASE}/runs",
    "jobs": f"{BASE}/jobs",
    "actions": f"{BASE}/actions",
    "action-fetch": f"{BASE}/actions/fetch/person",
    "action-send": f"{BASE}/actions/send",
    "logs": f"{BASE}/logs",
    "failures": f"{BASE}/failures",
    "failures-replay": f"{BASE}/failures/replay",
    "failures-discard": f"{BASE}/failures/discard",
    "replays": f"{BASE}/replays",
    "record": f"{BASE}/records/person/1",
    "explain": f"{BASE}/records/person/1/explain?field=pipedrive/job_title",
    "record-organization": f"{BASE}/records/organization/1",
    "record-deleted": f"{BASE}/records/person/3",
    "search": f"{BASE}/records?q=nobody",
    "webhooks": f"{BASE}/webhooks",
    "connector-workers": f"{BASE}/workers",
    "workers": "/workers",
    "flower": "/flower",
    "alerts": "/alerts",
    "account": "/account",
    "operators": "/operators",
    "audit": "/audit",
    "wizard-hull": "/connectors/new",
    **{f"wizard-{step}": f"{BASE}/set-up/{step}" for step in STEPS if step != "hull"},
    "refused": f"{BASE}/records/person/999999",
}
LINKED: Final[Mapping[str, tuple[str, str]]] = {
    "run": ("runs", rf"{BASE}/runs/\d+$"),
    "settings-version": ("settings-history", rf"{BASE}/settings/history/\d+$"),
    "plan": ("plans", rf"{BASE}/plans/\d+$"),
    "plan-records": ("plan", rf"{BASE}/plans/\d+/(incoming|outgoing)/\w+"),
    "event": ("logs", rf"{BASE}/logs/\d+$"),
    "batch": ("logs", rf"{BASE}/batches/\d+$"),
    "delivery": ("webhooks", rf"{BASE}/deliveries/\d+$"),
    "failure-group": ("failures", rf"{BASE}/failures/group/"),
    "failure": ("failure-group", rf"{BASE}/failures/\d+$"),
    "failure-edit": ("failure", rf"{BASE}/failures/\d+/edit$"),
    "replay": ("replays", rf"{BASE}/replays/\d+$"),
}
"""Page → (the page that links to it, pattern of the link)."""


def show_review(page: Page) -> None:
    """Show changed settings that are not saved yet."""
    page.goto(f"{BASE}/settings/users-in")
    press(page, "Add row")
    row = page.locator("table.editor tbody").count() - 1
    page.locator(f"[name=incoming_user_attributes-{row}-hull]").fill("pipedrive/remarks")
    page.locator(f"[name=incoming_user_attributes-{row}-service]").select_option(label="Remarks")
    press(page, "Review changes…")


def show_mistakes(page: Page) -> None:
    """Show settings with an incomplete row."""
    page.goto(f"{BASE}/settings/users-out")
    press(page, "Add row")
    row = page.locator("table.editor tbody").count() - 1
    page.locator(f"[name=outgoing_user_attributes-{row}-hull]").fill("plan")
    press(page, "Review changes…")


def show_difference(page: Page) -> None:
    """Show a corrected payload that is not sent yet."""
    page.goto(f"{BASE}/failures?direction=outgoing")
    page.locator("a[href*='/failures/group/']").first.click()
    page.locator("td a.id").first.click()
    page.get_by_role("link", name="Edit payload").click()
    text = page.get_by_label("Payload, JSON")
    text.fill(text.input_value().replace("Account executive", "Account manager"))
    press(page, "Show changes")


def show_send_count(page: Page) -> None:
    """Show the count of selected Users before they are sent."""
    page.goto(f"{BASE}/records/person/1")
    hull_id = page.locator("h1 .id").nth(1).inner_text()
    page.goto(f"{BASE}/actions/send")
    form = page.locator("form", has=page.locator("textarea"))
    form.locator("textarea").fill(hull_id)
    with page.expect_navigation():
        form.get_by_role("button").click()


def show_chart(page: Page) -> None:
    """Show the lower half of the overview."""
    page.goto(f"{BASE}/?by=minute")
    page.locator("#chart").scroll_into_view_if_needed()


ACTED: Final[Mapping[str, Callable[[Page], None]]] = {
    "overview-chart": show_chart,
    "settings-review": show_review,
    "settings-mistakes": show_mistakes,
    "failure-difference": show_difference,
    "action-send-count": show_send_count,
}
"""Pages that are shown after a form."""


def press(page: Page, name: str) -> None:
    """Press a button, and wait for the next page."""
    with page.expect_navigation():
        page.get_by_role("button", name=name).click()


def find_places(page: Page) -> dict[str, str]:
    """Return each page with its address, for an admin."""
    places = dict(FIXED)
    for name, (whence, pattern) in LINKED.items():
        page.goto(places[whence])
        links = page.locator("main a[href]").evaluate_all("all => all.map(each => each.href)")
        paths = (each.path + (f"?{each.query}" if each.query else "") for each in map(urlsplit, links))
        places[name] = next((path for path in paths if re.search(pattern, path)), "")
        assert places[name], f"{whence} links to no {name}"
    return places
