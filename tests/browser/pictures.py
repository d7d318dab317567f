"""Takes `docs/pictures/`: every page of the console, light and dark, some as on a telephone. `python -m tests.browser.pictures`

What is shown has lived (see `life`): a fetch, edits on both sides, failures, a replay, a plan, an alert.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page

from tests.browser import running as browser_run
from tests.browser.life import ADMIN, CONNECTOR, OPERATOR, VIEWER, live
from tests.browser.places import ACTED, BASE, OPEN, find_places
from tests.browser.running import RunningPipeline, log_in

FOLDER: Final = browser_run.PROJECT / "docs" / "pictures"
SIZES: Final = {"persons": 2_400, "organizations": 480, "users": 300, "accounts": 60}
SHRINK, COLOURS = "pngquant", 64
WIDE, NARROW = (1280, 800), (360, 740)
SMALL: Final = ("overview", "logs", "failures", "record", "explain", "settings-users-in")
LARGEST_BYTES, LARGEST_FOLDER_BYTES = 150_000, 4_000_000
TITLES: Final[Mapping[str, tuple[str, ...]]] = {
    "Overview and actions": (
        "log-in",
        "overview",
        "overview-chart",
        "connectors",
        "actions",
        "action-fetch",
        "action-send",
        "action-send-count",
    ),
    "Records": ("search", "record", "record-organization", "record-deleted", "explain"),
    "Events, runs and webhooks": ("logs", "event", "runs", "run", "jobs", "batch", "webhooks", "delivery"),
    "Failures and replays": (
        *("failures", "failure-group", "failure", "failure-edit", "failure-difference"),
        *("failures-replay", "failures-discard", "replays", "replay"),
    ),
    "Settings and plans": (
        *("settings", "settings-identity", "settings-users-in", "settings-accounts-in", "settings-segments"),
        *("settings-users-out", "settings-accounts-out", "settings-links", "settings-schedules", "settings-budget"),
        *("settings-sync-keys", "settings-mistakes", "settings-review", "settings-history", "settings-version"),
        *("settings-json", "plans", "plan", "plan-records"),
    ),
    "Set up a connector": (
        *("wizard-hull", "wizard-pipedrive", "wizard-identity", "wizard-mappings", "wizard-segments"),
        *("wizard-first-fetch", "credentials"),
    ),
    "Workers, alerts and operators": (
        "workers",
        "connector-workers",
        "flower",
        "alerts",
        "operators",
        "audit",
        "account",
        "refused",
    ),
}
"""Heading of the index → its pages. A page without a heading is an error."""


AT_HOME: Final = """folder => document.querySelectorAll('main code').forEach(
    each => { each.textContent = each.textContent.replace(folder, '.data') })"""
"""Shows the folder that is usual, where the page names the one of this running."""
PREFACE: Final = f"""# The console in pictures

`make pictures` takes these pictures of the connector `{CONNECTOR}` and its sandbox. All names and companies in them are generated.
"""


@dataclass(frozen=True, slots=True)
class Look:
    """How pages are looked at: the end of a picture's name, the window, and the colours."""

    name: str
    size: tuple[int, int]
    scheme: str


LOOKS: Final = (Look("light", WIDE, "light"), Look("dark", WIDE, "dark"), Look("small", NARROW, "light"))


def main() -> int:
    if not browser_run.CHROMIUM or not shutil.which(SHRINK):
        sys.stderr.write(f"This needs Chromium and {SHRINK}. Install them with: apt-get install chromium {SHRINK}\n")
        return 1
    with browser_run.run_pipeline(has_example=True, sizes=SIZES, ALERT_FAILURES_PER_HOUR="5") as running:
        live(running)
        running.add_operator(OPERATOR, "operator")
        running.add_operator(VIEWER, "viewer")
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        with browser_run.open_browser() as browser:
            places = look_around(browser, running)
            for look in LOOKS:
                take(browser, running, look, places)
    (FOLDER / "README.md").write_text(index())
    return weigh()


def look_around(browser: Browser, running: RunningPipeline) -> dict[str, str]:
    """Compare once, so that there is something to see; then find every page."""
    with window(browser, running, LOOKS[0]) as page:
        log_in(page, running, ADMIN, "admin")
        page.goto(f"{BASE}/actions")
        page.get_by_role("button", name="Compare sample").click()
        page.goto("/workers")
        page.get_by_text("live@").first.wait_for()
        wait_for_alert(page)
        return find_places(page)


def wait_for_alert(page: Page) -> None:
    """Rules are judged once a minute."""
    for _ in range(60):
        page.goto("/alerts")
        if page.get_by_role("link", name="Show details").count():
            return
        time.sleep(2)


def take(browser: Browser, running: RunningPipeline, look: Look, places: Mapping[str, str]) -> None:
    with window(browser, running, look) as page:
        for name, path in OPEN.items():
            shoot(page, running, name, look, lambda page, path=path: page.goto(path))  # type: ignore[misc] # bound at once
        log_in(page, running, ADMIN, "admin")
        for name, path in places.items():
            shoot(page, running, name, look, lambda page, path=path: page.goto(path))  # type: ignore[misc] # as above
        for name, act in ACTED.items():
            shoot(page, running, name, look, act)


def shoot(page: Page, running: RunningPipeline, name: str, look: Look, go: Callable[[Page], object]) -> None:
    if look.name == "small" and name not in SMALL:
        return
    go(page)
    # Headless, there is no scrollbar to leave room for.
    page.evaluate("document.documentElement.style.scrollbarGutter = 'auto'")
    page.evaluate(AT_HOME, str(running.data_dir))
    if "workers" in name:  # asked by the first who looks, and shown to the next
        page.get_by_text("live@").first.wait_for()
    if name == "flower":
        page.wait_for_timeout(1_500)  # its tables ask by themselves
    file = FOLDER / f"{name}-{look.name}.png"
    page.screenshot(path=file)
    # Few colours are on a page: a palette makes a third of it.
    subprocess.run(
        [SHRINK, "--force", "--strip", "--speed", "1", "--output", str(file), str(COLOURS), str(file)], check=True
    )


@contextmanager
def window(browser: Browser, running: RunningPipeline, look: Look) -> Iterator[Page]:
    width, height = look.size
    context = browser.new_context(
        base_url=running.url,
        viewport={"width": width, "height": height},
        color_scheme=look.scheme,  # type: ignore[arg-type] # one of two words
    )
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


def index() -> str:
    """The README of the folder: every picture there is, under the heading where it belongs."""
    listed = {name for names in TITLES.values() for name in names}
    taken = {file.stem.rpartition("-")[0] for file in FOLDER.glob("*.png")}
    assert listed == taken, f"pages and index differ: {listed ^ taken}"
    parts = [PREFACE]
    for title, names in TITLES.items():
        best = f"{names[1]}-light.png"
        rows = "\n".join(f"| {name.replace('-', ' ')} | {_links(name)} |" for name in names)
        parts.append(f"\n## {title}\n\n[![{names[1]}]({best})]({best})\n\n| page | pictures |\n|---|---|\n{rows}\n")
    return "".join(parts)


def _links(name: str) -> str:
    files = (look.name for look in LOOKS if (FOLDER / f"{name}-{look.name}.png").exists())
    return " · ".join(f"[{each}]({name}-{each}.png)" for each in files)


def weigh() -> int:
    """Report the sizes, and what is too large for a repository."""
    sizes = {file.name: file.stat().st_size for file in FOLDER.glob("*.png")}
    total = sum(sizes.values())
    sys.stdout.write(f"{len(sizes)} pictures, {total / 1e6:.1f} MB, in {_shortened(FOLDER)}\n")
    for name, size in sizes.items():
        if size > LARGEST_BYTES:
            sys.stdout.write(f"{name} has {size / 1e3:.0f} kB\n")
    return 1 if total > LARGEST_FOLDER_BYTES else 0


def _shortened(folder: Path) -> str:
    return str(folder.relative_to(browser_run.PROJECT))


if __name__ == "__main__":
    sys.exit(main())
