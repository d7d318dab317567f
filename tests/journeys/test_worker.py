"""With a real worker and a real broker: messages alone move all work, and they carry ids and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from celery.contrib.testing.worker import start_worker
from celery.signals import before_task_publish, task_failure, task_postrun

from db import batch_queue
from pipeline import telemetry
from pipeline.domain.kinds import Entity
from pipeline.settings import settings
from tests.deliveries import deliver, listen, notify
from tests.journeys.pipedrive_records import PAGE, age_records, create_records, hull_names, pipedrive_names
from tests.system import SyncSystem, make_system

PATIENCE_S = 30.0
PREFIX = f"test-{uuid4().hex}:"
"""Keeps this process's messages apart from those of any other worker on the same broker; Celery keeps its connections."""


class Office:
    """What was published for the worker, what failed there, and a bell that rings after each of its tasks."""

    def __init__(self, system: SyncSystem) -> None:
        self.system = system
        self.published: list[tuple[str, Any]] = []
        self.failed: list[str] = []
        self.bell = Event()

    def note(self, sender: str, body: Any, headers: dict[str, Any], **_more: Any) -> None:
        self.published.append((sender, [body, headers]))

    def note_failure(self, exception: BaseException, **_more: Any) -> None:
        self.failed.append(str(exception))

    def ring(self, **_more: Any) -> None:
        self.bell.set()

    def wait_until(self, done: Callable[[], bool]) -> None:
        while not done():
            assert self.bell.wait(PATIENCE_S), "the worker has fallen silent"
            self.bell.clear()

    def is_idle(self) -> bool:
        return not self.system.rows("SELECT 1 FROM batches WHERE state IN ('ready', 'running')")


@pytest.fixture
def office(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """A worker in a thread. The sweeper finds nothing, so that only messages move work."""
    monkeypatch.setattr(batch_queue, "sweep", lambda _session, **_options: [])
    with make_system(with_broker=True) as system:
        app, office = system.module("tasks.app").app, Office(system)
        before = {name: app.conf[name] for name in ("broker_url", "broker_transport_options")}
        apart = {**app.conf.broker_transport_options, "global_keyprefix": PREFIX}
        app.conf.update(broker_url=settings().broker_url, broker_transport_options=apart)
        app._after_fork()  # forget the connections made under other settings
        app.control.purge()
        before_task_publish.connect(office.note, weak=False)
        task_failure.connect(office.note_failure, weak=False)
        task_postrun.connect(office.ring, weak=False)
        try:
            with start_worker(app, perform_ping_check=False, shutdown_timeout=30):
                yield office
        finally:
            before_task_publish.disconnect(office.note)
            task_failure.disconnect(office.note_failure)
            task_postrun.disconnect(office.ring)
            system.module("tasks.app").stop_heartbeats()
            app.conf.update(before)
            app._after_fork()
            telemetry.configure("error")


def ended(system: SyncSystem, run_id: int) -> Callable[[], bool]:
    return lambda: system.run(run_id).state != "running"


def test_a_fetch_moves_by_messages_alone(office: Office) -> None:
    system = office.system
    create_records(system, persons=3 * PAGE, organizations=10)
    age_records(system)

    run_id = system.start(Entity.PERSON)
    office.wait_until(ended(system, run_id))

    assert system.run(run_id).state == "done"
    assert hull_names(system) == pipedrive_names(system)
    assert office.failed == []
    attempts = system.rows("SELECT max(attempts) AS most FROM batches")
    assert attempts[0].most == 1


def test_a_webhook_and_a_notification_travel_by_messages(office: Office) -> None:
    system = office.system
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    create_records(system, persons=3, organizations=0)
    age_records(system)
    office.wait_until(ended(system, system.start(Entity.PERSON)))
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    webhooks = listen(system)
    system.company.edit_person(1, name="By webhook")
    deliver(system, *webhooks)
    notify(system, {"user": {**system.users()[2], "nickname": "By notification"}, "segments": []})

    system.module("tasks.canvases").wake_control("dispatch")
    office.wait_until(lambda: hull_names(system) == {1: "By webhook", 2: "By notification", 3: "Person 3"})
    office.wait_until(office.is_idle)

    assert pipedrive_names(system)[2] == "By notification"
    assert office.failed == []
    assert system.rows("SELECT 1 FROM changes") == []


def test_a_stage_that_fails_ends_its_chain_with_a_short_word(office: Office) -> None:
    system = office.system
    create_records(system, persons=1, organizations=0)
    system.pipedrive.faults.add("/api/v2/persons$", "status", status=400, body={"error": "canary-words"}, count=None)

    run_id = system.start(Entity.PERSON)
    office.wait_until(ended(system, run_id))
    office.wait_until(lambda: len(office.failed) == 2)

    assert sorted(office.failed) == ["bad_request: batch 1, extract", "bad_request: batch 2, extract"]
    assert system.rows("SELECT 1 FROM batches WHERE stage <> 'extract'") == []


def test_messages_carry_ids_and_nothing_else(office: Office) -> None:
    system = office.system
    emails = [{"value": "canary@example.com", "primary": True}]
    system.company.create_person(name="Canary Lovelace", emails=emails)
    system.company.put_raw("person", {"id": 2, "name": "Canary Broken"})

    office.wait_until(ended(system, system.start(Entity.PERSON)))
    office.wait_until(office.is_idle)

    text = json.dumps(office.published, default=str)
    assert len(office.published) >= 3
    assert "canary" not in text.lower()
    arguments = [body[0] for name, (body, _) in office.published if not name.startswith("control.")]
    assert all(len(args) == 1 and isinstance(args[0], int) for args in arguments)
    assert all(body[1] == {} for _, (body, _) in office.published)


def test_a_process_that_carries_out_live_batches_gives_heartbeats(office: Office) -> None:
    noted = "SELECT 1 FROM heartbeats WHERE name LIKE 'live process %' AND at > now() - interval '20 s'"
    turns = iter(range(round(PATIENCE_S / 0.05)))

    while not office.system.rows(noted):
        assert next(turns, None) is not None, "no heartbeat"
        Event().wait(0.05)
