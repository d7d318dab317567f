"""Finds the Account that must be in Pipedrive before the User of a message can be linked to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.errors import Rejected
from pipeline.transform.hull_reports import hull_id_of
from pipeline.transform.segments import in_segments, in_synchronized_segment, segment_ids


def account_to_send(message: Mapping[str, Any], settings: ConnectorSettings) -> dict[str, Any] | None:
    """Make the message about the User's Account; None when a filter stops either of the two.

    An id of Pipedrive that it carries says nothing yet: whether that record is there has to be looked up.

    An export that does not speak of the Account's segments sends the Account as well: nobody knows what it is in.
    """
    account = message.get("account")
    if not settings.link_users_in_service or not isinstance(account, dict) or not _has_hull_id(account):
        return None
    if not in_segments(message, settings, Entity.PERSON):
        return None
    is_export = message.get("is_export") is True and not _speaks_of_segments(message)
    if not is_export and not in_synchronized_segment(message, settings, Entity.ORGANIZATION):
        return None
    ids = sorted(segment_ids(message, Entity.ORGANIZATION))
    listed = message.get("account_segments")
    return {
        "account": account,
        "account_segments": listed if isinstance(listed, list) else [{"id": each} for each in ids],
        "account_segment_ids": ids,
        "changes": {},
        "is_export": is_export,
    }


def _has_hull_id(account: Mapping[str, Any]) -> bool:
    try:
        return bool(hull_id_of(account))
    except Rejected:  # Hull gives none: nothing could be joined to it
        return False


def _speaks_of_segments(message: Mapping[str, Any]) -> bool:
    return any(isinstance(message.get(name), list) for name in ("account_segments", "account_segment_ids"))
