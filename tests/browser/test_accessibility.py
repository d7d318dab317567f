"""Every page of the console as axe sees it, light and dark, wide and narrow; and nothing wider than a telephone."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.life import ADMIN
from tests.browser.places import ACTED, OPEN, find_places
from tests.browser.running import RunningPipeline, log_in
from tests.contract.node_packages import install

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.node]

GRAVE = ("serious", "critical")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 780}
FOREIGN = ("flower",)
"""Pages that are not ours: Flower's own."""
LOOKS = {"light": "axe.run()", "dark": "axe.run({runOnly: ['color-contrast']})"}
"""The rest does not depend on the colours."""
OVERHANG = """wide => [...document.querySelectorAll('body *')]
    .filter(each => each.getBoundingClientRect().right > wide + 1 && !each.closest('.scroll, .chart-box, .tabs'))
    .map(each => each.outerHTML.slice(0, 120)).slice(0, 3)"""

CUT_OFF = """() => [...document.querySelectorAll('.scroll:has(> .cards), .tabs, .who')]
    .filter(each => each.scrollWidth > each.clientWidth + 1)
    .map(each => each.innerText.slice(0, 60)).slice(0, 3)"""
"""What must be pushed sideways to be read: a table becomes cards, and the frame's links take another line."""


def test_no_page_is_hard_to_read_for_anybody(active_page: Page, active_connector: RunningPipeline) -> None:
    axe = (install("axe-core") / "node_modules" / "axe-core" / "axe.min.js").read_text()
    wrong: list[str] = []
    for name, path in OPEN.items():
        active_page.goto(path)
        wrong += problems(active_page, name, axe)
    log_in(active_page, active_connector, ADMIN, "admin")
    for name, path in find_places(active_page).items():
        if name not in FOREIGN:
            active_page.goto(path)
            wrong += problems(active_page, name, axe)
    for name, act in ACTED.items():
        act(active_page)
        wrong += problems(active_page, name, axe)

    assert wrong == []


def problems(page: Page, name: str, axe: str) -> list[str]:
    """What is grave, or too wide, on the page that is shown."""
    found: list[str] = []
    page.evaluate(axe)
    for size in (WIDE, NARROW):
        page.set_viewport_size(size)  # type: ignore[arg-type] # its two keys are these
        wide = size["width"]
        if page.evaluate("document.documentElement.scrollWidth") > wide:
            found.append(f"{name} is wider than {wide}: {page.evaluate(OVERHANG, wide)}")
        if size is NARROW and (cut_off := page.evaluate(CUT_OFF)):
            found.append(f"{name} hides at {wide}: {cut_off}")
        for scheme, look in LOOKS.items():
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # as above
            violations = page.evaluate(f"{look}.then(found => found.violations)")
            found += [f"{name} {wide} {scheme} {words}" for words in map(in_words, violations) if words]
    page.set_viewport_size(WIDE)  # type: ignore[arg-type] # as above
    page.emulate_media(color_scheme="light")
    return found


def in_words(violation: dict[str, Any]) -> str:
    if violation["impact"] not in GRAVE:
        return ""
    return f"{violation['id']}: {violation['nodes'][0]['html'][:160]}"
