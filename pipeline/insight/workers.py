"""Is work being done? What moves, what waits, who works, and when the rounds last took place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.orm import Session

from db import heartbeat
from db import progress as rows
from db.figures import oldest_due_s
from db.progress import Moving, Seen
from pipeline.insight.machinery import QUEUES, Machinery

LATE_S: Final = 120.0
"""Due work is handed over again after 20 s: what is older has no worker."""
TICK_LATE_S: Final = 60.0
AT_WORK, LATELY = 50, 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One queue: messages that nobody has taken (None: the broker has not said), who listens, and its batches by state."""

    name: str
    messages: int | None
    workers: tuple[str, ...]
    batches: dict[str, int]

    def count(self, state: str) -> int:
        return self.batches.get(state, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """level  `ok`, `warning` or `error`; sentence  the answer
    due_s    how long the oldest due work has waited
    swept_at, ticked_at  the last sweep; the last one that beat asked for
    """

    level: str
    sentence: str
    next_step: str
    due_s: float
    swept_at: datetime | None
    ticked_at: datetime | None
    queues: tuple[Queue, ...]
    at_work: tuple[Seen, ...]
    lately: tuple[Seen, ...]


def work_of(session: Session, machinery: Machinery | None, connector_key: int | None = None) -> Work:
    """How work stands, of one connector or of all.

    machinery  what the broker said; None while it has said nothing yet
    """
    moving = rows.moving(session, connector_key)
    due_s = oldest_due_s(session, connector_key)
    beats = heartbeat.heartbeats(session)
    level, sentence, step = verdict(moving, due_s, beats, machinery)
    return Work(
        level=level,
        sentence=sentence,
        next_step=step,
        due_s=due_s,
        swept_at=beats.get("sweep"),
        ticked_at=beats.get("beat"),
        queues=tuple(_queue(name, moving, machinery) for name in QUEUES),
        at_work=tuple(rows.at_work(session, connector_key, AT_WORK)),
        lately=tuple(rows.lately(session, connector_key, LATELY)),
    )


Verdict = tuple[str, str, str]
"""(level, the answer in a sentence, the next step)"""


def verdict(moving: list[Moving], due_s: float, beats: dict[str, datetime], machinery: Machinery | None) -> Verdict:
    """The answer, from the worst that could be wrong on."""
    missing = _who_is_missing(moving, beats, machinery)
    if missing is not None:
        return missing
    if due_s > LATE_S:
        words = f"Work is being done, but the oldest has been due for {_span(due_s)}."
        return "warning", words, "Start more workers, or see below why they do not come along."
    counts = _counts(moving)
    if counts["running"] or counts["due"] or counts["waiting"]:
        words = (
            f"Yes: {_batches(counts['running'])} at work, {counts['due'] + counts['waiting']:,} wait, nothing is late."
        )
        return "ok", words, ""
    if counts["put_off"]:
        return "ok", f"Workers are at work; {_batches(counts['put_off'])} tried again later.", ""
    return "ok", "All work is done; the workers wait for more.", ""


def _who_is_missing(moving: list[Moving], beats: dict[str, datetime], machinery: Machinery | None) -> Verdict | None:
    """A node that is busy may answer too late, or only half: nobody is said to be missing for that alone."""
    is_alive = not _is_late(beats.get("sweep"))
    if machinery is not None and machinery.broker != "ok":
        words = "The broker does not answer: work waits in the database, whole, and goes on by itself."
        return "error", words, "Start the broker, or correct BROKER_URL."
    if not is_alive and (machinery is None or not machinery.workers):
        return "error", f"No worker gives a sign of life: {_waiting(moving)}", _start(QUEUES)
    if machinery is not None and machinery.workers and machinery.unattended and all(machinery.workers.values()):
        words = f"No worker listens to {', '.join(machinery.unattended)}: {_waiting(moving)}"
        return "error", words, _start(machinery.unattended)
    if _is_late(beats.get("beat")):
        words = (
            "Workers are at work, but beat does not tick: no fetch begins by itself, and what got lost is not found."
        )
        return "error", words, "Start it: celery -A pipeline beat"
    return None


def _is_late(last: datetime | None) -> bool:
    return last is None or (datetime.now(UTC) - last).total_seconds() > TICK_LATE_S


def _queue(name: str, moving: list[Moving], machinery: Machinery | None) -> Queue:
    known = machinery is not None and machinery.broker == "ok"
    return Queue(
        name=name,
        messages=machinery.waiting.get(name, 0) if machinery is not None and known else None,
        workers=tuple(
            sorted(node for node, queues in (machinery.workers if machinery else {}).items() if name in queues)
        ),
        batches={each.state: each.batches for each in moving if each.queue == name},
    )


def _counts(moving: list[Moving]) -> dict[str, int]:
    states = ("running", "abandoned", "due", "put_off", "held", "waiting")
    return {state: sum(each.batches for each in moving if each.state == state) for state in states}


def _waiting(moving: list[Moving]) -> str:
    counts = _counts(moving)
    waiting = counts["due"] + counts["waiting"] + counts["abandoned"]
    return f"{_batches(waiting)} waiting." if waiting else "nothing is due just now."


def _batches(count: int) -> str:
    return f"{count:,} batch is" if count == 1 else f"{count:,} batches are"


def _start(queues: Iterable[str]) -> str:
    return f"Start one: celery -A pipeline worker -Q {','.join(queues)}"


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
