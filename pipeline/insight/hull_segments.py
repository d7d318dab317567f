"""Hull's segments by name, read from Hull; without an answer, only ids are shown."""

from __future__ import annotations

from dataclasses import dataclass

from db.session import transaction
from pipeline import wiring
from pipeline.domain.kinds import Entity
from pipeline.errors import PipelineError
from pipeline.telemetry import logger


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Segments of Users and of Accounts. `trouble` says why they could not be read; empty if they were."""

    users: tuple[Segment, ...]
    accounts: tuple[Segment, ...]
    trouble: str = ""

    def of(self, entity: Entity) -> tuple[Segment, ...]:
        return self.users if entity is Entity.PERSON else self.accounts


def ask_segments(connector_key: int) -> Segments:
    """Read them from Hull, outside of any transaction."""
    try:
        with transaction() as session:
            hull = wiring.open_connector(session, connector_key).hull
        found = {entity: tuple(Segment(id=row[0], name=row[1]) for row in hull.segments(entity)) for entity in Entity}
    except PipelineError as unwell:
        logger().warning("segments.not_read", reason=unwell.reason, detail=unwell.detail)
        return Segments(users=(), accounts=(), trouble=f"Hull did not tell its segments ({unwell.reason}).")
    return Segments(users=found[Entity.PERSON], accounts=found[Entity.ORGANIZATION])
