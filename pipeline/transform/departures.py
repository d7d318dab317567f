"""Says a deletion or a merge in Pipedrive in Hull's words.

Hull's convention for a record that a service has deleted: `<service>/id` is emptied, `<service>/deleted_at` holds the moment.
Source: the connectors of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.domain.departures import DELETED_AT, DEPARTED, MERGED, Departure, Farewell, Told
from pipeline.domain.kinds import Outcome
from pipeline.domain.webhooks import WebhookAction
from pipeline.errors import Rejected, Skip
from pipeline.transform.incoming import ID_ATTRIBUTE
from pipeline.transform.webhook_heads import decode_head


def read_told(payload: object, pipedrive_id: int) -> Told | None:
    """What a webhook says of this record's end: its own delete, or the change of the record it was merged into.

    None when it tells of no end, or of another record's.
    """
    try:
        head = decode_head(payload)
    except (Rejected, Skip):
        return None
    if head.pipedrive_id == pipedrive_id and head.action is WebhookAction.DELETE:
        merged_into = head.merged_to_id if head.merged_to_id != pipedrive_id else None
        return Told(at_ms=head.sent_at_ms, merged_into=merged_into)
    if head.merged_from_id == pipedrive_id != head.pipedrive_id:
        return Told(at_ms=head.sent_at_ms, merged_into=head.pipedrive_id)
    return None


def say_farewell(
    departure: Departure,
    *,
    state: str,
    held: Mapping[str, Any],
    in_hull: bool,
    supported: bool,
    joinable: bool,
) -> Farewell:
    """Decide what Hull is told of a record that went, and what the log says.

    state      of its id mapping until now
    held       what Hull holds of it, without nulls
    in_hull    whether Hull was ever told of it
    supported  whether the customer wants deletions in Hull
    joinable   for a merge: whether Hull can join it with the other one
    A `conflict` shares its User with a record that may live on: that one keeps what Hull holds.
    """
    is_news = state != departure.state
    if departure.state == MERGED and joinable and in_hull:
        joins = is_news or bool(held)
        outcome = Outcome.SUCCESS if is_news else None
        return Farewell(
            departure=departure, outcome=outcome, reason=MERGED, joins=joins, before=dict(held), delivered=None
        )
    reason = "merge_not_joined" if departure.state == MERGED and in_hull else departure.state
    if not in_hull or state == "conflict":
        outcome = Outcome.SKIP if is_news else None
        return Farewell(
            departure=departure, outcome=outcome, reason=reason, before=dict(held), delivered=dict(held) or None
        )
    if not supported:
        outcome = Outcome.SKIP if is_news else None
        reason = reason if reason == "merge_not_joined" else "deletion_not_supported"
        return Farewell(departure=departure, outcome=outcome, reason=reason, before=dict(held), delivered=dict(held))
    mark = {ID_ATTRIBUTE: None, DELETED_AT: iso_of(departure.at_ms)}
    is_told = state in DEPARTED and ID_ATTRIBUTE not in held and DELETED_AT in held
    return Farewell(
        departure=departure,
        outcome=Outcome.SUCCESS if is_news else None,
        reason=reason,
        attributes={} if is_told else mark,
        before=dict(held),
        delivered={name: value for name, value in held.items() if name != ID_ATTRIBUTE}
        | {DELETED_AT: mark[DELETED_AT]},
    )


def iso_of(moment_ms: int) -> str:
    """A moment as Hull keeps dates, in whole seconds."""
    return datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
