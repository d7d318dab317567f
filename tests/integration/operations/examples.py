"""One request of each operation that changes something: prepares the system for it, and returns the fields of the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

from db.operator import ApiKey, Operator
from db.session import transaction
from pipeline.domain.kinds import Entity, Role
from tests import accounts
from tests.authorising import installed_app
from tests.integration.console.test_failures import refused, world_payload
from tests.journeys.planning import FIRST_NAME, planned, with_more
from tests.journeys.test_replays import begin, broken
from tests.system import API_TOKEN, CONNECTOR_ID, HULL_SECRET, SyncSystem, default_settings

Fields = dict[str, Any]


def deleted_person(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A Person that was deleted and still holds an e-mail."""
    system.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])
    system.fetch(Entity.PERSON)
    system.change_rows("UPDATE id_mappings SET state = 'deleted', deleted_at = now()")
    return {"entity": "person", "pipedrive_id": 1}


def another_connector(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A connector beside the system's own, under the credentials that the sandbox knows."""
    system.change_rows("UPDATE connectors SET id = 'another', name = 'another'")
    organization = {"name": "globex", "hull_organization": "hull.test", "hull_id": CONNECTOR_ID}
    return organization | {"hull_secret": HULL_SECRET, "pipedrive_token": API_TOKEN}


def running_fetch(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A full fetch of Persons that has begun."""
    return {"id": system.start(Entity.PERSON)}


def nothing(_system: SyncSystem, _stack: ExitStack) -> Fields:
    return {}


def with_an_app(system: SyncSystem, stack: ExitStack) -> Fields:
    """An installation that has an app at Pipedrive."""
    stack.enter_context(installed_app(system))
    return {}


def open_failures(system: SyncSystem, _stack: ExitStack) -> Fields:
    """Two Persons that cannot be read."""
    broken(system, 10, 11)
    return {"failures": {"reason": "no_update_time"}, "count": 2, "why": "tests"}


def corrected(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A User with values that Pipedrive refused, and corrected values."""
    failure_id = refused(system)
    return {"id": failure_id, "payload": world_payload(failure_id), "why": "tests"}


def replay_that_is(state: str) -> Callable[[SyncSystem, ExitStack], Fields]:
    """A replay with a job in this state."""

    def prepare(system: SyncSystem, _stack: ExitStack) -> Fields:
        broken(system, 10, 11)
        replay_id = begin(system, per_second=0.1)
        system.change_rows("UPDATE jobs SET state = :state", state=state)
        return {"id": replay_id}

    return prepare


def new_settings(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A document that differs from the one in force."""
    assert system
    return {"document": default_settings() | {"daily_tokens": 5}, "base_version": 1}


def earlier_settings(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A version before the one in force."""
    system.change_settings(daily_tokens=5)
    return {"version": 1}


def new_plan(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A document to be planned, for a company with a Person."""
    _fetched(system)
    return {"document": with_more("incoming_user_attributes", FIRST_NAME)}


def ready_plan(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A plan that can be applied."""
    _fetched(system)
    return {"id": planned(system, with_more("incoming_user_attributes", FIRST_NAME)).id}


def held_run(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A run that waits for approval."""
    _fetched(system)
    with transaction() as session:
        run = system.module("sync.runs.runs").begin(
            session, system.connector_key, Entity.PERSON, "backfill", cause="settings", changed_only=True, held=True
        )
        return {"id": run.id, "number": 1}


def _fetched(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])
    system.fetch(Entity.PERSON)


def an_operator(**fields: Any) -> Callable[[SyncSystem, ExitStack], Fields]:
    """An operator with a second factor, and the other fields of the request."""

    def prepare(_system: SyncSystem, _stack: ExitStack) -> Fields:
        operator = accounts.add("bo@acme.test", None, Role.OPERATOR)
        with transaction() as session:
            session.get_one(Operator, operator.id).totp_sealed = b"sealed"
            session.get_one(Operator, operator.id).totp_confirmed_at = datetime.now(UTC)
        return {"id": operator.name, **fields}

    return prepare


def a_key(_system: SyncSystem, _stack: ExitStack) -> Fields:
    """A key of the caller that the test of an act without an entry has."""
    expires_at = datetime.now(UTC) + timedelta(days=1)
    with transaction() as session:
        session.add(Operator(id=0, name="test", password_hash="", role=Role.ADMIN))
        session.flush()
        key = ApiKey(operator_id=0, name="nightly", digest=b"nightly", role=Role.VIEWER, expires_at=expires_at)
        session.add(key)
        session.flush()
        return {"id": key.id}


def job_that_is(state: str) -> Callable[[SyncSystem, ExitStack], Fields]:
    """A job in this state that compares both sides."""

    def prepare(system: SyncSystem, _stack: ExitStack) -> Fields:
        verify = system.module("jobs.verify.verify")
        with transaction() as session:
            order = verify.VerifyOrder(sample=None, requested_by="test")
            job_id = verify.enqueue(session, system.connector_key, order)
        system.change_rows("UPDATE jobs SET state = :state", state=state)
        return {"id": job_id}

    return prepare


def ended_comparison(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A comparison that found a Person whom Hull does not have."""
    record = system.company.create_person(name="Ada")
    system.company.load("person", {**record, "update_time": "2026-02-01T00:00:00Z"})
    system.fetch(Entity.PERSON)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    system.hull.incinerate(system.hull.users.by_anonymous["pipedrive:1"])
    system.change_rows("UPDATE id_mappings SET updated_at = now() - interval '1 hour'")
    fields = job_that_is("due")(system, _stack)
    system.run_jobs()
    return fields | {"count": 1}


def known_user(system: SyncSystem, _stack: ExitStack) -> Fields:
    """A User that Hull has."""
    _fetched(system)
    (user,) = system.users().values()
    return {"entity": "person", "ids": [user["id"]]}


EXAMPLES: Mapping[str, Callable[[SyncSystem, ExitStack], Fields]] = {
    "add_connector": another_connector,
    "change_operator": an_operator(state="disabled"),
    "cancel_run": running_fetch,
    "check_webhooks": nothing,
    "ensure_webhooks": nothing,
    "abort_job": job_that_is("due"),
    "abort_replay": replay_that_is("due"),
    "add_operator": lambda _system, _stack: {
        "name": "ana@acme.test",
        "role": "operator",
        "password": "a long one it is",
        "connectors": ["acme"],
    },
    "begin_replay": open_failures,
    "discard_failures": open_failures,
    "begin_export": lambda _system, _stack: {"format": "csv"},
    "apply_plan": ready_plan,
    "compare": nothing,
    "confirm_run": held_run,
    "discard_plan": ready_plan,
    "make_plan": new_plan,
    "order_send": known_user,
    "plan_again": ready_plan,
    "put_settings": new_settings,
    "read_fields": lambda _system, _stack: {},
    "roll_back_settings": earlier_settings,
    "fetch_changes": nothing,
    "invite": with_an_app,
    "log_operator_out": an_operator(),
    "pause_job": job_that_is("due"),
    "pause_replay": replay_that_is("due"),
    "pause_connector": nothing,
    "put_api_token": lambda _system, _stack: {"secret": API_TOKEN},
    "put_hull_secret": lambda _system, _stack: {"secret": HULL_SECRET},
    "release_claims": deleted_person,
    "repair_comparison": ended_comparison,
    "remove_connector": lambda _system, _stack: {"name": "acme"},
    "rename_connector": lambda _system, _stack: {"name": "acme-emea"},
    "resume_connector": nothing,
    "start_fetch": lambda _system, _stack: {"entity": "person"},
    "start_first_fetches": lambda _system, _stack: {"entities": ["organization", "person"]},
    "send_test_alert": nothing,
    "replay_edited": corrected,
    "resume_job": job_that_is("paused"),
    "resume_replay": replay_that_is("paused"),
    "rotate_keys": nothing,
    "revoke_any_key": a_key,
    "revoke_key": a_key,
    "turn_off_second_factor": an_operator(),
    "unlock_operator": an_operator(),
}
"""Name of the operation → its example. The connector is added by the test."""
