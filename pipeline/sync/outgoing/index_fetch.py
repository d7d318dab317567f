"""Start the fetch that records without another look-up wait for, when the first of them waits.

Until the first full fetch has ended, it is not known whether Pipedrive has an Organization with some domain. The fetch starts
automatically, runs in the background lane, and its end wakes the waiting records (`completion.note_end`).
"""

from __future__ import annotations

from typing import Final

from db import connector as connectors
from db import run as run_rows
from db import watermark
from db.run import EndedEarly
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.sync.runs import runs
from pipeline.telemetry import logger

CAUSE: Final = "look_up"
REST_S: Final = 3600
"""A full fetch that stopped, or was cancelled, is not started again for so long; the time doubles with each that ends so."""
LONGEST_REST_S: Final = 24 * 3600


def start(connector_key: int, entity: Entity, *, whole: bool) -> None:
    """Start the fetch, unless one of its kind is running: a full one if `whole`, otherwise one of the changes since
    the watermark.

    A backfill that reindexes the snapshots with new identifiers is waited for as well: it gives the same result without tokens.

    A full fetch that was stopped or cancelled is started again after an hour, two, four, up to a day; the status says when.
    """
    with transaction() as session:
        connector = connectors.get_connector(session, connector_key)
        if whole and run_rows.find_reindexing(session, connector_key, entity) is not None:
            return
        since = None if whole else watermark.walked_to(session, connector, entity) - runs.CATCH_UP_OVERLAP
        rest_s = rest_of(run_rows.ended_early(session, connector_key, entity)) if whole else 0.0
        if rest_s > 0:
            logger().warning(
                "look_up.no_fetch",
                type=entity.hull,
                next_s=round(rest_s),
                advice="the last full fetch stopped or was cancelled: replay its failure, or fetch all again",
            )
            return
    try:
        run_id = runs.start_run(connector_key, entity, cause=CAUSE, changed_only=True, since=since)
    except runs.RunInProgress:
        return
    logger().info("look_up.fetch_started", type=entity.hull, run_id=run_id)


def rest_of(early: EndedEarly | None) -> float:
    """Return the seconds until a full fetch that ended early is started again automatically; 0 at the next attempt."""
    if early is None:
        return 0.0
    return max(0.0, min(REST_S * 2.0 ** (early.in_a_row - 1), LONGEST_REST_S) - early.ago_s)
