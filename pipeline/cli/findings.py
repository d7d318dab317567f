"""The findings of `pipeline doctor` under their headings, each with the next step, and the input of every check."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from db.connector import Connector
from db.run import Run
from pipeline.cli.showing import moment
from pipeline.domain.settings import ConnectorSettings

OK, NOTE, BAD = "ok", "note", "bad"
LATELY_H = 24
"""Hours of events that are counted; older ones are not relevant any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """level  `ok`, `note` (information) or `bad` (an operator must act)"""

    level: str
    text: str
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A heading of the guide with its findings."""

    heading: str
    findings: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The input of every check.

    full_runs  entity → its newest full run
    """

    session: Session
    connector: Connector
    settings: ConnectorSettings
    settings_version: int
    full_runs: dict[str, Run]

    @property
    def name(self) -> str:
        return self.connector.name

    @property
    def key(self) -> int:
        return self.connector.key


def as_json(answers: list[Answer]) -> list[dict[str, Any]]:
    return [
        {
            "heading": answer.heading,
            "findings": [{"level": f.level, "text": f.text, "next": f.next_step or None} for f in answer.findings],
        }
        for answer in answers
    ]


def ago(when: datetime) -> str:
    """Return how long ago a moment was, as text."""
    minutes = (datetime.now(UTC) - when).total_seconds() / 60
    if minutes < 1:
        return "less than a minute ago"
    if minutes < 120:
        return f"{minutes:.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 2880 else f"on {moment(when)} UTC"
