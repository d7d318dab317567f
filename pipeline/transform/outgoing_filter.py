"""Decide whether a User or an Account is sent to Pipedrive, with the sentences that customers search in their logs.

The input is a message and what is known of its record, the output a FilterDecision. The checks and their order are those of
the connector that this one replaces, so that the same records are sent and skipped after a move. A new check is off by
default, and comes after the others that skip a record.
A known record is compared with its snapshot later; `no_change_reason` then returns the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.domain.settings import ConnectorSettings
from pipeline.errors import Rejected
from pipeline.transform.hull_reports import (
    ABSENT,
    account_linked,
    changed_attributes,
    entered_ids,
    find_attribute,
    hull_id_of,
    plain_name,
    segment_ids,
)


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


def filter_message(
    message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity, *, is_known: bool, is_deleted: bool
) -> FilterDecision:
    """Decide whether the message's record is sent.

    is_known     its counterpart in Pipedrive is known
    is_deleted   its counterpart was deleted there
    """
    if message.get("is_export") is True:
        return _send("export")
    if not in_synchronized_segment(message, settings, entity):
        return _skip("not_in_segment", entity)
    if settings.ignores_deleted(entity) and (is_deleted or _is_marked_deleted(message, entity)):
        return _skip("deleted_in_pipedrive", entity)
    trigger = _trigger(message, settings, entity)
    if trigger is not None:
        return _send(trigger)
    if not settings.outgoing(entity):
        return _skip("no_outgoing_mapping", entity)
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
    """Return why a record is sent even without mapped attributes; None if there is no such reason."""
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


def _skip(reason: str, entity: Entity) -> FilterDecision:
    return FilterDecision(reason=reason, trigger=None, detail=_SENTENCES.get((reason, entity), REASONS[reason].meaning))


# Customers have saved searches for these sentences: they are exact copies, including double spaces. A check that the replaced
# connector does not have needs no sentence here: the meaning of its reason is used.
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


ALL_SEGMENTS: Final = frozenset({"ALL", "all_segments"})
"""Values of a setting instead of segments."""


def in_segments(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> bool:
    """Return whether the message's record is in a synchronized segment, or was sent manually (then no filter applies)."""
    return message.get("is_export") is True or in_synchronized_segment(message, settings, entity)


def in_synchronized_segment(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> bool:
    """Return whether the message's record is in a synchronized segment; if none is chosen, no record is."""
    wanted = set(settings.synchronized_segments(entity))
    return bool(wanted & (segment_ids(message, entity) | ALL_SEGMENTS))


def entered_segment(message: Mapping[str, Any], settings: ConnectorSettings, entity: Entity) -> bool:
    """Return whether the record has just entered a synchronized segment; if all records are synchronized, any segment
    counts."""
    wanted = set(settings.synchronized_segments(entity))
    entered = entered_ids(message, entity)
    return bool(entered and wanted & (entered | ALL_SEGMENTS))


def account_to_send(message: Mapping[str, Any], settings: ConnectorSettings) -> dict[str, Any] | None:
    """Return the message about the User's Account; None if the segments do not allow the User or the Account.

    No other filter applies to the User: the Account of a User with a deleted Person is still returned. Its own change passes
    `filter_message`.

    A Pipedrive id in it is not reliable yet: the record must be looked up.

    An export without the Account's segments sends the Account as well, because its segments are not known.
    """
    account = message.get("account")
    if not settings.link_users_in_service or not isinstance(account, dict) or not _has_hull_id(account):
        return None
    if not in_segments(message, settings, Entity.PERSON):
        return None
    is_export = message.get("is_export") is True and not _names_segments(message)
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


def _names_segments(message: Mapping[str, Any]) -> bool:
    return any(isinstance(message.get(name), list) for name in ("account_segments", "account_segment_ids"))
