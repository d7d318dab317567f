"""A person with a browser who connects a connector to Pipedrive, and the settings of an installation that has an app there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

import structlog
from flask.testing import FlaskClient
from werkzeug.test import Client, TestResponse

from db.connector import Connector
from db.session import transaction
from pipeline import settings as settings_room
from tests.system import API_TOKEN, CONNECTOR_ID, HULL_SECRET, SyncSystem

PUBLIC_URL = "http://connector.test"
HULL_CREDENTIALS = {"ship": CONNECTOR_ID, "organization": "hull.test", "secret": HULL_SECRET}


@contextmanager
def installed_app(system: SyncSystem, **changes: Any) -> Iterator[None]:
    """Have the installation know the one app that the sandbox's OAuth server knows."""
    before = settings_room.settings()
    client = system.pipedrive.grants.client
    app = {
        "pipedrive_client_id": client.id,
        "pipedrive_client_secret": client.secret,
        "pipedrive_oauth_url": "http://pipedrive.test",
        "public_url": PUBLIC_URL,
    }
    settings_room.use(before.replace(**(app | changes)))
    try:
        yield
    finally:
        settings_room.use(before)


def replace_api_token(system: SyncSystem, connector: Connector) -> None:
    """Have the connector connected by the sandbox's API token."""
    setup = system.module("sync.connectors.setup")
    proven = setup.prove_credentials(connector, pipedrive_token=API_TOKEN)
    with transaction() as session:
        setup.store_credentials(session, connector.key, proven)


class Browser(FlaskClient):
    """A browser that opens paths of PUBLIC_URL, and keeps its cookies."""

    def open(self, *args: Any, **options: Any) -> TestResponse:
        return super().open(*args, **{"base_url": PUBLIC_URL} | options)


class Person:
    """A person with one browser."""

    def __init__(self, system: SyncSystem) -> None:
        from pipeline.web.app import create_app  # noqa: PLC0415 - Celery reads its settings when it is imported

        self.system = system
        logging = structlog.get_config()  # an app sets up its own; a test that reads the lines keeps on reading
        self.web = create_app(wake=lambda: None, has_console=False)
        structlog.configure(**logging)
        self.web.test_client_class = Browser
        self.browser = self.web.test_client()
        self.pipedrive = Client(system.pipedrive)

    def begin(self, **query: str) -> TestResponse:
        """Click on the button in Hull, or open another link of this kind."""
        return self.browser.get("/auth/pipedrive", query_string=query or HULL_CREDENTIALS)

    def press(self, link: str, browser: FlaskClient | None = None) -> TestResponse:
        """Open an invitation and press its button."""
        client = browser or self.browser
        page = client.get(link)
        assert page.status_code == 200, page.text
        assert "Sign in to Pipedrive" in page.text
        return press_button(client, link)

    def decide(self, begun: TestResponse, decision: str = "allow") -> str:
        """Answer Pipedrive's question; returns where the browser is sent then, without the origin."""
        if begun.status_code == 200:
            location = begun.headers["Refresh"].removeprefix("0; url=")
        else:
            assert begun.status_code == 302, begun.text
            location = begun.headers["Location"]
        assert location.startswith("http://pipedrive.test/oauth/authorize?")
        back = self.pipedrive.get(f"{location}&decision={decision}").headers["Location"]
        assert back.startswith(f"{PUBLIC_URL}/auth/callback?")
        return back.removeprefix(PUBLIC_URL)

    def authorise(self, decision: str = "allow") -> TestResponse:
        """The whole trip; returns the page in the end."""
        return self.browser.get(self.decide(self.begin(), decision))


def press_button(browser: FlaskClient, link: str, **headers: str) -> TestResponse:
    """Send the form that the page of this invitation holds."""
    return browser.post("/auth/pipedrive", data=dict(parse_qsl(link.partition("?")[2])), headers=headers)
