"""Decides by segments whether a User or an Account goes to Pipedrive at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings

EVERYBODY: Final = frozenset({"ALL", "all_segments"})
"""What a setting may say instead of naming segments."""


def in_segments(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> bool:
    """Tell whether the message's record is in a synchronised segment, or was sent by hand, which no filter stops."""
    if message.get("is_export"):
        return True
    is_person = entity is Entity.PERSON
    wanted = settings.synchronized_user_segments if is_person else settings.synchronized_account_segments
    segments = message.get("segments" if is_person else "account_segments") or []
    ids = {segment.get("id") for segment in segments if isinstance(segment, dict)}
    return bool(set(wanted) & (ids | EVERYBODY))
