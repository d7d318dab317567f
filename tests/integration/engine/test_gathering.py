"""Under load many changes share one batch: none is begun anew while one of the kind waits for a worker."""

from __future__ import annotations

import json

import pytest

from tests.deliveries import deliver, listen
from tests.journeys.people import fill, in_pipedrive, names
from tests.world import World


@pytest.fixture
def edited(world: World) -> list[bytes]:
    """Webhooks about six Persons that nobody knows yet."""
    said = listen(world)
    fill(world, persons=6, organizations=0)
    return [json.dumps(body).encode() for body in said]


def live_batches(world: World) -> list[tuple[str, str]]:
    return [tuple(row) for row in world.rows("SELECT stage, state FROM batches WHERE queue = 'live' ORDER BY id")]


def waiting(world: World) -> int:
    return len(world.rows("SELECT 1 FROM changes WHERE batch_id IS NULL"))


def test_changes_gather_behind_a_batch_that_nobody_has_begun(world: World, edited: list[bytes]) -> None:
    for body in edited:
        deliver(world, body)
        world.module("sync.changes.dispatch").dispatch_changes()

    assert live_batches(world) == [("extract", "ready")]
    assert waiting(world) == 5


def test_once_it_is_begun_the_next_may_go(world: World, edited: list[bytes]) -> None:
    deliver(world, edited[0])
    world.module("sync.changes.dispatch").dispatch_changes()
    due = world.due()
    assert due is not None
    world.step(*due)
    for body in edited[1:]:
        deliver(world, body)
        world.module("sync.changes.dispatch").dispatch_changes()

    assert live_batches(world) == [("transform", "ready"), ("extract", "ready")]
    assert waiting(world) == 4


def test_a_batch_that_ends_takes_along_what_gathered_behind_it(world: World, edited: list[bytes]) -> None:
    for body in edited:
        deliver(world, body)
        world.module("sync.changes.dispatch").dispatch_changes()
    for _ in range(3):
        due = world.due()
        assert due is not None
        world.step(*due)

    assert live_batches(world) == [("load", "done"), ("extract", "ready")]
    assert waiting(world) == 0
    world.work()
    assert names(world) == in_pipedrive(world)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE batches SET enqueued_at = now() - interval '10 s'",
        "UPDATE batches SET due_at = now() + interval '1 minute'",
        "UPDATE batches SET entity = 'organization'",
        "UPDATE batches SET direction = 'outgoing'",
        "UPDATE batches SET direction = 'outgoing', entity = 'organization'",
    ],
    ids=["its message was lost", "it was put off", "another entity", "another direction", "another of both"],
)
def test_what_will_not_begin_soon_or_is_of_another_kind_holds_up_nothing(
    world: World, edited: list[bytes], change: str
) -> None:
    deliver(world, edited[0])
    world.module("sync.changes.dispatch").dispatch_changes()
    world.change_rows(change)

    deliver(world, edited[1])
    made = world.module("sync.changes.dispatch").dispatch_changes()

    assert made == 1
    assert waiting(world) == 0
