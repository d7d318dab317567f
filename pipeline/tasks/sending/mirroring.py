"""What a look-up listed goes the way of everything that comes in: as a batch that begins with transform, it reaches the mirror and
Hull. So the next look-up has less to list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.orm import Session

from db import batch as batches
from db import id_mapping
from db.batch import Batch, ClaimedBatch, wakeup_of
from db.session import after_commit
from pipeline.domain.kinds import Direction
from pipeline.domain.lenient_json import write_lenient
from pipeline.tasks import canvases
from pipeline.tasks.staging import pack_page
from pipeline.transform.times import epoch_seconds

LISTED: Final = "look_up"


def keep_listed(session: Session, batch: ClaimedBatch, records: Mapping[int, dict[str, Any]]) -> None:
    """Hand on those of the records that are newer than what was carried over."""
    known = id_mapping.known(session, batch.connector_key, batch.entity, list(records))
    news = [
        record
        for pipedrive_id, record in records.items()
        if pipedrive_id not in known or known[pipedrive_id].version < (epoch_seconds(record.get("update_time")) or 0)
    ]
    if not news:
        return
    row = Batch(
        connector_key=batch.connector_key,
        direction=Direction.INCOMING,
        entity=batch.entity,
        queue="live",
        stage="transform",
        state="ready",
        cause=LISTED,
        extracted=pack_page(write_lenient({"data": news})),
        records=len(news),
    )
    session.add(row)
    session.flush()
    batches.mark_enqueued(session, row.id)
    wakeup = wakeup_of(row)
    after_commit(session, lambda: canvases.wake([wakeup]))
