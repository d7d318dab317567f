"""A small system: a Pipedrive company and a Hull organization in this process, and a connector that joins them.

system.company      edit Pipedrive as a salesperson does
system.users()      Users of Hull by Pipedrive id; system.accounts() likewise
system.work()       run all due stages until none is left, without Celery and without waiting
system.fetch(...)   run a whole fetch
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
import requests
from sqlalchemy import text

from db import connector as connectors
from db.run import Run
from db.session import engine, transaction
from pipeline import connections
from pipeline.domain.kinds import Entity
from pipeline.settings import settings
from pipeline.vault import Vault
from sandbox.company.company import Company
from sandbox.hull.app import create_app as create_hull
from sandbox.pipedrive.app import PipedriveApp
from sandbox.pipedrive.app import create_app as create_pipedrive
from tests.wsgi_adapter import session_for

CONNECTOR_ID = "5f0c0ffee5f0c0ffee5f0c0f"
HULL_SECRET = "canary-hull-secret"
API_TOKEN = "canary-pipedrive-token"
MOST_STAGES = 2_000
"""Stages that one `work` may run. A system is small: more stages mean an endless loop."""

DUE = """
    SELECT b.id, b.direction, b.stage FROM batches b JOIN connectors c ON c.key = b.connector_key
     WHERE c.state = 'active'
       AND (b.state = 'ready' AND b.due_at <= now() OR b.state = 'running' AND b.lease_until < now())
     ORDER BY b.id LIMIT 1"""

USER_FIELDS = ("name", "email", "phone", "owner_id", "label_ids", "add_time")
ACCOUNT_FIELDS = ("name", "website", "address", "owner_id", "add_time")


@dataclass(slots=True)
class SyncSystem:
    company: Company
    pipedrive: PipedriveApp
    hull_app: Any
    connector_key: int

    @property
    def hull(self) -> Any:
        """Return the state of the sandbox's Hull."""
        return self.hull_app.extensions["hull"]

    def users(self) -> dict[int, dict[str, Any]]:
        """Return Pipedrive id → User, for the Users that have one."""
        return _by_pipedrive_id(self.hull_records("user"))

    def accounts(self) -> dict[int, dict[str, Any]]:
        """Return Pipedrive id → Account, for the Accounts that have one."""
        return _by_pipedrive_id(self.hull_records("account"))

    def hull_records(self, kind: str) -> list[dict[str, Any]]:
        """Return all records of a kind, `user` or `account`, as Hull exports them."""
        answer = self.hull_app.test_client().get(f"/__sandbox__/export?entity={kind}")
        return [requests.models.complexjson.loads(line) for line in answer.text.splitlines()]

    def change_settings(self, **changes: Any) -> None:
        """Save a new version of the settings with these changes."""
        with transaction() as session:
            now = connectors.settings_in_force(session, self.connector_key).document
            connectors.add_settings(session, self.connector_key, now | changes, author="test")

    def module(self, name: str) -> Any:
        """Return a module of `pipeline`. Import it late: Celery reads its settings on import."""
        return import_module(f"pipeline.{name}")

    def start(self, entity: Entity, **options: Any) -> int:
        """Start a fetch, which `work` then runs. Return the id of the run."""
        run_id: int = self.module("sync.runs.runs").start_run(self.connector_key, entity, cause="test", **options)
        return run_id

    def fetch(self, entity: Entity, **options: Any) -> Run:
        """Run a whole fetch and return its run."""
        run_id = self.start(entity, **options)
        self.work()
        return self.run(run_id)

    def run(self, run_id: int) -> Run:
        with transaction() as session:
            return session.get_one(Run, run_id)

    def work(self) -> int:
        """Run due stages until none is left. Return how many ran."""
        from pipeline.sync.changes import dispatch  # noqa: PLC0415 - as above

        for done in range(MOST_STAGES):
            due = self.next_batch()
            if due is None:
                if not dispatch.dispatch_changes():
                    return done
                continue
            self.run_batch_stage(*due)
        raise AssertionError(f"work is still due after {MOST_STAGES} stages")

    def run_jobs(self) -> None:
        """Run all due jobs as workers do. A job stores its own failure."""
        from pipeline.jobs.runtime import run_job  # noqa: PLC0415 - as above
        from pipeline.sync.stage import StageFailed  # noqa: PLC0415

        for row in self.rows("SELECT id FROM jobs WHERE state = 'due' AND due_at <= now() ORDER BY id"):
            with suppress(StageFailed):
                run_job(row.id, f"test-job-{row.id}")

    def cancel_run(self, run_id: int) -> bool:
        """Cancel a run. Return False if it has ended."""
        with transaction() as session:
            return bool(self.module("sync.runs.runs").cancel(session, run_id))

    def next_batch(self) -> tuple[int, str, str] | None:
        """Return (id, direction, stage) of the next batch that is due or has lost its worker."""
        connection = engine().raw_connection()  # called after every stage; a Session takes ten times as long
        try:
            cursor = connection.cursor()
            cursor.execute(DUE)
            return cursor.fetchone()
        finally:
            connection.close()

    def end_pauses(self) -> None:
        """End all pauses, as if their time had passed."""
        self.change_rows("UPDATE batches SET due_at = now() WHERE due_at > now()")
        self.change_rows("UPDATE changes SET due_at = now() WHERE due_at > now()")
        self.change_rows("UPDATE outages SET probe_at = now() WHERE probe_at > now()")
        for key in connections.shared_redis().scan_iter("pipedrive:budget:*"):
            connections.shared_redis().hdel(key, "closed_until", "probe_at")

    def expire_leases(self) -> None:
        """End the leases of all running stages, as if their workers had been killed."""
        self.change_rows(
            "UPDATE batches SET lease_until = now() - interval '1 s', enqueued_at = now() - interval '10 s'"
            " WHERE state = 'running'"
        )

    def run_batch_stage(self, batch_id: int, direction: str, stage: str) -> None:
        """Run one stage as its task does. A stage stores its own failure."""
        from pipeline.sync.stage import StageFailed, run_stage  # noqa: PLC0415
        from pipeline.tasks import incoming, outgoing  # noqa: PLC0415 - as above

        tasks = incoming if direction == "incoming" else outgoing
        try:
            run_stage(stage, batch_id, f"test-{batch_id}-{stage}", getattr(tasks, f"{stage}_batch"))
        except StageFailed:
            return

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Return the rows of a query."""
        with transaction() as session:
            return list(session.execute(text(query), values).all())

    def change_rows(self, statement: str, **values: Any) -> None:
        """Run a statement on the database, past the code under test."""
        with transaction() as session:
            session.execute(text(statement), values)

    def events(self) -> list[tuple[str, str | None, int | None]]:
        """Return (event, reason, Pipedrive id) of all events in their order."""
        return [tuple(row) for row in self.rows("SELECT event, reason, pipedrive_id FROM sync_events ORDER BY id")]


@contextmanager
def make_system(
    *,
    persons: int = 0,
    organizations: int = 0,
    with_broker: bool = False,
    clock: Callable[[], float] = time.time,
    webhook_session: requests.Session | None = None,
) -> Iterator[SyncSystem]:
    """Create the system and connect all clients to it. Wake-ups do not reach the broker unless `with_broker` is set.

    clock            time of the company
    webhook_session  HTTP session that Pipedrive sends its webhooks with
    """
    from pipeline.sync import compiled  # noqa: PLC0415 - Celery reads its settings when it is imported
    from pipeline.tasks import canvases  # noqa: PLC0415 - as above

    compiled._compiled.clear()  # each system numbers its settings from 1
    company = Company(seed=11, persons=persons, organizations=organizations, clock=clock)
    pipedrive = create_pipedrive(company, api_token=API_TOKEN, webhook_session=webhook_session)
    hull = create_hull(connector_id=CONNECTOR_ID, secret=HULL_SECRET, organization="hull.test")
    apps = {"http://pipedrive.test": pipedrive.wsgi_app, "http://hull.test": hull.wsgi_app}
    with pytest.MonkeyPatch.context() as patch:
        if not with_broker:
            patch.setattr(canvases, "wake", lambda _wakeups, countdown_s=None: None)
            patch.setattr(canvases, "wake_control", lambda _name, countdown_s=None: None)
        connections.use_http(lambda: session_for(apps))
        try:
            yield SyncSystem(company, pipedrive, hull, _add_connector())
        finally:
            connections.use_http(None)


def _add_connector() -> int:
    vault = Vault(settings().secret_keys)
    with transaction() as session:
        connector = connectors.Connector(id=CONNECTOR_ID, name="acme", hull_organization="hull.test")
        session.add(connector)
        session.flush()
        for name, secret in {"hull_secret": HULL_SECRET, "pipedrive_api_token": API_TOKEN}.items():
            connectors.keep_credential(session, connector.key, name, vault.seal(connector.key, name, secret))
        connectors.add_settings(session, connector.key, default_settings(), author="test")
        return connector.key


def default_settings() -> dict[str, Any]:
    """Return settings that map a few fields of each entity and synchronize all segments."""
    return {
        "incoming_user_attributes": [{"hull": f"pipedrive/{name}", "service": name} for name in USER_FIELDS],
        "incoming_account_attributes": [{"hull": f"pipedrive/{name}", "service": name} for name in ACCOUNT_FIELDS],
        "synchronized_user_segments": ["ALL"],
        "synchronized_account_segments": ["ALL"],
    }


def _by_pipedrive_id(records: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {record["pipedrive/id"]: record for record in records if record.get("pipedrive/id") is not None}
