"""One house and one browser for all journeys of this folder; each journey has a window of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.contract.node_packages import absent

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.house import House


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    from tests.browser import house as houses  # noqa: PLC0415 - only these tests need a browser's library

    if not houses.CHROMIUM:
        absent("Chromium (for instance: apt-get install chromium)")
    with houses.open_house() as opened:
        yield opened


@pytest.fixture(scope="session")
def browser(house: House) -> Iterator[Browser]:
    from tests.browser.house import open_browser  # noqa: PLC0415 - as above

    assert house
    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, house: House) -> Iterator[Page]:
    """A window on the console. What its scripts or its content policy complain of fails the test."""
    context = browser.new_context(base_url=house.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    yield opened
    context.close()
    assert [line for line in complaints if "status of 40" not in line] == []
