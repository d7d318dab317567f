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
    return message.get("is_export") is True or in_synchronized_segment(message, settings, entity)


def in_synchronized_segment(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> bool:
    """Tell whether the message's record is in a synchronised segment; with none chosen, nobody is."""
    wanted = set(settings.synchronized_segments(entity))
    return bool(wanted & (segment_ids(message, entity) | EVERYBODY))


def entered_segment(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> bool:
    """Tell whether the record has just entered a synchronised segment; where everybody goes, any segment is one."""
    wanted = set(settings.synchronized_segments(entity))
    entered = entered_ids(message, entity)
    return bool(entered and wanted & (entered | EVERYBODY))


def segment_ids(message: Mapping[str, Any], entity: Entity) -> set[str]:
    """Collect the segments the message says its record is in: their list, or where that is missing their ids."""
    name = segments_name(entity)
    listed = message.get(name)
    return ids_in(listed if isinstance(listed, list) else message.get(f"{name.removesuffix('s')}_ids"))


def entered_ids(message: Mapping[str, Any], entity: Entity) -> set[str]:
    """Collect the segments that the message says its record has just entered."""
    changes = message.get("changes")
    moves = changes.get(segments_name(entity)) if isinstance(changes, dict) else None
    return ids_in(moves.get("entered") if isinstance(moves, dict) else None)


def segments_name(entity: Entity) -> str:
    """Give the name under which a message and its changes keep the segments of the record itself."""
    return "segments" if entity is Entity.PERSON else "account_segments"


def ids_in(segments: Any) -> set[str]:
    """Collect the ids of segments, given whole or as ids alone; anything else in the list says nothing."""
    if not isinstance(segments, list):
        return set()
    ids = (segment.get("id") if isinstance(segment, dict) else segment for segment in segments)
    return {each for each in ids if isinstance(each, str) and each}
