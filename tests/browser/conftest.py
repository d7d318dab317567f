"""A new house, one that has lived, and one browser for all journeys of this folder; each has a window of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.node_packages import absent

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.house import House


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    """Where every test adds what it needs under a name of its own."""
    with new_house() as opened:
        yield opened


@pytest.fixture
def empty_house() -> Iterator[House]:
    """Where nobody has been."""
    with new_house() as opened:
        yield opened


@contextmanager
def new_house(**options: Any) -> Iterator[House]:
    from tests.browser import house as houses  # noqa: PLC0415 - only these tests need a browser's library

    if not houses.CHROMIUM:
        absent("Chromium (for instance: apt-get install chromium)")
    with houses.open_house(**options) as opened:
        yield opened


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from tests.browser.house import open_browser  # noqa: PLC0415 - as below

    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def lively() -> Iterator[House]:
    """A house of its own, whose connector `demo` has lived some days."""
    from tests.browser.life import live  # noqa: PLC0415 - as below

    with new_house(has_example=True, ALERT_FAILURES_PER_HOUR="5") as opened:
        live(opened)
        yield opened


@pytest.fixture
def page(browser: Browser, house: House) -> Iterator[Page]:
    """A window on the console."""
    with window(browser, house) as opened:
        yield opened


@pytest.fixture
def lively_page(browser: Browser, lively: House) -> Iterator[Page]:
    """A window on the console of the house that has lived."""
    with window(browser, lively) as opened:
        yield opened


@pytest.fixture
def plain_page(browser: Browser, lively: House) -> Iterator[Page]:
    """The same without JavaScript."""
    with window(browser, lively, java_script_enabled=False) as opened:
        yield opened


@contextmanager
def window(browser: Browser, house: House, **options: Any) -> Iterator[Page]:
    """What its scripts or its content policy complain of fails the test."""
    context = browser.new_context(base_url=house.url, viewport={"width": 1280, "height": 900}, **options)
    context.set_default_timeout(15_000)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    yield opened
    context.close()
    assert [line for line in complaints if "status of 40" not in line] == []
