"""Records to recheck: Hull may have received an older state last, or two states have the same second.

Load posts before it writes, so another worker with a newer state may be faster; a change that sends the newest
state then corrects Hull. See "Two workers and one record" in docs/engine.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import change_writer, id_mapping, id_mapping_writer
from db.batch import ClaimedBatch
from db.id_mapping import CONTRADICTED, IN_DOUBT, Known
from db.page import PageRow
from db.session import transaction
from pipeline.domain.kinds import Direction
from pipeline.load import incoming as load_incoming
from pipeline.load.incoming import PagePlan

FRESH_S = 120
"""A record with an update time older than this will not change again within the same second, whatever the clocks."""
READ_AGAIN_AFTER_S = 2.0


def fresh_from() -> float:
    """Versions from here on may change again within their second."""
    return time.time() - FRESH_S


def send_newest(session: Session, batch: ClaimedBatch, moved_on: Sequence[PageRow]) -> None:
    """Another writer was faster: Hull shows an older state until the newest is sent again."""
    if not moved_on:
        return
    said = {row.pipedrive_id: row.delivered for row in moved_on}
    id_mapping_writer.doubt(session, batch.connector_key, batch.entity, said)
    scope = (batch.connector_key, Direction.INCOMING, batch.entity)
    change_writer.write_changes(session, *scope, map(str, said), cause="stale_overwrite")


def said_too_late(batch: ClaimedBatch, rows: list[PageRow]) -> None:
    """We posted after losing the lease: resend what another worker delivered since."""
    with transaction() as session:
        ids = [row.pipedrive_id for row in rows]
        known = id_mapping.known(session, batch.connector_key, batch.entity, ids)
        send_newest(session, batch, [row for row in rows if _is_newer(known.get(row.pipedrive_id), row)])


def _is_newer(known: Known | None, row: PageRow) -> bool:
    return known is not None and known.version > row.version


def read_again_later(session: Session, batch: ClaimedBatch, plan: PagePlan, known: dict[int, Known]) -> None:
    """Two contents of one second: which of them is the later shows only once that second has passed.

    The same version with other content is also what new settings make of an old record; that needs no second look.
    """
    twins = [
        sending.record
        for sending in plan.sendings
        if sending.effect == load_incoming.CHANGED and _is_twin(known[sending.record["pipedrive_id"]], sending.record)
    ]
    if not twins:
        return
    now_s = session.execute(text("SELECT extract(epoch FROM now())")).scalar_one()
    ids = [str(record["pipedrive_id"]) for record in twins if record["version"] >= now_s - FRESH_S]
    scope = (batch.connector_key, Direction.INCOMING, batch.entity)
    change_writer.write_changes(session, *scope, ids, cause="same_second", wait_s=READ_AGAIN_AFTER_S)


def _is_twin(known: Known, record: load_incoming.Record) -> bool:
    return known.digest not in (None, IN_DOUBT, CONTRADICTED) and known.version == record["version"]
