"""Pipedrive stalls the reads of some records: the edits of others, and those of other connectors, still reach Hull."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any
from urllib.parse import parse_qs

import pytest
from sqlalchemy import text

from db import change_writer
from db import connector as connectors
from db.batch import Batch
from db.session import transaction
from pipeline import connections
from pipeline.domain.kinds import Direction, Entity
from pipeline.settings import settings
from pipeline.vault import Vault
from tests.deliveries import deliver, listen
from tests.journeys.pipedrive_records import age_records, create_records
from tests.prepared import prepared
from tests.system import API_TOKEN, SyncSystem, default_settings
from tests.wsgi_adapter import session_for

PROCESSES = 4
STALLED = range(1, 9)
"""Persons that Pipedrive does not return."""
FINE = 20
PATIENCE_S = 10.0


class Stall:
    """A Pipedrive that answers no read of some Persons until the stall is over."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self.over = Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        ids = parse_qs(environ.get("QUERY_STRING", "")).get("ids", [""])[0].split(",")
        if not {str(each) for each in STALLED}.isdisjoint(ids):
            self.over.wait(6 * PATIENCE_S)
        return self._app(environ, start_response)


@prepared
def thirty_persons(system: SyncSystem) -> None:
    create_records(system, persons=30, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    system.change_rows(
        "INSERT INTO heartbeats (name) SELECT 'live process live@host ' || n FROM generate_series(1, :n) AS n",
        n=PROCESSES,
    )
    system.change_rows("UPDATE connectors SET company_id = :company", company=system.company.id)


@pytest.fixture
def stall(system: SyncSystem) -> Iterator[Stall]:
    """Persons that Hull knows, four live processes, and a Pipedrive that is about to stall."""
    thirty_persons(system)
    stall = Stall(system.pipedrive.wsgi_app)
    connections.use_http(
        lambda: session_for({"http://pipedrive.test": stall, "http://hull.test": system.hull_app.wsgi_app})
    )
    yield stall
    stall.over.set()


def _connector(name: str, *, company: int, host: str) -> int:
    """A connector that is joined to this company by the same API token, and to an organization of its own."""
    with transaction() as session:
        added = connectors.Connector(id=name * 24, name=name, hull_organization=host, company_id=company)
        session.add(added)
        session.flush()
        vault = Vault(settings().secret_keys)
        for secret, value in {"hull_secret": f"secret-{name}", "pipedrive_api_token": API_TOKEN}.items():
            connectors.keep_credential(session, added.key, secret, vault.seal(added.key, secret, value))
        connectors.add_settings(session, added.key, default_settings(), author="test")
        return added.key


def _read(connector_key: int, person_id: int) -> None:
    """A live batch that has one Person to read."""
    with transaction() as session:
        change_writer.write_changes(
            session, connector_key, Direction.INCOMING, Entity.PERSON, [str(person_id)], cause="test"
        )
        batch = Batch(connector_key=connector_key, direction="incoming", entity="person", queue="live", state="ready")
        session.add(batch)
        session.flush()
        claim = text(
            "UPDATE changes SET batch_id = :b, claimed_revision = revision, attempts = attempts + 1"
            " WHERE connector_key = :c AND record_id = :id"
        )
        session.execute(claim, {"b": batch.id, "c": connector_key, "id": str(person_id)})


@contextmanager
def _processes(system: SyncSystem, stall: Stall) -> Iterator[None]:
    """So many live processes carry out what is due."""
    ended = Event()

    def work() -> None:
        while not ended.is_set():
            due = system.next_batch()
            if due is None:
                ended.wait(0.02)
            else:
                system.run_batch_stage(*due)

    with ThreadPoolExecutor(PROCESSES) as pool:
        done = [pool.submit(work) for _ in range(PROCESSES)]
        try:
            yield
        finally:
            ended.set()
            stall.over.set()
    for each in done:
        each.result()


def _until(is_so: Callable[[], bool]) -> bool:
    ends_at = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > ends_at:
            return False
        Event().wait(0.02)
    return True


def _stalls(system: SyncSystem, *connector_keys: int) -> None:
    """Have every stalled Person read for one of these connectors in turn."""
    for number in STALLED:
        _read(connector_keys[number % len(connector_keys)], number)


def test_a_whole_webhook_of_another_record_passes_reads_that_stall(system: SyncSystem, stall: Stall) -> None:
    second = _connector("b", company=system.company.id, host="b.test")
    webhooks = listen(system)
    with _processes(system, stall):
        _stalls(system, system.connector_key, second)
        assert _until(lambda: system.rows("SELECT 1 FROM batches WHERE state = 'running' OFFSET 2") != [])
        system.company.edit_person(FINE, name="Edited meanwhile")
        deliver(system, *webhooks)
        system.module("sync.changes.dispatch").dispatch_changes()

        assert _until(lambda: system.users()[FINE]["pipedrive/name"] == "Edited meanwhile")
        assert not stall.over.is_set()


def test_a_read_for_another_company_passes_reads_that_stall(system: SyncSystem, stall: Stall) -> None:
    first, second = _connector("a", company=2, host="a.test"), _connector("b", company=2, host="b.test")
    with _processes(system, stall):
        _stalls(system, first, second)
        assert _until(lambda: system.rows("SELECT 1 FROM batches WHERE state = 'running' OFFSET 2") != [])
        system.company.edit_person(FINE, name="Edited meanwhile")
        _read(system.connector_key, FINE)

        assert _until(lambda: system.users()[FINE]["pipedrive/name"] == "Edited meanwhile")
        assert not stall.over.is_set()


def test_what_stalled_is_carried_over_once_the_stall_is_over(system: SyncSystem, stall: Stall) -> None:
    system.company.edit_person(1, name="Edited and stalled")
    with _processes(system, stall):
        _stalls(system, system.connector_key)
        assert _until(lambda: system.rows("SELECT 1 FROM batches WHERE waits_for = 'turn'") != [])
        stall.over.set()

        def is_done() -> bool:
            system.end_pauses()
            return not system.rows("SELECT 1 FROM batches WHERE state IN ('ready', 'running')")

        assert _until(is_done)
    assert system.users()[1]["pipedrive/name"] == "Edited and stalled"
    assert system.rows("SELECT 1 FROM failures") == []
    assert system.rows("SELECT 1 FROM changes") == []
