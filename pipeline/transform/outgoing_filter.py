"""Decide whether a User or an Account is sent to Pipedrive, with the sentences that customers search in their logs.

The input is a message and what is known of its record, the output a Verdict. The questions and their order are those of the
connector being replaced, so that an organization that moves over sees the same records sent and skipped.
For a known record, the diff against the snapshot is made later; `no_change_reason` then returns the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.domain.settings import ConnectorSettings
from pipeline.transform.hull_reports import ABSENT, account_linked, changed_attributes, find_attribute, plain_name


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterDecision:
    """Whether a record is sent, and why.

    reason   code why it is not sent, None when it is
    trigger  why it is sent: `export`, `entered_segment`, `account_linked`, `never_synced` or `in_segment`
    detail   the sentence customers search for, empty when it is sent
    """

    reason: str | None
    trigger: str | None
    detail: str

    @property
    def sends(self) -> bool:
        return self.reason is None


def judge(
    message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity, *, is_known: bool, is_departed: bool
) -> FilterDecision:
    """Decide whether the message's record is sent.

    is_known     its counterpart in Pipedrive is known
    is_departed  its counterpart was deleted there
    """
    if message.get("is_export") is True:
        return _send("export")
    if not in_synchronized_segment(message, settings, entity):
        return _leave("not_in_segment", entity)
    if settings.ignores_deleted(entity) and (is_departed or _is_marked_deleted(message, entity)):
        return _leave("deleted_in_pipedrive", entity)
    trigger = _trigger(message, settings, entity)
    if trigger is not None:
        return _send(trigger)
    if not settings.outgoing(entity):
        return _leave("no_outgoing_mapping", entity)
    return _send("in_segment" if is_known else "never_synced")


def no_change_reason(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> tuple[str, str]:
    """Return the reason code and the sentence for a known record that does not differ from its snapshot."""
    changed = changed_attributes(message, entity)
    if not changed:
        return "no_change", _SENTENCES["no_change", entity]
    if changed.isdisjoint(plain_name(row.hull) for row in settings.outgoing(entity)):
        return "no_relevant_change", _SENTENCES["no_relevant_change", entity]
    return "unchanged", REASONS["unchanged"].meaning


def _trigger(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> str | None:
    """Return what sends a record regardless of mappings: for a User without mapped attributes, a Person with only a name."""
    if entered_segment(message, settings, entity):
        return "entered_segment"
    if entity is Entity.PERSON and settings.link_users_in_service and account_linked(message):
        return "account_linked"
    return None


def _is_marked_deleted(message: Mapping[str, Any], entity: Entity) -> bool:
    report = message.get(entity.hull)
    deleted_at = find_attribute(report, "pipedrive/deleted_at") if isinstance(report, dict) else ABSENT
    return deleted_at is not ABSENT and bool(deleted_at)


def _send(trigger: str) -> FilterDecision:
    return FilterDecision(reason=None, trigger=trigger, detail="")


def _leave(reason: str, entity: Entity) -> FilterDecision:
    return FilterDecision(reason=reason, trigger=None, detail=_SENTENCES[reason, entity])


# Customers have saved searches for these sentences: they are exact copies, including double spaces.
_SENTENCES: Final = {
    ("not_in_segment", Entity.PERSON): (
        "User is not present in any of the defined segments to send to service.  Please either add a new synchronized"
        " segment which the user is present in the settings page, or add the user to an existing synchronized segment"
    ),
    ("not_in_segment", Entity.ORGANIZATION): (
        "Account is not present in any of the defined segments to send to service.  Please either add a new synchronized"
        " segment which the account is present in the settings page, or add the account to an existing synchronized segment"
    ),
    ("deleted_in_pipedrive", Entity.PERSON): "User has been deleted",
    ("deleted_in_pipedrive", Entity.ORGANIZATION): "Account has been deleted",
    ("no_outgoing_mapping", Entity.PERSON): (
        "There are no outgoing attributes to synchronize for users.  Please go to the settings page and add outgoing user"
        " attributes to synchronize"
    ),
    ("no_outgoing_mapping", Entity.ORGANIZATION): (
        "There are no outgoing attributes to synchronize for account.  Please go to the settings page and add outgoing"
        " account attributes to synchronize"
    ),
    ("no_relevant_change", Entity.PERSON): (
        "No changes on any of the synchronized attributes for this user.  If you think this is a mistake, please check the"
        " settings page for the synchronized user attributes to ensure that the attribute which changed is in the"
        " synchronized outgoing attributes"
    ),
    ("no_relevant_change", Entity.ORGANIZATION): (
        "No changes on any of the synchronized attributes for this account.  If you think this is a mistake, please check"
        " the settings page for the synchronized account attributes to ensure that the attribute which changed is in the"
        " synchronized outgoing attributes"
    ),
    ("no_change", Entity.PERSON): "No changes on any of the attributes for this user.",
    ("no_change", Entity.ORGANIZATION): "No changes on any of the attributes for this account.",
}


EVERYBODY: Final = frozenset({"ALL", "all_segments"})
"""Values of a setting instead of segments."""


def in_segments(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> bool:
    """Return whether the message's record is in a synchronised segment, or was sent manually, ignoring all filters."""
    return message.get("is_export") is True or in_synchronized_segment(message, settings, entity)


def in_synchronized_segment(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> bool:
    """Return whether the message's record is in a synchronised segment; if none is chosen, no record is."""
    wanted = set(settings.synchronized_segments(entity))
    return bool(wanted & (segment_ids(message, entity) | EVERYBODY))


def entered_segment(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> bool:
    """Return whether the record has just entered a synchronised segment; if all records are synchronised, any segment
    counts."""
    wanted = set(settings.synchronized_segments(entity))
    entered = entered_ids(message, entity)
    return bool(entered and wanted & (entered | EVERYBODY))


def segment_ids(message: Mapping[str, Any], entity: Entity) -> set[str]:
    """Return the record's segments in the message: their list, or if that is missing their ids."""
    name = segments_name(entity)
    listed = message.get(name)
    return ids_in(listed if isinstance(listed, list) else message.get(f"{name.removesuffix('s')}_ids"))


def entered_ids(message: Mapping[str, Any], entity: Entity) -> set[str]:
    """Return the segments that the record has just entered, by the message."""
    changes = message.get("changes")
    moves = changes.get(segments_name(entity)) if isinstance(changes, dict) else None
    return ids_in(moves.get("entered") if isinstance(moves, dict) else None)


def segments_name(entity: Entity) -> str:
    """Give the name under which a message and its changes keep the segments of the record itself."""
    return "segments" if entity is Entity.PERSON else "account_segments"


def ids_in(segments: Any) -> set[str]:
    """Return the ids of segments, given as objects or as ids; other items are ignored."""
    if not isinstance(segments, list):
        return set()
    ids = (segment.get("id") if isinstance(segment, dict) else segment for segment in segments)
    return {each for each in ids if isinstance(each, str) and each}
