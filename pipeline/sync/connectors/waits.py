"""What outgoing records wait for: how many, for which fetch, and who ends the wait. For status, doctor and the overview."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from sqlalchemy.orm import Session

from db import change as changes
from db import run as run_rows
from db.change import Waiting
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.outgoing import INDEX_BEHIND, MIRROR_INCOMPLETE
from pipeline.sync.outgoing.index_fetch import rest_of

WAITS: Final = (MIRROR_INCOMPLETE, INDEX_BEHIND)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchWait:
    """entity    whose records wait
    sentence  how many, for what, and who ends it
    run_id    the fetch that ends it, or the one that was to; None before there is one
    is_held   nobody ends it before a person acts
    """

    entity: Entity
    sentence: str
    run_id: int | None
    is_held: bool


def waits_of(session: Session, connector_key: int) -> list[FetchWait]:
    """Say what waits for a fetch, and how that fetch goes."""
    waiting = changes.waiting_for(session, connector_key, WAITS)
    return [_wait(session, connector_key, each) for each in waiting if each.direction == Direction.OUTGOING]


def _wait(session: Session, connector_key: int, waiting: Waiting) -> FetchWait:
    entity = Entity(waiting.entity)
    plural = entity.plural.capitalize()
    who = (
        f"1 {entity.hull.capitalize()} waits"
        if waiting.count == 1
        else f"{waiting.count:,} {entity.hull.capitalize()}s wait"
    )
    what = "first full fetch" if waiting.reason == MIRROR_INCOMPLETE else "fetch of changes"
    begin = f"{who} for the {what} of {plural}, which tells whether Pipedrive has them already."
    kind = "full" if waiting.reason == MIRROR_INCOMPLETE else "incremental"
    running = run_rows.running_run(session, connector_key, entity, kind)
    if running is not None:
        return FetchWait(
            entity=entity, sentence=f"{begin} Run {running.id} is at work on it.", run_id=running.id, is_held=False
        )
    reindexing = run_rows.find_reindexing(session, connector_key, entity) if kind == "full" else None
    if reindexing is not None:
        state = "waits for approval" if reindexing.state == "held" else "is at work on it"
        text = f"{who} until stored {plural} are read by their new identifiers. Run {reindexing.id} {state}."
        return FetchWait(entity=entity, sentence=text, run_id=reindexing.id, is_held=reindexing.state == "held")
    early = run_rows.ended_early(session, connector_key, entity) if kind == "full" else None
    if early is not None:
        times = f", the {early.in_a_row} newest in a row" if early.in_a_row > 1 else ""
        text = (
            f"{begin} Run {early.run.id} was {early.run.state}{times}: replay its failure, or fetch all {plural} again. "
            f"{_next(rest_of(early))}"
        )
        return FetchWait(entity=entity, sentence=text, run_id=early.run.id, is_held=True)
    return FetchWait(entity=entity, sentence=f"{begin} It is started at the next attempt.", run_id=None, is_held=False)


def _next(rest_s: float) -> str:
    minutes = ceil(rest_s / 60)
    if not minutes:
        return "It is started again at the next attempt."
    time = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
    return f"It is started again by itself in {time}."
