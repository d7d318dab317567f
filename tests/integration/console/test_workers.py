"""The workers page names missing processes with the command that starts them, and does not wait for the broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from pipeline.domain.kinds import Entity
from pipeline.operations.cached_answers import BackgroundValue, forget_all
from pipeline.operations.workers import WorkerNodes
from tests.command_line import Run, run
from tests.integration.console.conftest import Call, ConsoleClient
from tests.system import SyncSystem

__all__ = ["run"]

WELL = WorkerNodes(
    broker="ok",
    workers={"worker@host": ["live", "control"], "bulk@host": ["bulk"]},
    beats=["celerybeat@host"],
    waiting={"live": 0, "bulk": 3, "control": 0},
)


class Broker:
    """The answers of nodes."""

    answer: WorkerNodes | None = WELL


@pytest.fixture
def broker(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    from pipeline.operations import workers  # noqa: PLC0415 - Celery reads its settings when it is imported

    broker = Broker()
    monkeypatch.setattr(workers, "_nodes", lambda _patience_s: broker.answer)
    forget_all()
    system.change_rows("INSERT INTO heartbeats (name) VALUES ('beat'), ('sweep')")
    yield broker
    forget_all()


def test_all_is_done(broker: Broker, viewer: ConsoleClient) -> None:
    page = viewer.text("/workers")

    assert "All work is done" in page
    assert "worker@host" in page
    assert "/flower/worker/bulk%40host" in page or "/flower/worker/bulk@host" in page


def test_a_batch_leads_to_its_task_in_flower_and_to_its_run(
    system: SyncSystem, broker: Broker, viewer: ConsoleClient
) -> None:
    run_id = system.start(Entity.PERSON)
    system.change_rows("UPDATE batches SET task_id = '7b0d9f0a-aaaa-bbbb-cccc-000000000000'")

    page = viewer.text("/c/acme/workers")

    assert "/flower/task/7b0d9f0a-aaaa-bbbb-cccc-000000000000" in page
    assert f"/c/acme/runs/{run_id}" in page
    assert "nothing is late" in page
    assert 'aria-current="page">Workers' in page


def test_script_command_and_page_agree(
    system: SyncSystem, broker: Broker, viewer: ConsoleClient, script: Call, run: Run
) -> None:
    assert system
    page = viewer.text("/c/acme/workers")
    status, answer = script("GET", "/api/v1/connectors/acme/workers")
    printed = run("connectors", "workers", "acme")

    assert (status, answer["broker"], answer["nodes"], answer["beats"]) == (200, "ok", WELL.workers, WELL.beats)
    assert [(each["name"], each["messages"]) for each in answer["queues"]] == list(WELL.waiting.items())
    assert (printed.code, answer["sentence"] in printed.out, answer["sentence"] in page) == (0, True, True)
    broker.answer = WorkerNodes(broker="does not answer (X)", workers={}, beats=[], waiting={})
    missing = run("workers")
    assert (missing.code, "correct BROKER_URL" in missing.out) == (1, True)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (WorkerNodes(broker="does not answer (X)", workers={}, beats=[], waiting={}), "BROKER_URL"),
        (WorkerNodes(broker="ok", workers={}, beats=[], waiting={}), "-Q live,bulk,control"),
        (WorkerNodes(broker="ok", workers={"w": ["live", "control"]}, beats=[], waiting={}), "worker -Q bulk"),
    ],
)
def test_who_is_missing_is_named_with_the_command_that_helps(
    system: SyncSystem, broker: Broker, viewer: ConsoleClient, answer: WorkerNodes, words: str
) -> None:
    broker.answer = answer
    if not answer.workers:
        system.change_rows("UPDATE heartbeats SET at = now() - interval '2 minutes'")

    assert words in viewer.text("/workers")


def test_before_the_broker_answers_heartbeats_show_the_state(
    system: SyncSystem, broker: Broker, viewer: ConsoleClient
) -> None:
    broker.answer = None
    assert "All work is done" in viewer.text("/workers")

    forget_all()
    system.change_rows("UPDATE heartbeats SET at = now() - interval '2 minutes'")
    assert "No worker answers" in viewer.text("/workers")


@pytest.mark.parametrize(
    "workers", [{}, {"worker@host": [], "bulk@host": []}, {"worker@host": ["live"], "bulk@host": []}]
)
def test_busy_nodes_are_not_reported_as_missing(
    broker: Broker, viewer: ConsoleClient, workers: dict[str, list[str]]
) -> None:
    broker.answer = WorkerNodes(broker="ok", workers=workers, beats=[], waiting={})

    assert "All work is done" in viewer.text("/workers")


def test_beat_that_does_not_tick_is_missed(system: SyncSystem, broker: Broker, viewer: ConsoleClient) -> None:
    system.change_rows("UPDATE heartbeats SET at = now() - interval '2 minutes' WHERE name = 'beat'")

    assert "celery -A pipeline beat" in viewer.text("/workers")


def test_work_that_is_late_and_leases_that_ran_out_show(
    system: SyncSystem, broker: Broker, viewer: ConsoleClient
) -> None:
    system.start(Entity.PERSON)
    system.change_rows(
        "UPDATE batches SET state = 'ready', due_at = now() - interval '10 minutes' WHERE id = (SELECT min(id) FROM batches)"
    )
    system.change_rows(
        "UPDATE batches SET state = 'running', lease_until = now() - interval '1 s' WHERE id = (SELECT max(id) FROM batches)"
    )

    page = viewer.text("/workers")

    assert "the oldest has been due for 10 min" in page
    assert "worker lost" in page


def test_the_batches_of_another_connector_do_not_show(
    system: SyncSystem, broker: Broker, viewer: ConsoleClient
) -> None:
    system.start(Entity.PERSON)
    system.change_rows("INSERT INTO connectors (id, name, hull_organization) VALUES ('b', 'other', 'other.test')")

    assert "No current batches" in viewer.text("/c/other/workers")
    assert "/c/acme/workers" in viewer.text("/workers")
    assert viewer.get("/c/nobody/workers").status_code == 404


def test_a_sweep_writes_a_heartbeat_and_separates_beats(system: SyncSystem) -> None:
    control = system.module("tasks.control")
    control.sweep()
    assert [row.name for row in system.rows("SELECT name FROM heartbeats")] == ["sweep"]

    control.sweep.push_request(headers={"ticked_by": "beat"})
    try:
        control.sweep.run()
    finally:
        control.sweep.pop_request()

    assert sorted(row.name for row in system.rows("SELECT name FROM heartbeats")) == ["beat", "sweep"]


def test_what_takes_long_is_waited_for_only_a_moment() -> None:
    may_answer, asked = threading.Event(), SimpleNamespace(times=0)

    def question() -> str:
        asked.times += 1
        may_answer.wait(10)
        return "answer"

    value = BackgroundValue(question, fresh_s=60.0, stale_s=60.0)
    assert value(0.05) is None
    assert value(0.05) is None
    may_answer.set()
    while value(0.05) is None:
        pass

    assert (value(0.05), asked.times) == ("answer", 1)


def test_an_older_answer_is_good_enough_while_a_new_one_is_on_its_way() -> None:
    now, may_answer = SimpleNamespace(s=0.0), threading.Event()
    may_answer.set()
    answers = iter(range(10))

    def question() -> int:
        may_answer.wait(10)
        return next(answers)

    value = BackgroundValue(question, fresh_s=5.0, stale_s=20.0, clock=lambda: now.s)
    assert value(0.05) == 0
    may_answer.clear()

    now.s = 10.0
    assert value(0.05) == 0
    now.s = 21.0
    assert value(0.05) is None
    may_answer.set()
    while value(0.05) is None:
        pass
    assert value(0.05) == 1


def test_a_question_that_fails_is_asked_again() -> None:
    answers = iter(["", "answer"])

    def question() -> str:
        answer = next(answers)
        if not answer:
            raise ValueError
        return answer

    value = BackgroundValue(question, fresh_s=60.0, stale_s=60.0)

    assert [value(5.0), value(5.0)] == [None, "answer"]
