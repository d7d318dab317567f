"""Limit what webhooks can spend on unknown ids: a sender of webhooks can name any number of them.

A webhook with a complete body needs no reading. Other ids without an id mapping are read with CALLS in EVERY_S, from
the tokens for fetches. The rest waits, and webhooks about the same record are one change; what has waited MOST_WAITS
times is left to the incremental fetch, which finds every real change with one walk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

from sqlalchemy.orm import Session

from db import change_writer, heartbeat, id_mapping
from db.batch import ClaimedBatch
from db.change import Change
from db.schedule import catch_up_soon
from db.session import transaction
from pipeline import wiring
from pipeline.domain.budget import Lane
from pipeline.domain.kinds import Entity
from pipeline.errors import Retryable
from pipeline.extract import CHUNK_OF_IDS, read_by_ids
from pipeline.sync.compiled import Plan
from pipeline.telemetry import logger

CALLS: Final = 10
"""Each reads CHUNK_OF_IDS, for 10 tokens."""
EVERY_S: Final = 60
MOST_WAITS: Final = 3
WEBHOOK: Final = "webhook"


@dataclass(slots=True)
class Sorted:
    """Pipedrive ids that a batch has to read.

    known    read as ever
    unknown  may be read now
    later    have left the batch, and come again
    """

    known: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    later: list[int] = field(default_factory=list)


def sort_ids(session: Session, batch: ClaimedBatch, mine: Sequence[Change], ids: Sequence[int]) -> Sorted:
    """Return which ids of a batch may be read now, and postpone or drop the others.

    Only webhooks are limited: ids of a replay, a repair or a recheck were chosen by the pipeline.
    """
    known = id_mapping.known(session, batch.connector_key, Entity(batch.entity), list(ids))
    named = {int(change.record_id) for change in mine if change.cause == WEBHOOK}
    found = Sorted(known=[each for each in ids if each in known or each not in named])
    strange = [each for each in ids if each not in known and each in named]
    if not strange:
        return found
    calls = heartbeat.take_share(
        session, f"unknown ids of {batch.connector_key}", ceil(len(strange) / CHUNK_OF_IDS), most=CALLS, every_s=EVERY_S
    )
    found.unknown, strange = strange[: calls * CHUNK_OF_IDS], strange[calls * CHUNK_OF_IDS :]
    attempts = {int(change.record_id): change.attempts for change in mine}
    found.later = [each for each in strange if attempts.get(each, 0) < MOST_WAITS]
    if found.later:
        names = [str(each) for each in found.later]
        change_writer.put_back(session, batch.id, names, EVERY_S, counted=names)
    if len(found.later) < len(strange):
        leave_to_fetch(session, batch, len(strange) - len(found.later))
    return found


def read_unknown(batch: ClaimedBatch, plan: Plan, ids: Sequence[int]) -> list[Any] | None:
    """Read ids that are not known; None when fetches may spend no more today. Raises: as `read_by_ids`."""
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=Lane.BULK)
    try:
        return read_by_ids(wired.pipedrive, Entity(batch.entity), ids, plan.incoming.include_fields)
    except Retryable as spent:
        if spent.reason != "daily_budget_spent":
            raise
    with transaction() as session:
        leave_to_fetch(session, batch, len(ids))
    return None


def leave_to_fetch(session: Session, batch: ClaimedBatch, count: int) -> None:
    """Have the next incremental fetch find out about ids that are not read."""
    logger().warning("incoming.unknown_ids.not_read", records=count)
    catch_up_soon(session, batch.connector_key)
