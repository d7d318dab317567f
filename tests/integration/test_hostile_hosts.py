"""Every place where a person, a message or a token answer names a host: nothing inside is called, and all failures read alike."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from db import connector as connectors
from db.session import transaction
from pipeline import connections, wiring
from pipeline import settings as settings_room
from pipeline.clients.alert_sinks import NotDelivered, Notice
from pipeline.clients.oauth import Grant
from pipeline.errors import ConfigurationError, PipelineError, Rejected
from pipeline.jobs import exports
from pipeline.settings import settings
from pipeline.sync.connectors import setup
from pipeline.sync.connectors.setup import NO_ANSWER, SetupRefused
from tests.system import SyncSystem
from tests.unit.clients.hostile_hosts import HOSTILE_HOSTS, PRIVATE

HULL_ID = "65f000000000000000000001"
PUBLIC = "93.184.216.34"


class Outside:
    """The network: what names lead to, and who was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = [[PUBLIC]]
        self.asked = 0
        self.called: list[str] = []
        monkeypatch.setattr("pipeline.clients.ssrf.addresses", self._look_up)
        monkeypatch.setattr("urllib3.util.connection.create_connection", self._call)

    def _look_up(self, _host: str, _port: int) -> list[str]:
        self.asked += 1
        found = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return found

    def _call(self, address: tuple[str, int], *_arguments: Any, **_options: Any) -> socket.socket:
        self.called.append(address[0])
        raise ConnectionRefusedError


@pytest.fixture
def outside(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    """The system's connector, and everything else on the network; no place inside is allowed."""
    connections.use_http(None)
    chosen = settings()
    settings_room.use(
        chosen.replace(
            pipedrive_api_url=None,
            hull_protocol="https",
            hull_firehose_url=None,
            hull_organizations=("acme.hullapp.io",),
            hull_export_hosts=("files.hullapp.io",),
            alert_webhook_url="https://hooks.example/x",
        )
    )
    yield Outside(monkeypatch)
    settings_room.use(chosen)


def add(organization: str) -> str:
    with pytest.raises(SetupRefused) as caught:
        setup.add_connector("globex", hull_organization=organization, hull_id=HULL_ID, hull_secret="s3cr3t")
    return str(caught.value)


def failure(act: Callable[[], object]) -> str:
    with pytest.raises((PipelineError, NotDelivered)) as caught:
        act()
    return str(caught.value)


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_an_organization_is_refused_in_the_one_sentence(outside: Outside, host: str) -> None:
    assert add(host) == NO_ANSWER
    assert (outside.asked, outside.called) == (0, [])


@pytest.mark.parametrize("address", [*PRIVATE, None, PUBLIC])
def test_an_organization_inside_the_network_is_reported_like_an_unknown_one(
    outside: Outside, address: str | None
) -> None:
    outside.answers = [[address] if address else []]

    assert add("evil.example") == NO_ANSWER
    assert outside.called == ([PUBLIC] if address == PUBLIC else [])


def test_a_resolver_that_changes_its_mind_is_asked_once(outside: Outside) -> None:
    outside.answers = [[PUBLIC], ["127.0.0.1"]]

    assert add("evil.example") == NO_ANSWER
    assert (outside.asked, outside.called) == (1, [PUBLIC])


@pytest.mark.parametrize("host", [each for each in HOSTILE_HOSTS if "\0" not in each])
def test_an_organization_that_is_stored_is_checked_as_well(outside: Outside, system: SyncSystem, host: str) -> None:
    with transaction() as session:
        connectors.get_connector(session, system.connector_key).hull_organization = host
    with transaction() as session, pytest.raises(ConfigurationError, match="host_refused"):
        wiring.open_connector(session, system.connector_key)

    assert (outside.asked, outside.called) == (0, [])


@pytest.mark.parametrize("host", [*HOSTILE_HOSTS, "acme.pipedrive.com.evil.example", "evil.example"])
def test_the_api_domain_of_a_token_answer_is_checked(outside: Outside, system: SyncSystem, host: str) -> None:
    given = {"refresh_token": "r", "expires_in_s": 60.0, "scopes": None}
    grant = Grant(access_token="a", api_domain=f"https://{host}", **given)  # type: ignore[arg-type]

    with pytest.raises(ConfigurationError, match="host_refused"):
        wiring.try_grant(system.connector_key, grant)
    with pytest.raises(ConfigurationError, match="host_refused"):
        wiring.try_token("t", lambda _call: None, f"https://{host}").me()
    assert (outside.asked, outside.called) == (0, [])


@pytest.mark.parametrize("address", PRIVATE)
def test_a_company_of_pipedrive_that_leads_inside_is_not_called(outside: Outside, address: str) -> None:
    outside.answers = [[address], []]
    client = wiring.try_token("t", lambda _call: None, "https://acme.pipedrive.com")

    assert failure(client.me) == failure(client.me)
    assert outside.called == []


@pytest.mark.parametrize("host", HOSTILE_HOSTS)
def test_a_file_of_an_export_is_refused_before_it_is_written_down(
    outside: Outside, system: SyncSystem, host: str
) -> None:
    order = exports.ExportOrder(url=f"https://{host}/a.json", form="json", entity="person")  # type: ignore[arg-type]

    with pytest.raises(Rejected, match="export_host_refused"):
        exports.enqueue(system.connector_key, order)
    assert (outside.asked, outside.called) == (0, [])


@pytest.mark.parametrize("address", PRIVATE)
def test_a_file_that_leads_inside_reads_as_one_that_is_not_there(outside: Outside, address: str) -> None:
    outside.answers = [[address], []]

    def read() -> None:
        with wiring.export_downloads().open("https://files.hullapp.io/a.json", max_bytes=10):
            pass

    assert failure(read) == failure(read)
    assert outside.called == []


@pytest.mark.parametrize("address", PRIVATE)
def test_an_alert_address_inside_the_network_is_reported_like_an_unknown_one(outside: Outside, address: str) -> None:
    outside.answers = [[address], []]
    sink = wiring.alert_sinks()["webhook"]
    notice = Notice(subject="late", body="late", document={})

    assert failure(lambda: sink(notice)) == failure(lambda: sink(notice)) == "ConnectionError"
    assert outside.called == []


def test_ids_and_secrets_that_would_break_a_header_are_refused(outside: Outside) -> None:
    for wrong in (
        {"hull_id": f"{HULL_ID}\r\nX: 1"},
        {"hull_secret": "a\r\nX: 1"},
        {"pipedrive_token": "a\nb"},
        {"name": HULL_ID},
    ):
        given: dict[str, Any] = {
            "hull_organization": "acme.hullapp.io",
            "hull_id": HULL_ID,
            "hull_secret": "s",
            "name": "globex",
        }
        with pytest.raises(SetupRefused):
            setup.add_connector(**given | wrong)
    assert outside.asked == 0
