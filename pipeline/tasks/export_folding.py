"""The Users or Accounts of an exported file become changes, as those of a notification do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from db import change as changes
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.lenient_json import write_lenient


def fold_exported(
    session: Session, connector_key: int, entity: Entity, messages: Mapping[str, dict[str, Any]], *, rank: int
) -> None:
    """Hull id → message. Always in one order, so that two who fold never wait for each other.

    rank  when the export was asked for, in milliseconds: what Hull told later is newer
    """
    for hull_id in sorted(messages):
        changes.fold(
            session,
            connector_key,
            Direction.OUTGOING,
            entity,
            hull_id,
            cause="export",
            payload=write_lenient(messages[hull_id]),
            rank=rank,
        )
