"""Renewing tokens: before they end and after a 401, once across all workers, and what is kept of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from cryptography.fernet import Fernet

from db import job as jobs
from db.connector import get_connector
from db.session import transaction
from pipeline import settings as settings_room
from pipeline import wiring
from pipeline.domain.kinds import Entity
from pipeline.errors import ConfigurationError, PipelineError, Retryable
from pipeline.wiring import Wired
from tests.authorising import Person, installed_app, replace_api_token
from tests.logs import captured_log
from tests.system import SyncSystem

WORKERS = 20


@pytest.fixture
def joined(system: SyncSystem) -> Iterator[SyncSystem]:
    """Return a system with a connector that was just connected by OAuth."""
    with installed_app(system):
        assert Person(system).authorise().status_code == 200
        yield system


def opened(system: SyncSystem) -> Wired:
    with transaction() as session:
        return wiring.open_connector(session, system.connector_key)


def counts(system: SyncSystem) -> dict[str, int]:
    return dict(system.pipedrive.grants.counts)


def held(system: SyncSystem) -> Any:
    """What Pipedrive knows of our authorisation."""
    return next(iter(system.pipedrive.grants._installations.values()))


def state(system: SyncSystem) -> tuple[str, str | None]:
    with transaction() as session:
        row = get_connector(session, system.connector_key)
    return row.state, row.pause_reason


def let_it_end_in(system: SyncSystem, seconds: int) -> None:
    system.change_rows(
        "UPDATE credentials SET expires_at = now() + make_interval(secs => :s), updated_at = now() - interval '55 min'"
        " WHERE name = 'pipedrive_access_token'",
        s=seconds,
    )


def all_at_once(workers: list[Wired]) -> list[str]:
    """Every worker asks in the same moment; what each of them came to."""
    together = Barrier(len(workers))

    def ask(worker: Wired) -> str:
        together.wait(30)
        try:
            worker.pipedrive.me()
        except PipelineError as error:
            return error.reason
        return "answered"

    with ThreadPoolExecutor(len(workers)) as threads:
        return list(threads.map(ask, workers))


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("ends_older", [False, True])
def test_twenty_workers_that_are_refused_renew_once(joined: SyncSystem, rotate: bool, ends_older: bool) -> None:
    switches = joined.pipedrive.grants.switches
    switches.rotate_refresh_tokens, switches.refresh_ends_older = rotate, ends_older
    workers = [opened(joined) for _ in range(WORKERS)]
    joined.pipedrive.grants.expire_access_tokens()

    assert all_at_once(workers) == ["answered"] * WORKERS
    assert counts(joined) == {"exchanges": 1, "refreshes": 1, "refused": 0}
    assert state(joined) == ("active", None)


@pytest.mark.defect(18, "An access token was renewed only once Pipedrive had refused it.")
def test_twenty_workers_renew_an_expiring_token_once(joined: SyncSystem) -> None:
    let_it_end_in(joined, 240)
    workers = [opened(joined) for _ in range(WORKERS)]

    assert all_at_once(workers) == ["answered"] * WORKERS
    assert counts(joined)["refreshes"] == 1
    assert joined.pipedrive.ledger.statuses[401] == 0


def test_twenty_workers_learn_from_one_answer_that_the_authorisation_is_over(joined: SyncSystem) -> None:
    workers = [opened(joined) for _ in range(WORKERS)]
    joined.pipedrive.grants.revoke_all()

    assert all_at_once(workers) == ["unauthorized"] * WORKERS
    assert counts(joined)["refused"] == 1
    assert state(joined) == ("paused", "unauthorized")


def test_a_token_that_is_good_for_long_is_left_alone(joined: SyncSystem) -> None:
    let_it_end_in(joined, 360)

    opened(joined).pipedrive.me()

    assert counts(joined)["refreshes"] == 0


@pytest.mark.defect(18, "When a token ends was kept under one name at first and under another after a renewal.")
def test_a_renewed_token_is_good_again(joined: SyncSystem) -> None:
    let_it_end_in(joined, 10)
    for _ in range(3):
        opened(joined).pipedrive.me()

    (left,) = joined.rows(
        "SELECT expires_at - now() > interval '59 min' AS long FROM credentials WHERE expires_at IS NOT NULL"
    )
    assert (counts(joined)["refreshes"], left.long) == (1, True)


def test_a_short_life_does_not_mean_a_renewal_with_every_call(joined: SyncSystem) -> None:
    joined.pipedrive.grants.switches.token_lifetime_s = 120
    let_it_end_in(joined, 10)
    for _ in range(5):
        opened(joined).pipedrive.me()

    assert counts(joined)["refreshes"] == 1


def test_a_refresh_token_that_changes_is_kept(joined: SyncSystem) -> None:
    joined.pipedrive.grants.switches.rotate_refresh_tokens = True
    for _ in range(3):
        joined.pipedrive.grants.expire_access_tokens()
        opened(joined).pipedrive.me()

    with transaction() as session:
        known = wiring.open_secrets(session, joined.connector_key)
    assert known["pipedrive_refresh_token"] == held(joined).refresh_token
    assert counts(joined) == {"exchanges": 1, "refreshes": 3, "refused": 0}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 502, "late": True}),
        ("cut", {}),
        ("html", {"status": 403}),
        *[("status", {"status": status, "body": {"success": False, "error": "No"}}) for status in (400, 401, 403, 404)],
    ],
)
def test_a_token_endpoint_that_is_unwell_is_waited_for(joined: SyncSystem, kind: Any, options: dict[str, Any]) -> None:
    joined.pipedrive.faults.add("/oauth/token", kind, method="POST", **options)
    joined.pipedrive.grants.expire_access_tokens()
    worker = opened(joined)

    with pytest.raises(Retryable):
        worker.pipedrive.me()
    assert worker.pipedrive.me()["company_id"] == joined.company.id
    assert state(joined) == ("active", None)


def test_a_lost_answer_with_a_new_refresh_token_ends_in_a_pause(joined: SyncSystem) -> None:
    joined.pipedrive.grants.switches.rotate_refresh_tokens = True
    joined.pipedrive.grants.expire_access_tokens()
    joined.pipedrive.faults.add("/oauth/token", "status", method="POST", status=502, late=True)
    worker = opened(joined)

    with pytest.raises(Retryable):
        worker.pipedrive.me()
    with pytest.raises(ConfigurationError):
        worker.pipedrive.me()
    assert state(joined) == ("paused", "unauthorized")


def test_what_was_refused_while_another_worker_had_renewed_is_tried_with_the_new_token(joined: SyncSystem) -> None:
    early, late = opened(joined), opened(joined)
    joined.pipedrive.grants.expire_access_tokens()
    early.pipedrive.me()

    late.pipedrive.me()

    assert counts(joined)["refreshes"] == 1


@pytest.mark.defect(18, "The company's own address was thrown away, and another host called instead.")
def test_a_company_that_renamed_itself_is_called_at_its_new_address(joined: SyncSystem) -> None:
    joined.pipedrive.grants.switches.api_domain = "https://renamed.pipedrive.com"
    joined.pipedrive.grants.expire_access_tokens()
    opened(joined).pipedrive.me()

    with transaction() as session:
        assert get_connector(session, joined.connector_key).pipedrive_company == "https://renamed.pipedrive.com"


def test_a_foreign_host_in_a_renewal_is_refused_and_nothing_kept(joined: SyncSystem) -> None:
    joined.pipedrive.grants.switches.api_domain = "https://evil.example"
    joined.pipedrive.grants.expire_access_tokens()
    before = joined.rows("SELECT name, ciphertext, expires_at FROM credentials ORDER BY name")

    with pytest.raises(ConfigurationError) as caught:
        opened(joined).pipedrive.me()

    assert caught.value.reason == "host_refused"
    assert state(joined) == ("paused", "host_refused")
    assert joined.rows("SELECT name, ciphertext, expires_at FROM credentials ORDER BY name") == before


def test_an_app_without_credentials_is_reported(joined: SyncSystem) -> None:
    joined.pipedrive.grants.expire_access_tokens()

    with installed_app(joined, pipedrive_client_secret=None), pytest.raises(ConfigurationError) as caught:
        opened(joined).pipedrive.me()

    assert caught.value.reason == "app_missing"
    assert state(joined) == ("paused", "app_missing")


def test_work_waits_while_pipedrive_rejects_the_app_and_continues_when_it_is_corrected(joined: SyncSystem) -> None:
    joined.company.create_person(name="Ann", emails=[{"value": "ann@example.com", "primary": True}])
    joined.pipedrive.grants.expire_access_tokens()
    with installed_app(joined, pipedrive_client_secret="wrong"):
        run_id = joined.start(Entity.PERSON)
        for _ in range(10):  # more than any attempts
            joined.work()
            joined.end_pauses()

    assert state(joined) == ("active", None)
    assert joined.run(run_id).state == "running"
    assert joined.rows("SELECT 1 FROM failures") == []
    with transaction() as session:
        (sentence,) = joined.module("sync.connectors.status").sentences(session, joined.connector_key)
    assert sentence.startswith("Pipedrive's sign-in refuses this installation's app since ")

    joined.end_pauses()
    joined.work()
    assert joined.run(run_id).state == "done"
    with transaction() as session:
        assert joined.module("sync.connectors.status").sentences(session, joined.connector_key) == []


def test_a_resumed_connector_asks_again(joined: SyncSystem) -> None:
    joined.pipedrive.grants.expire_access_tokens()
    with installed_app(joined, pipedrive_client_secret=None), pytest.raises(ConfigurationError):
        opened(joined).pipedrive.me()

    joined.change_rows("UPDATE connectors SET state = 'active', pause_reason = NULL")

    assert opened(joined).pipedrive.me()["company_id"] == joined.company.id


def test_tokens_deleted_during_a_renewal_do_not_pause_the_connector(joined: SyncSystem) -> None:
    worker = opened(joined)
    joined.pipedrive.grants.expire_access_tokens()
    with transaction() as session:
        row = get_connector(session, joined.connector_key)
    replace_api_token(joined, row)

    with pytest.raises(Retryable) as caught:
        worker.pipedrive.me()

    assert caught.value.reason == "credentials_replaced"
    assert opened(joined).pipedrive.me()["company_id"] == joined.company.id


def test_new_keys_open_the_inputs_of_jobs_that_wait(joined: SyncSystem) -> None:
    queue, environment = joined.module("sync.job_queue"), settings_room.settings()
    new, old = Fernet.generate_key().decode(), environment.secret_keys
    with transaction() as session:
        queue.enqueue(session, "send", "1:a", connector_key=joined.connector_key, secret="canary")

    settings_room.use(environment.replace(secret_keys=(new, *old)))
    with transaction() as session:
        joined.module("sync.connectors.setup").renew_secrets(session)
    settings_room.use(environment.replace(secret_keys=(new,)))

    with transaction() as session:
        claimed = jobs.claim(session, 1, lease_s=30)
    assert queue.secret_of(claimed) == "canary"


def test_new_keys_leave_tokens_and_their_times_as_they_are(joined: SyncSystem) -> None:
    times = "SELECT name, expires_at, updated_at FROM credentials ORDER BY name"
    before, environment = joined.rows(times), settings_room.settings()
    new, old = Fernet.generate_key().decode(), environment.secret_keys

    settings_room.use(environment.replace(secret_keys=(new, *old)))
    with transaction() as session:
        assert joined.module("sync.connectors.setup").renew_secrets(session) == len(before)
    settings_room.use(environment.replace(secret_keys=(new,)))

    assert opened(joined).pipedrive.me()["company_id"] == joined.company.id
    assert joined.rows(times) == before


def test_a_control_task_pauses_when_the_authorisation_has_ended(
    joined: SyncSystem,
) -> None:
    joined.pipedrive.grants.revoke_all()
    each_connector = joined.module("sync.each_connector")

    def ask() -> bool:
        opened(joined).pipedrive.me()
        return False

    with captured_log("error") as log, pytest.raises(joined.module("sync.stage").StageFailed):
        each_connector.guarded("look", joined.connector_key, "task-1", ask)

    assert state(joined) == ("paused", "unauthorized")
    assert [line["error"] for line in log if line["event"] == "incoming.job.error"] == ["Unauthorized"]
