"""One message of Hull about one record, as a notification, an export or a User's Account brings it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.domain.json_text import is_nested_deeper
from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected
from pipeline.transform.hull_reports import SAID, fold_messages, hull_id_of

LEVELS: Final = 100
"""How deeply a message may nest: far more than Hull's do, and less than what the stages to come cannot write any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HullMessage:
    """rank         when it was received, in milliseconds since the epoch
    delivery_id  the notification that brought it; None for one that came by another way
    """

    connector_key: int
    entity: Entity
    hull_id: str
    body: dict[str, Any]
    cause: str
    rank: int
    delivery_id: int | None = None

    @property
    def key(self) -> tuple[int, str, str]:
        """Return the id of the message's record, and the order in which records are coalesced."""
        return self.connector_key, self.entity.value, self.hull_id


def read_message(connector_key: int, entity: Entity, body: Any, *, cause: str, rank: int) -> HullMessage:
    """Take one message as it came.

    Raises: Rejected("no_hull_id") or Rejected("nested_too_deeply").
    """
    report = body.get(entity.hull) if isinstance(body, dict) else None
    if not isinstance(report, dict):
        raise Rejected("no_hull_id", f"a message carries no {entity.hull}")
    hull_id = hull_id_of(report)
    body = {name: value for name, value in body.items() if name != SAID}
    if is_nested_deeper(body, LEVELS):
        raise Rejected("nested_too_deeply", f"the message about {hull_id} has more than {LEVELS} levels")
    return HullMessage(connector_key=connector_key, entity=entity, hull_id=hull_id, body=body, cause=cause, rank=rank)


def fold_together(messages: Iterable[HullMessage]) -> dict[tuple[int, str, str], HullMessage]:
    """One message for each record, in place of all that were received, given in that order."""
    folded: dict[tuple[int, str, str], HullMessage] = {}
    for message in messages:
        earlier = folded.get(message.key)
        folded[message.key] = message if earlier is None else _fold(earlier, message)
    return folded


def _fold(earlier: HullMessage, later: HullMessage) -> HullMessage:
    if earlier.rank > later.rank:
        earlier, later = later, earlier
    return replace(later, body=fold_messages(earlier.body, later.body))
