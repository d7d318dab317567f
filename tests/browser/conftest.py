"""A new pipeline, one with history, and one browser for all tests of this folder; each test has its own window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.node_packages import absent

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.running import RunningPipeline


@pytest.fixture(scope="session")
def running() -> Iterator[RunningPipeline]:
    """Return a pipeline that tests share; each adds what it needs under its own name."""
    with start_running() as opened:
        yield opened


@pytest.fixture
def empty() -> Iterator[RunningPipeline]:
    """Return a new pipeline that no test has used."""
    with start_running() as opened:
        yield opened


@contextmanager
def start_running(**options: Any) -> Iterator[RunningPipeline]:
    from tests.browser import running as browser_run  # noqa: PLC0415 - only these tests need a browser's library

    if not browser_run.CHROMIUM:
        absent("Chromium (for instance: apt-get install chromium)")
    with browser_run.run_pipeline(**options) as opened:
        yield opened


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from tests.browser.running import open_browser  # noqa: PLC0415 - as below

    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def active_connector() -> Iterator[RunningPipeline]:
    """Return a pipeline of its own; its connector `demo` has some days of history."""
    from tests.browser.life import live  # noqa: PLC0415 - as below

    with start_running(has_example=True, ALERT_FAILURES_PER_HOUR="5") as opened:
        live(opened)
        yield opened


@pytest.fixture
def page(browser: Browser, running: RunningPipeline) -> Iterator[Page]:
    """A window on the console."""
    with window(browser, running) as opened:
        yield opened


@pytest.fixture
def active_page(browser: Browser, active_connector: RunningPipeline) -> Iterator[Page]:
    """Return a window on the console of the pipeline with history."""
    with window(browser, active_connector) as opened:
        yield opened


@pytest.fixture
def plain_page(browser: Browser, active_connector: RunningPipeline) -> Iterator[Page]:
    """The same without JavaScript."""
    with window(browser, active_connector, java_script_enabled=False) as opened:
        yield opened


@contextmanager
def window(browser: Browser, running: RunningPipeline, **options: Any) -> Iterator[Page]:
    """Open a window; errors of scripts or of the content policy fail the test."""
    context = browser.new_context(base_url=running.url, viewport={"width": 1280, "height": 900}, **options)
    context.set_default_timeout(15_000)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    yield opened
    context.close()
    assert [line for line in complaints if "status of 40" not in line] == []
