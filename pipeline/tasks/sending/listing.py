"""The fetch that records wait for which cannot be looked up otherwise: it is started when the first of them waits.

While the first full fetch has not ended, nothing tells whether Pipedrive has an Organization of some domain. Nobody need start that
fetch, and it does not wait for the night: it runs in the background lane, and its end wakes those who wait (`arrivals.note_end`).
"""

from __future__ import annotations

from typing import Final

from db import connector as connectors
from db import run as run_rows
from db import watermark
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.tasks import runs
from pipeline.telemetry import logger

CAUSE: Final = "look_up"
REST_S: Final = 3600
"""A full fetch that stopped, or that somebody cancelled, is not started again for so long."""


def start(connector_key: int, entity: Entity, *, whole: bool) -> None:
    """Start the fetch, unless one of its kind is running: a full one where `whole`, else one of what changed since the watermark.

    A backfill that reads what is stored by new identifiers is waited for as well: it tells the same for no token.

    A full fetch that was stopped or cancelled within the hour is left to whoever looks at it; the status says so.
    """
    with transaction() as session:
        connector = connectors.get_connector(session, connector_key)
        if whole and run_rows.find_reindexing(session, connector_key, entity) is not None:
            return
        since = None if whole else watermark.walked_to(session, connector, entity) - runs.CATCH_UP_OVERLAP
        if whole and run_rows.ended_early(session, connector_key, entity, within_s=REST_S):
            logger().warning(
                "look_up.no_fetch", type=entity.hull, advice="the last full fetch stopped or was cancelled"
            )
            return
    try:
        run_id = runs.start_run(connector_key, entity, cause=CAUSE, changed_only=True, since=since)
    except runs.RunInProgress:
        return
    logger().info("look_up.fetch_started", type=entity.hull, run_id=run_id)
