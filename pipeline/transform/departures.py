"""Convert a deletion or a merge in Pipedrive to Hull's attributes.

Hull's convention for a record that a service has deleted: `<service>/id` is cleared, `<service>/deleted_at` has the moment.
Source: the connectors of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pipeline.domain.departures import DELETED_AT, MERGED, DeletionNotice, Departure, Farewell
from pipeline.domain.kinds import Outcome
from pipeline.domain.webhooks import WebhookAction
from pipeline.errors import Rejected, Skip
from pipeline.transform.incoming import ID_ATTRIBUTE
from pipeline.transform.webhooks import decode_head


def read_told(payload: object, pipedrive_id: int) -> DeletionNotice | None:
    """Return the deletion notice of a webhook for this record: its own delete, or the change of the record it was
    merged into.

    None if it contains no deletion, or that of another record.
    """
    try:
        head = decode_head(payload)
    except (Rejected, Skip):
        return None
    if head.pipedrive_id == pipedrive_id and head.action is WebhookAction.DELETE:
        merged_into = head.merged_to_id if head.merged_to_id != pipedrive_id else None
        return DeletionNotice(at_ms=head.sent_at_ms, merged_into=merged_into)
    if head.merged_from_id == pipedrive_id != head.pipedrive_id:
        return DeletionNotice(at_ms=head.sent_at_ms, merged_into=head.pipedrive_id)
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
    """Decide what Hull receives about a deleted record, and what the log says.

    state      of its id mapping until now
    held       Hull's values of it, without nulls
    in_hull    whether Hull ever received it
    supported  whether the settings mark deletions in Hull
    joinable   for a merge: whether Hull can merge it with the other one
    A `conflict` shares its User with a record that may still exist: that one keeps Hull's values.
    """
    is_news = state != departure.state
    tell = partial(Farewell, departure=departure, before=dict(held))
    success, skip = (Outcome.SUCCESS, Outcome.SKIP) if is_news else (None, None)
    is_marked = DELETED_AT in held
    if departure.state == MERGED and joinable and in_hull and (is_news or not is_marked):
        return tell(outcome=success, reason=MERGED, joins=is_news or bool(held), delivered=None)
    apart = departure.state == MERGED and in_hull
    reason = "merge_not_joined" if apart else departure.state
    if not in_hull or state == "conflict":
        return tell(outcome=skip, reason=reason, delivered=dict(held) or None)
    if not supported:
        return tell(outcome=skip, reason=reason if apart else "deletion_not_supported", delivered=dict(held))
    mark = {ID_ATTRIBUTE: None, DELETED_AT: iso_of(departure.at_ms)}
    is_told = not is_news and is_marked and ID_ATTRIBUTE not in held
    return tell(
        outcome=success,
        reason=reason,
        attributes={} if is_told else mark,
        delivered={name: value for name, value in held.items() if name != ID_ATTRIBUTE}
        | {DELETED_AT: mark[DELETED_AT]},
    )


def iso_of(moment_ms: int) -> str:
    """A moment as Hull keeps dates, in whole seconds."""
    return datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
