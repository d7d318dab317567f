"""Writes changed fields to Pipedrive, record by record: a refusal is that record's own, and its neighbours go on.

Pipedrive's answer to a write is the whole record as it stands then, so it is the read-back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One record to be changed: the fields to write, in the shapes of API v2."""

    hull_id: str
    pipedrive_id: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of it: Pipedrive's answer, or why it was refused."""

    wanted: Wanted
    answer: dict[str, Any] | None
    refused: Rejected | None = None


def send_updates(pipedrive: PipedriveClient, entity: Entity, wanted: list[Wanted]) -> Iterator[Sent]:
    """PATCH one record after another.

    Raises: Retryable or ConfigurationError as soon as one meets it; what was sent before has been yielded.
    """
    for each in wanted:
        try:
            answer = pipedrive.update(entity, each.pipedrive_id, each.fields)
        except Rejected as refused:
            yield Sent(wanted=each, answer=None, refused=refused)
        else:
            yield Sent(wanted=each, answer=answer)
