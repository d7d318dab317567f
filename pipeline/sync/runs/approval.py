"""The circuit breaker: what would touch too many records that exist already stops before it begins, and asks a person.

It stands before the two things by which one edit reaches everybody: a backfill that new settings call for, and the application
of a plan. Live changes pass one by one, and what a person sends by hand was chosen by that person. While the first full fetch
of an entity has not come to its end nothing is at stake yet, so nobody is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from db import id_mapping, watermark
from db.run import Run
from pipeline.domain.kinds import Entity

ALWAYS: Final = 100
"""So many records may be touched without a question, whatever their share is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How many of the known records of one entity something would touch.

    perhaps  more of them, of which nobody can tell before Pipedrive or Hull was asked
    """

    entity: Entity
    touched: int
    known: int
    perhaps: int = 0

    @property
    def number(self) -> int:
        """What a person is asked to type."""
        return self.touched + self.perhaps

    @property
    def words(self) -> str:
        known = f"{self.touched:,} of {self.known:,} known {self.entity.plural.capitalize()}"
        return f"{known} and perhaps {self.perhaps:,} more, which have to be looked up first" if self.perhaps else known


class AskFirst(Exception):
    """Nothing was done: a person has to say yes to so many records.

    number  what the person has to type
    """

    def __init__(self, reaches: list[Reach]) -> None:
        self.number = sum(each.number for each in reaches)
        self.reaches = reaches
        super().__init__(f"this would touch {' and '.join(each.words for each in reaches)}")


def reach(session: Session, connector_key: int, entity: Entity, touched: int | None = None) -> Reach:
    """How far something reaches; None is every known record."""
    known = sum(
        each.records
        for each in id_mapping.mapping_counts(session, connector_key)
        if (each.entity, each.state) == (entity, "full")
    )
    return Reach(entity=entity, touched=known if touched is None else touched, known=known)


def must_ask(session: Session, connector_key: int, reach: Reach, share: float) -> bool:
    """Whether a person has to say yes first. `share` is that of the settings in force before (`change_stop_share`)."""
    if reach.number <= max(ALWAYS, share * reach.known):
        return False
    mark = watermark.find_watermark(session, connector_key, reach.entity)
    return mark is not None and mark.complete_since is not None


def held_sentence(run: Run, touched: int) -> str:
    """What a run that waits for a yes says of itself."""
    what = Entity(run.entity).plural.capitalize()
    return f"A {run.kind} of {what} waits for a yes: it would touch all {touched:,} known {what}."
