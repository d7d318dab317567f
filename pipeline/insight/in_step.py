"""Is everything in Hull? The one sentence an overview begins with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.orm import Session

from db import watermark
from pipeline.domain.kinds import Entity

LEADS: Final = {
    "ok": "In step.",
    "warning": "In step, with something to look at.",
    "error": "Something is wrong.",
    "paused": "Paused: the work is kept and waits.",
    "setupRequired": "Not set up yet.",
}
BEHIND: Final = "Behind."


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """claimed   everything of this entity that changed before this moment is in Hull; None while nothing tells
    excepted  records of which that is not so
    """

    entity: str
    claimed: datetime | None
    excepted: int
    deletes_verified_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InStep:
    """How Hull stands to Pipedrive.

    level     `ok`, `warning`, `error`, `paused` or `setupRequired`
    sentence  without its full stop where records are excepted: these are named, and linked, by whoever shows it
    """

    level: str
    lead: str
    sentence: str
    claimed: datetime | None
    excepted: int
    by_entity: tuple[Reached, ...]

    @property
    def text(self) -> str:
        """The whole of it, for whoever has no links."""
        records = f"{self.excepted:,} record{'' if self.excepted == 1 else 's'}"
        end = (f", except {records}." if self.excepted else ".") if self.claimed else ""
        return f"{self.lead} {self.sentence}{end}"


def reached(session: Session, connector_key: int) -> tuple[Reached, ...]:
    """What is claimed of each entity."""
    return tuple(_reached(session, connector_key, entity) for entity in Entity)


def in_step(level: str, marks: tuple[Reached, ...], *, is_behind: bool, now: datetime) -> InStep:
    """Put it into words. Pure."""
    claims = [mark.claimed for mark in marks if mark.claimed is not None]
    missing = [Entity(mark.entity).plural.capitalize() for mark in marks if mark.claimed is None]
    claimed = None if missing else min(claims, default=None)
    excepted = sum(mark.excepted for mark in marks) if claimed else 0
    return InStep(
        level="warning" if level == "ok" and claimed is None else level,
        lead=BEHIND if is_behind and level == "warning" else _lead(level, claimed),
        sentence=_sentence(claimed, missing, now),
        claimed=claimed,
        excepted=excepted,
        by_entity=marks,
    )


def _lead(level: str, claimed: datetime | None) -> str:
    if claimed is None and level in ("ok", "warning"):
        return "Not in step yet."
    return LEADS[level]


def _sentence(claimed: datetime | None, missing: list[str], now: datetime) -> str:
    if claimed is None:
        return f"Hull holds all {' and all '.join(missing)} once they have been fetched as a whole."
    then = claimed.astimezone(UTC)
    when = f"{then:%H:%M:%S}" if then.date() == now.astimezone(UTC).date() else f"{then:%Y-%m-%d %H:%M:%S}"
    return f"Everything changed in Pipedrive up to {when} is in Hull"


def _reached(session: Session, connector_key: int, entity: Entity) -> Reached:
    mark = watermark.find_watermark(session, connector_key, entity)
    return Reached(
        entity=entity.value,
        claimed=mark.claimed if mark else None,
        excepted=mark.excepted if mark else 0,
        deletes_verified_at=mark.deletes_verified_at if mark else None,
    )
