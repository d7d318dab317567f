"""Many workers create the same Person and are killed at every step: in the end there is one."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from typing import Any

import pytest
from sqlalchemy import text

from db.batch import Batch
from db.session import transaction
from pipeline.domain.kinds import Direction, Entity
from pipeline.settings import settings
from tests.journeys.hull_messages import fetch_everything, is_idle, user
from tests.prepared import prepared
from tests.system import SyncSystem

TASKS = 50
EMAILS = 5
KILLS = 12
SLOW_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20)]


class Killed(BaseException):
    """`kill -9`: nothing of the worker's own code runs any more."""


@prepared
def everything_sent(system: SyncSystem) -> None:
    system.change_settings(
        synchronized_user_segments=["ALL"], outgoing_user_attributes=[{"hull": "nickname", "service": "name"}]
    )
    fetch_everything(system)


@pytest.fixture(autouse=True)
def ready(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that were killed take no slots from the others, or all kills would hit the same few batches."""
    stage = system.module("sync.stage")
    monkeypatch.setattr(stage, "settings", lambda: settings().replace(live_at_once=TASKS))
    everything_sent(system)


class Fate:
    """Kills workers at random steps, at most KILLS times."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.kills: Counter[str] = Counter()

    def at(self, step: str) -> None:
        if self.kills.total() < KILLS and self._draw.random() < 0.25:
            self.kills[step] += 1
            raise Killed(step)

    def around(self, step: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The real thing, which may be the last its worker does, or may not be done at all."""

        def done(*args: Any, **kwargs: Any) -> Any:
            self.at(f"before {step}")
            answer = real(*args, **kwargs)
            self.at(f"after {step}")
            return answer

        return done


STEPS = {
    "the intent": ("sync.outgoing.matching", "_write_intents"),
    "the look-up": ("sync.outgoing.matching", "look_up"),
    "what was found": ("sync.outgoing.matching", "_decide"),
    "the write": ("sync.outgoing.load", "load_outgoing.send"),
    "what became of it": ("sync.outgoing.load", "_store"),
}
"""Step → the seam at which it can be cut."""


@contextmanager
def deadly(system: SyncSystem, fate: Fate) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for step, (place, name) in STEPS.items():
            *inside, seam = name.split(".")
            target = reduce(getattr, inside, system.module(place))
            patch.setattr(target, seam, fate.around(step, getattr(target, seam)))
        yield


def crowd(seed: int) -> list[dict[str, Any]]:
    """Return messages about Users with a few e-mails: some are several messages about one User, some are about several Users."""
    draw = random.Random(seed)
    messages = []
    for number in range(TASKS):
        email = f"p{draw.randrange(EMAILS)}@crowd.test"
        hull_id = f"{draw.randrange(TASKS * 2 // 3):024x}"
        messages.append(user(hull_id, email=email, nickname=f"P{number}"))
    return messages


def batch_of(system: SyncSystem, message: dict[str, Any], number: int) -> int | None:
    """Return a batch with one message; None while its User is in another batch."""
    hull_id = message["user"]["id"]
    with transaction() as session:
        system.module("sync.changes.outgoing_changes").coalesce_messages(
            session, system.connector_key, Entity.PERSON, [message], cause="test", is_export=False, rank=number
        )
        free = text("SELECT id FROM changes WHERE record_id = :id AND batch_id IS NULL FOR UPDATE SKIP LOCKED")
        if session.execute(free, {"id": hull_id}).one_or_none() is None:
            return None
        batch = Batch(
            connector_key=system.connector_key,
            direction=Direction.OUTGOING,
            entity=Entity.PERSON,
            queue="live",
            state="ready",
        )
        session.add(batch)
        session.flush()
        claim = "UPDATE changes SET batch_id = :b, claimed_revision = revision, attempts = attempts + 1 WHERE record_id = :id"
        session.execute(text(claim), {"b": batch.id, "id": hull_id})
        return batch.id


def run_to_the_end(system: SyncSystem, batch_id: int) -> None:
    for stage in ("extract", "transform", "load"):
        try:
            system.run_batch_stage(batch_id, "outgoing", stage)
        except Killed:
            return


@pytest.mark.parametrize("seed", [0, *SLOW_SEEDS])
def test_fifty_at_once_make_one_person_for_each_email(system: SyncSystem, seed: int) -> None:
    fate = Fate(seed)
    batches = [
        found for number, each in enumerate(crowd(seed)) if (found := batch_of(system, each, number)) is not None
    ]
    with deadly(system, fate):
        with ThreadPoolExecutor(8) as workers:
            list(workers.map(lambda batch_id: run_to_the_end(system, batch_id), batches))
        for _ in range(KILLS * 2):
            system.expire_leases()
            system.end_pauses()
            work_with_kills(system)
    for _ in range(12):
        system.expire_leases()
        system.end_pauses()
        system.work()

    doubles = {email: count for email, count in persons_by_email(system).items() if count != 1}
    assert doubles == {}
    assert fate.kills.total() == KILLS
    assert joined_once(system)
    assert is_idle(system)


def work_with_kills(system: SyncSystem) -> None:
    """Run what is due with workers that may be killed."""
    for _ in range(200):
        due = system.next_batch()
        if due is None:
            if not system.module("sync.changes.dispatch").dispatch_changes():
                return
            continue
        try:
            system.run_batch_stage(*due)
        except Killed:
            system.expire_leases()


def persons_by_email(system: SyncSystem) -> Counter[str]:
    found: Counter[str] = Counter()
    for body in system.company.export("person"):
        found.update(each["value"] for each in json.loads(body)["emails"] if each["value"].endswith("@crowd.test"))
    return found


def joined_once(system: SyncSystem) -> bool:
    """Every Person that was made is joined to one User, and every other User of its e-mail waits for a person's word."""
    joined = {row.hull_id for row in system.rows("SELECT hull_id FROM id_mappings WHERE pipedrive_id IS NOT NULL")}
    held = {row.record_id for row in system.rows("SELECT record_id FROM failures WHERE state = 'open'")}
    asked = {f"{number:024x}" for number in range(TASKS * 2 // 3)}
    reported = {
        row.hull_id for row in system.rows("SELECT DISTINCT hull_id FROM sync_events WHERE hull_id IS NOT NULL")
    }
    return (reported & asked) <= joined | held
