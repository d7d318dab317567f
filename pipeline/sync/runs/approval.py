"""Approval: work that would touch too many existing records needs an operator's approval before it begins.

It applies to the two cases in which one edit changes many records: a backfill after new settings, and applying a plan. Live
changes and sends do not need approval. Before the first full fetch of an entity has ended, no approval is needed either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from db import id_mapping, watermark
from db.run import Run
from pipeline.domain.kinds import Entity

ALWAYS: Final = 100
"""Number of records that may be touched without approval, whatever their share is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How many of the known records of one entity something would touch.

    perhaps  further records that may be touched, depending on a look-up in Pipedrive or Hull
    """

    entity: Entity
    touched: int
    known: int
    perhaps: int = 0

    @property
    def number(self) -> int:
        """Return the number that the operator must confirm."""
        return self.touched + self.perhaps

    @property
    def words(self) -> str:
        known = f"{self.touched:,} of {self.known:,} known {self.entity.plural.capitalize()}"
        return f"{known} and perhaps {self.perhaps:,} more, which have to be looked up first" if self.perhaps else known


class AskFirst(Exception):
    """Nothing was done: the operator must confirm the number of records.

    number  the number to confirm
    """

    def __init__(self, reaches: list[Reach]) -> None:
        self.number = sum(each.number for each in reaches)
        self.reaches = reaches
        super().__init__(f"this would touch {' and '.join(each.words for each in reaches)}")


def reach(session: Session, connector_key: int, entity: Entity, touched: int | None = None) -> Reach:
    """Return the reach of `touched` records; None means every known record."""
    known = sum(
        each.records
        for each in id_mapping.mapping_counts(session, connector_key)
        if (each.entity, each.state) == (entity, "full")
    )
    return Reach(entity=entity, touched=known if touched is None else touched, known=known)


def must_ask(session: Session, connector_key: int, reach: Reach, share: float) -> bool:
    """Return whether approval is needed. `share` is `change_stop_share` of the settings in force before."""
    if reach.number <= max(ALWAYS, share * reach.known):
        return False
    mark = watermark.find_watermark(session, connector_key, reach.entity)
    return mark is not None and mark.complete_since is not None


def held_sentence(run: Run, touched: int) -> str:
    """Return the sentence about a run that needs approval."""
    what = Entity(run.entity).plural.capitalize()
    return f"{run.kind.capitalize()} of {what} needs approval: it would update all {touched:,} known {what}."
