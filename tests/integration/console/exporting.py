"""Takes the log away as a person does: the form, a worker, the file."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from werkzeug.test import TestResponse

from tests.integration.console.conftest import Call, ConsoleClient
from tests.system import SyncSystem

CSV, NDJSON = "text/csv", "application/x-ndjson"
FORMATS = {CSV: "csv", NDJSON: "jsonl"}


def begin(browser: ConsoleClient, kind: str, query: str = "", connector: str = "acme") -> TestResponse:
    """Send the form of the page Logs under this filter."""
    return browser.post(f"/c/{connector}/logs/export", format=FORMATS.get(kind, kind), **dict(parse_qsl(query)))


def exported(
    system: SyncSystem, browser: ConsoleClient, kind: str, query: str = "", connector: str = "acme"
) -> TestResponse:
    """The file."""
    begun = begin(browser, kind, query, connector)
    assert begun.status_code == 303, begun.text
    system.run_jobs()
    page = browser.text(begun.headers["Location"])
    assert "Download" in page
    return browser.get(f"{begun.headers['Location']}/file")


def exported_by_script(
    system: SyncSystem, browser: ConsoleClient, call: Call, form: str, connector: str = "acme", **wanted: Any
) -> str:
    """The same by the API."""
    path = f"/api/v1/connectors/{connector}/events/exports"
    status, begun = call("POST", path, format=form, **wanted)
    assert (status, begun["export"]["state"]) == (200, "writing"), begun
    system.run_jobs()
    status, ended = call("GET", f"{path}/{begun['export']['id']}")
    assert (status, ended["export"]["state"]) == (200, "done")
    return browser.text(f"{path}/{begun['export']['id']}/file")
