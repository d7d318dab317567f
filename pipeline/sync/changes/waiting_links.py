"""Links that could not be made yet: a Person waits for the Organization of its User's Account, and goes again once there is one."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.orm import Session

from db import change as changes
from db import joining
from pipeline.domain.kinds import Direction, Entity


def organization_found(session: Session, connector_key: int, account_ids: Iterable[str]) -> None:
    """These Accounts have an Organization now: their Users are sent again, as they were last reported."""
    for hull_id in joining.take_awaiting(session, connector_key, account_ids):
        changes.fold(session, connector_key, Direction.OUTGOING, Entity.PERSON, hull_id, cause="account_mapped")
