"""The condition of a connector: the first sentence of its overview, and its problems."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import run as run_rows
from db import watermark
from db.connector import Connector
from db.token_ledger import moment
from pipeline.domain.kinds import Entity
from pipeline.operations.models import Shape
from pipeline.sync.connectors.status import Status, status_of

LEADS: Final = {
    "ok": "Up to date.",
    "warning": "Up to date, with warnings.",
    "error": "Something is wrong.",
    "paused": "Paused: the work is kept and waits.",
    "setupRequired": "Not set up yet.",
}
BEHIND: Final = "Behind."
FIRST_FETCH: Final = {
    Entity.ORGANIZATION: "Fetch all Organizations first, so that each Person finds the Account it belongs to.",
    Entity.PERSON: "Fetch all Persons: without a full fetch, Hull has only the Persons that change.",
}


class WatermarkShape(Shape):
    """All changes of this entity before `claimed` are in Hull, except those of `excepted` records."""

    entity: str
    claimed: datetime | None
    excepted: int
    deletes_verified_at: datetime | None


class FreshnessShape(BaseModel):
    """How up to date Hull is. `level` is `ok`, `warning`, `error`, `paused` or `setupRequired`.

    `text` is the answer in words; `lead` and `sentence` are its parts without the excepted records.
    """

    level: str
    text: str
    lead: str
    sentence: str
    claimed: datetime | None
    excepted: int
    by_entity: list[WatermarkShape]


class NoteShape(Shape):
    """One problem of a connector; its `topic` and `subject` lead to the page with the next step.

    `topic` is that of a finding of the status, or `first_fetch` for an entity that was never fully fetched.
    """

    level: str
    message: str
    topic: str
    subject: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The condition of a connector; `notes` are its problems, the most urgent first."""

    in_step: FreshnessShape
    notes: tuple[NoteShape, ...]

    @property
    def level(self) -> str:
        """`ok`, `warning`, `error`, `paused` or `setupRequired`."""
        return self.in_step.level

    @property
    def messages(self) -> tuple[str, ...]:
        """Return the notes as sentences; without notes, the sentence about the freshness."""
        return tuple(note.message for note in self.notes) or (self.in_step.text,)


def judge_condition(session: Session, connector: Connector) -> Condition:
    """Return the condition of a connector, from stored data."""
    status = status_of(session, connector)
    marks = [_reached(session, connector.key, entity) for entity in Entity]
    fetched = {
        Entity(run.entity) for run in run_rows.runs_in_state(session, connector.key, "running") if run.kind == "full"
    }
    return Condition(
        in_step=describe_freshness(
            _level(connector, status),
            marks,
            is_behind=any(found.topic == "watermark" for found in status.findings),
            now=moment(session),
        ),
        notes=_notes(status, marks, fetched),
    )


def describe_freshness(
    level: str, marks: Sequence[WatermarkShape], *, is_behind: bool, now: datetime
) -> FreshnessShape:
    """Return how up to date Hull is, in words. Pure."""
    claims = [mark.claimed for mark in marks if mark.claimed is not None]
    missing = [Entity(mark.entity).plural.capitalize() for mark in marks if mark.claimed is None]
    claimed = None if missing else min(claims, default=None)
    excepted = sum(mark.excepted for mark in marks) if claimed else 0
    lead = BEHIND if is_behind and level == "warning" else _lead(level, claimed)
    sentence = _sentence(claimed, missing, now)
    records = f"{excepted:,} record{'' if excepted == 1 else 's'}"
    end = (f", except {records}." if excepted else ".") if claimed else ""
    return FreshnessShape(
        level="warning" if level == "ok" and claimed is None else level,
        text=f"{lead} {sentence}{end}",
        lead=lead,
        sentence=sentence,
        claimed=claimed,
        excepted=excepted,
        by_entity=list(marks),
    )


def _lead(level: str, claimed: datetime | None) -> str:
    if claimed is None and level in ("ok", "warning"):
        return "Not up to date yet."
    return LEADS[level]


def _sentence(claimed: datetime | None, missing: list[str], now: datetime) -> str:
    if claimed is None:
        return f"{' and '.join(missing)} were not fetched completely yet. Start a full fetch."
    then = claimed.astimezone(UTC)
    when = f"{then:%H:%M:%S}" if then.date() == now.astimezone(UTC).date() else f"{then:%Y-%m-%d %H:%M:%S}"
    return f"Everything changed in Pipedrive up to {when} UTC is in Hull"


def _reached(session: Session, connector_key: int, entity: Entity) -> WatermarkShape:
    mark = watermark.find_watermark(session, connector_key, entity)
    if mark is None:
        return WatermarkShape(entity=entity.value, claimed=None, excepted=0, deletes_verified_at=None)
    return WatermarkShape.model_validate(mark)


def _notes(status: Status, marks: Sequence[WatermarkShape], begun: Container[Entity]) -> tuple[NoteShape, ...]:
    """Return the findings of the status, and a note about each first fetch that is possible and missing."""
    notes = [NoteShape.model_validate(found) for found in status.findings]
    missing = {mark.entity for mark in marks if mark.claimed is None}
    if not any(note.topic in ("credentials", "pause") for note in notes):
        notes += [
            NoteShape(level="warning", message=words, topic="first_fetch", subject=entity.value)
            for entity, words in FIRST_FETCH.items()
            if entity in missing and entity not in begun
        ]
    return tuple(notes)


def _level(connector: Connector, status: Status) -> str:
    """Return the level: a pause by an operator is not an error, and is more important than a warning."""
    is_paused = connector.state == "paused" and connector.pause_reason != "not_connected"
    return "paused" if is_paused and status.status != "setupRequired" else status.status
