"""Jobs are listed with what they are for, and paused, resumed and aborted where their kind allows it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from db import job as job_rows
from db.job import Job
from db.operator import Present
from db.session import transaction
from pipeline.domain.kinds import Entity, Role
from pipeline.jobs.exports import ExportOrder
from pipeline.jobs.sends import SendOrder
from pipeline.operations import jobs, plans, replays
from pipeline.operations.call import Call
from pipeline.operations.errors import OperationError
from pipeline.operations.jobs import JobsAsked, JobShape
from pipeline.operations.models import RowRequest
from tests.integration.operations.examples import open_failures
from tests.journeys.planning import FIRST_NAME, with_more
from tests.journeys.test_replays import begin
from tests.system import SyncSystem

ROW = RowRequest(connector="acme", id=1)


def by(role: Role = Role.OPERATOR, connectors: frozenset[int] | None = None) -> Call:
    return Call(caller=Present(id=0, name="ana", role=role, connector_keys=connectors))


def listed(**fields: Any) -> list[JobShape]:
    return jobs.list_jobs(by(Role.VIEWER), JobsAsked(connector="acme", **fields)).jobs


def send(system: SyncSystem, **fields: Any) -> None:
    order = SendOrder(entity=Entity.PERSON, rank=1, **fields)
    with transaction() as session:
        system.module("jobs.sends").enqueue(session, system.connector_key, order)


def compare(system: SyncSystem, sample: int | None) -> None:
    verify = system.module("jobs.verify.verify")
    with transaction() as session:
        verify.enqueue(session, system.connector_key, verify.VerifyOrder(sample=sample, requested_by="ana"))


def plan(system: SyncSystem) -> None:
    document = with_more("incoming_user_attributes", FIRST_NAME)
    with transaction() as session:
        system.module("jobs.plans.create").make_plan(session, system.connector_key, document, author="ana")


def test_each_job_has_a_title_and_its_progress(system: SyncSystem) -> None:
    send(system, ids=("a", "b", "c"))
    send(system, segment="VIPs")
    compare(system, None)
    plan(system)
    system.change_rows("UPDATE jobs SET progress = 1, checkpoint = '3 1' WHERE id = 1")

    found = {job.id: job for job in listed()}

    assert list(found) == [4, 3, 2, 1]
    assert [found[n].title for n in (1, 2)] == ["3 Users", "Users of segment VIPs"]
    assert [found[n].title for n in (3, 4)] == ["Compare all records", "Plan 1 by ana"]
    assert found[1].progress == jobs.ProgressShape(done=2, of=3, unit="records")
    assert (found[4].result_id, found[4].acts, found[4].state) == (1, ["pause", "abort"], "waiting")


def test_jobs_are_listed_by_kind_and_state_and_routine_ones_by_their_kind(system: SyncSystem) -> None:
    compare(system, 5)
    send(system, ids=("a",))
    with transaction() as session:
        system.module("jobs.status_report").enqueue(session, system.connector_key)
    system.change_rows("UPDATE jobs SET state = 'done', ended_at = now() WHERE kind = 'status'")
    system.change_rows("UPDATE jobs SET due_at = now() + interval '30 s', dispatched_at = now() WHERE kind = 'send'")

    assert [job.kind for job in listed()] == ["send", "verify"]
    assert [job.kind for job in listed(kind="status")] == ["status"]
    assert [job.kind for job in listed(state="running")] == ["send"]
    assert [job.kind for job in listed(state="waiting")] == ["verify"]
    assert [job.id for job in listed(before=2)] == [1]


def test_a_job_that_failed_names_its_failure_and_the_next_step_and_is_resumed_by_it(system: SyncSystem) -> None:
    send(system, ids=("a",))
    system.change_rows("UPDATE jobs SET attempts = 8")
    system.run_jobs()

    [job] = listed()
    assert (job.state, job.reason, job.acts, job.failure_id) == ("failed", "worker_lost", ["resume", "abort"], 1)
    assert job.advice

    jobs.resume_job(by(), ROW)
    assert [(each.state, each.failure_id) for each in listed()] == [("waiting", None)]
    [failure] = system.rows("SELECT state, closed_by FROM failures")
    assert tuple(failure) == ("replayed", "ana")


def test_jobs_that_must_end_cannot_be_paused_or_aborted(system: SyncSystem) -> None:
    with transaction() as session:
        system.module("sync.connectors.settings_change").enqueue_settings_sync(session, system.connector_key)

    for declared in (jobs.pause_job, jobs.abort_job):
        with pytest.raises(OperationError) as refused:
            declared(by(), ROW)
        assert refused.value.code == "wrong_kind"
    assert listed()[0].acts == []


def test_a_replay_is_paused_as_any_job_from_either_list(system: SyncSystem) -> None:
    with ExitStack() as stack:
        open_failures(system, stack)
    begin(system, per_second=0.1)

    def states() -> tuple[str, str]:
        return listed()[0].state, replays.show_replay(by(), ROW).state

    jobs.pause_job(by(), ROW)
    paused = states()
    replays.resume_replay(by(), ROW)
    resumed = states()
    replays.pause_replay(by(), ROW)
    again = states()
    with pytest.raises(OperationError, match="Replay 1 is paused, so it cannot be paused"):
        replays.pause_replay(by(), ROW)
    jobs.abort_job(by(), ROW)

    assert (paused, resumed, again) == (("paused", "paused"), ("waiting", "running"), ("paused", "paused"))
    assert states() == ("aborted", "aborted")
    assert listed()[0].title.startswith("Replay 1: ")


def test_a_plan_shows_that_its_job_is_paused_and_its_discard_aborts_the_job(system: SyncSystem) -> None:
    plan(system)
    jobs.pause_job(by(), ROW)

    shown = plans.show_plan(by(), ROW)
    plans.discard_plan(by(), ROW)

    assert (shown.state, plans.show_plan(by(), ROW).state) == ("paused", "discarded")
    assert shown.sentence.startswith("Paused by an operator: 0 of about ")
    assert [job.state for job in listed()] == ["aborted"]


def test_a_plan_with_a_failed_job_is_computed_after_it_is_resumed(system: SyncSystem) -> None:
    plan(system)
    system.change_rows("UPDATE jobs SET attempts = 8")
    system.run_jobs()
    stopped = plans.show_plan(by(), ROW)

    jobs.resume_job(by(), ROW)
    system.run_jobs()

    assert (stopped.state, stopped.reason) == ("stopped", "worker_lost")
    assert (plans.show_plan(by(), ROW).state, plans.show_plan(by(), ROW).reason) == ("ready", None)


def test_a_resumed_plan_shows_that_it_is_paused_again(system: SyncSystem) -> None:
    plan(system)
    system.change_rows("UPDATE jobs SET attempts = 8")
    system.run_jobs()
    jobs.resume_job(by(), ROW)
    resumed = plans.show_plan(by(), ROW).state
    jobs.pause_job(by(), ROW)

    assert (resumed, plans.show_plan(by(), ROW).state) == ("computing", "paused")


def test_a_job_that_fails_while_a_person_aborts_it_keeps_its_failure(system: SyncSystem) -> None:
    plan(system)
    system.change_rows("UPDATE jobs SET attempts = 8")
    system.run_jobs()

    with transaction() as session:
        aborted = job_rows.abort(session, 1, "due")

    assert not aborted
    assert [job.state for job in listed()] == ["failed"]
    assert [row.state for row in system.rows("SELECT state FROM failures")] == ["open"]


def test_a_job_that_failed_can_be_aborted_which_discards_its_failure(system: SyncSystem) -> None:
    plan(system)
    system.change_rows("UPDATE jobs SET attempts = 8")
    system.run_jobs()

    jobs.abort_job(by(), ROW)

    assert [(job.state, job.reason) for job in listed()] == [("aborted", None)]
    assert plans.show_plan(by(), ROW).state == "discarded"
    assert [tuple(row) for row in system.rows("SELECT state, closed_by FROM failures")] == [("discarded", "ana")]


def test_aborting_the_job_discards_its_plan(system: SyncSystem) -> None:
    plan(system)
    jobs.abort_job(by(), ROW)
    assert [tuple(row) for row in system.rows("SELECT state, ended_by FROM plans")] == [("discarded", "ana")]
    assert [job.state for job in listed()] == ["aborted"]


def test_aborting_an_export_deletes_its_file(system: SyncSystem) -> None:
    files, key = system.module("jobs.exports").files, system.connector_key
    order = ExportOrder(url="https://hull.test/file", form="json", entity=Entity.PERSON)
    with transaction() as session:
        system.module("sync.job_queue").enqueue(
            session, "export", "1:a", title=order.title, connector_key=key, secret=order.model_dump_json()
        )
    with transaction() as session:
        files.begin_file(session, 1, validator="", total_bytes=None)
        files.add_piece(session, 1, b"ada@acme.com")

    jobs.abort_job(by(), ROW)

    assert system.rows("SELECT 1 FROM export_files") == system.rows("SELECT 1 FROM export_pieces") == []
    with transaction() as session:
        assert session.get_one(Job, 1).secret is None


def test_a_paused_export_keeps_its_file_and_its_address(system: SyncSystem) -> None:
    files, key = system.module("jobs.exports").files, system.connector_key
    with transaction() as session:
        system.module("sync.job_queue").enqueue(session, "export", "1:a", connector_key=key, secret="canary")
    with transaction() as session:
        files.begin_file(session, 1, validator="", total_bytes=None)

    jobs.pause_job(by(), ROW)
    system.module("sync.upkeep").tidy()

    assert len(system.rows("SELECT 1 FROM export_files")) == 1
    assert len(system.rows("SELECT 1 FROM jobs WHERE secret IS NOT NULL AND state = 'paused'")) == 1


def test_a_wrong_state_a_foreign_job_and_a_viewer_are_refused(system: SyncSystem) -> None:
    compare(system, None)
    with pytest.raises(OperationError, match="cannot be resumed"):
        jobs.resume_job(by(), ROW)
    with pytest.raises(OperationError, match="needs the role operator"):
        jobs.pause_job(by(Role.VIEWER), ROW)
    with pytest.raises(OperationError, match="There is no connector"):
        jobs.pause_job(by(connectors=frozenset()), ROW)
    system.change_rows("UPDATE jobs SET connector_key = NULL")
    for declared in (jobs.pause_job, jobs.resume_job, jobs.abort_job, jobs.show_job):
        with pytest.raises(OperationError, match="no such job"):
            declared(by(), ROW)

    assert [row.state for row in system.rows("SELECT state FROM jobs")] == ["due"]
    assert system.rows("SELECT 1 FROM audit_log") == []
