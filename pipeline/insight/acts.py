"""Acts of people on a connector, each with its entry in the audit log, in the act's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from db import id_mapping
from db import run as run_rows
from db.connector import Connector
from pipeline.domain import budget
from pipeline.domain.kinds import Entity
from pipeline.settings import settings
from pipeline.sync.runs import spending
from pipeline.sync.runs.spending import BudgetStatus

LARGE: Final = 0.5
"""The share of what fetches may still spend today from which on a fetch is called a large one."""


class Impossible(Exception):
    """It is not possible now; the sentence says why, `next_step` what to do."""

    def __init__(self, sentence: str, next_step: str = "") -> None:
        super().__init__(sentence)
        self.sentence, self.next_step = sentence, next_step


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPreview:
    """The estimate of a full fetch of one entity.

    known     number of known records, estimated if there are very many; None before the first fetch
    tokens    of the daily budget, and how many of them fetches may still spend (None is without limit)
    ends_at   None if the daily budget is too small, or nothing is known
    under_way the id of a full fetch in flight
    """

    entity: str
    known: int | None
    pages: int | None
    tokens: int | None
    left: int | None
    took_s: float | None
    ends_at: datetime | None
    under_way: int | None

    @property
    def is_guess(self) -> bool:
        return self.known is not None and self.known >= id_mapping.COUNTED_EXACTLY

    @property
    def waits_for_tomorrow(self) -> bool:
        return self.tokens is not None and self.left is not None and self.tokens > self.left

    @property
    def is_large(self) -> bool:
        return self.tokens is not None and bool(self.left) and self.tokens > LARGE * (self.left or 0)


def preview_fetch(session: Session, connector_key: int, entity: Entity) -> FetchPreview:
    """Return its size, before the person confirms."""
    day = spending.standing(session, connector_key)
    known = id_mapping.count_known(session, connector_key, entity)
    running = run_rows.running_run(session, connector_key, entity, "full")
    cost = budget.fetch_cost(known, settings().page_limit) if known else None
    took_s = cost.pages * spending.pace_of(session, connector_key, entity) if cost else None
    return FetchPreview(
        entity=entity.value,
        known=known or None,
        pages=cost.pages if cost else None,
        tokens=cost.tokens if cost else None,
        left=day.left_for_fetches,
        took_s=took_s,
        ends_at=_ends_at(session, connector_key, entity, day, cost.pages) if cost else None,
        under_way=running.id if running else None,
    )


def _ends_at(session: Session, connector_key: int, entity: Entity, day: BudgetStatus, pages: int) -> datetime | None:
    return spending.ends_at(day, pages, spending.pace_of(session, connector_key, entity))


def require_active(connector: Connector) -> None:
    """Raises: Impossible."""
    if connector.state != "active":
        raise Impossible(f"{connector.name} is paused, so nothing would move.", "Resume it first.")
