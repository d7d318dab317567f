"""Canvases: the order of the stages, their queues, and messages that contain only the id of a batch."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from db.batch import Wakeup
from pipeline.domain.reasons import REASONS
from tests.logs import captured_log
from tests.system import make_system

INCOMING = [("incoming.extract", 7), ("incoming.transform", 7), ("incoming.load", 7)]
OUTGOING = [
    ("outgoing.extract", 7),
    ("outgoing.transform", 7),
    ("outgoing.load", 7),
    ("incoming.transform", 8),
    ("incoming.load", 8),
]


@pytest.fixture
def canvases(database: str) -> Any:
    with make_system(with_broker=True) as system:
        yield system.module("tasks.canvases")


def links(canvas: Any) -> list[tuple[str, int]]:
    return [(task["task"], task["args"][0]) for task in canvas.tasks]


@pytest.mark.parametrize("first", [0, 1, 2])
def test_an_incoming_batch_passes_three_stages(canvases: Any, first: int) -> None:
    stage = ("extract", "transform", "load")[first]
    canvas = canvases.incoming(7, "bulk", stage)

    found = links(canvas) if hasattr(canvas, "tasks") else [(canvas["task"], canvas["args"][0])]
    assert found == INCOMING[first:]


@pytest.mark.parametrize("first", [0, 1, 2])
def test_an_outgoing_batch_ends_with_its_read_back(canvases: Any, first: int) -> None:
    stage = ("extract", "transform", "load")[first]

    assert links(canvases.outgoing(7, 8, "live", stage)) == OUTGOING[first:]
    assert links(canvases.outgoing(7, None, "live")) == OUTGOING[:3]


ACCOUNTS = Wakeup(batch_id=7, direction="outgoing", queue="live", stage="extract", read_back_id=8)
USERS = Wakeup(batch_id=17, direction="outgoing", queue="live", stage="extract", read_back_id=18)


def test_users_come_after_the_accounts_they_may_link_to(canvases: Any) -> None:
    canvas = canvases.accounts_then_users(ACCOUNTS, USERS)

    assert links(canvas) == OUTGOING + [(stage, batch_id + 10) for stage, batch_id in OUTGOING]
    assert all(task["immutable"] for task in canvas.tasks)
    assert {task["options"]["queue"] for task in canvas.tasks} == {"live"}


def test_both_are_enqueued_as_one_canvas(canvases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(canvases, "group", lambda works: Sent(sent, works))
    other = Wakeup(batch_id=1, direction="incoming", queue="live", stage="extract")

    canvases.wake([other, replace(ACCOUNTS, then=USERS)])

    assert [[links(canvas)[0] for canvas in works] for works, _ in sent] == [
        [("incoming.extract", 1), ("outgoing.extract", 7)]
    ]
    assert links(sent[0][0][1])[5:] == [(stage, batch_id + 10) for stage, batch_id in OUTGOING]


@pytest.mark.parametrize("queue", ["live", "bulk"])
def test_every_stage_is_sent_to_the_queue_of_its_batch(canvases: Any, queue: str) -> None:
    for canvas in (canvases.incoming(7, queue), canvases.outgoing(7, 8, queue)):
        assert {task["options"]["queue"] for task in canvas.tasks} == {queue}


def test_a_message_has_an_id_only_and_passes_no_result_on(canvases: Any) -> None:
    canvas = canvases.outgoing(7, 8, "live")

    for task in canvas.tasks:
        assert task["immutable"]
        assert list(task["args"]) in ([7], [8])
        assert task["kwargs"] == {}
    assert "chord" not in json.dumps(canvas).replace('"chord_size"', "")


def test_several_batches_are_woken_as_a_group(canvases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(canvases, "group", lambda works: Sent(sent, works))
    wakeups = [Wakeup(batch_id=n, direction="incoming", queue="bulk", stage="extract") for n in (1, 2)]

    canvases.wake(wakeups, countdown_s=3)

    assert [[links(canvas)[0] for canvas in works] for works, _ in sent] == [
        [("incoming.extract", 1), ("incoming.extract", 2)]
    ]
    assert sent[0][1] == {"countdown": 3}


class Sent:
    def __init__(self, sent: list[Any], works: Any) -> None:
        self.sent, self.works = sent, list(works)

    def apply_async(self, **options: Any) -> None:
        self.sent.append((self.works, options))


def test_without_wakeups_nothing_is_sent(canvases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvases, "chain", None)

    canvases.wake([])


@pytest.mark.parametrize("error", [OperationalError("gone"), ConnectionRefusedError("gone")])
def test_an_unreachable_broker_loses_nothing(canvases: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def away(_tasks: Any) -> Any:
        class Away:
            def apply_async(self, **_options: Any) -> None:
                raise error

        return Away()

    monkeypatch.setattr(canvases, "chain", away)
    with captured_log() as lines:
        canvases.wake([Wakeup(batch_id=1, direction="incoming", queue="bulk", stage="extract")])

    assert [(line["event"], line["batches"]) for line in lines] == [("broker.unreachable", 1)]


def test_every_task_of_a_canvas_exists(canvases: Any) -> None:
    from pipeline.tasks import incoming, outgoing  # noqa: PLC0415, F401 - registers them
    from pipeline.tasks.app import app  # noqa: PLC0415

    assert {name for name, _ in INCOMING + OUTGOING} <= set(app.tasks)


@pytest.mark.parametrize("attempt", range(12))
def test_pauses_grow_with_jitter_up_to_a_cap(canvases: Any, attempt: int) -> None:
    from pipeline.sync.stage import BACKOFF_CAP_S, backoff_s  # noqa: PLC0415

    assert backoff_s(attempt, draw=lambda _low, high: high) == min(BACKOFF_CAP_S, 2.0**attempt)
    assert backoff_s(attempt, draw=lambda low, _high: low) == 0.5


def test_each_reason_that_is_no_attempt_is_a_known_reason(canvases: Any) -> None:
    from pipeline.sync.stage import OUR_SYSTEMS, OUT, TURNS  # noqa: PLC0415

    assert set(REASONS) > {*OUR_SYSTEMS, *OUT, *TURNS}
