"""Transform of an incoming batch: convert every record to Hull's attributes."""

from __future__ import annotations

from typing import Any

from db import batch as batches
from db.batch import ClaimedBatch
from db.session import transaction
from pipeline import extract
from pipeline.domain.json_text import write_lenient
from pipeline.domain.kinds import Outcome
from pipeline.domain.records import FieldProblem, IncomingRecord
from pipeline.errors import Rejected, Skip
from pipeline.sync import definitions
from pipeline.sync.compiled import CompiledSettings, compiled_of
from pipeline.sync.incoming.page_log import log_missing_fields
from pipeline.sync.staging import LeftOut, pack_transformed, unpack_page


def transform_batch(batch: ClaimedBatch) -> None:
    """Convert every record to Hull's attributes; a record that cannot be read leaves the batch, the others continue."""
    plan = compiled_of(batch)
    records, above, below = unpack_page(bytes(batch.extracted or b""))
    mine = [record for record in records if _is_mine(record, above, below)]
    done, troubles = read_records(mine, plan)
    newly_missing: list[FieldProblem] = []
    unknown = definitions.find_unknown_values(mine, done, plan)
    if unknown and (fresh := definitions.compiled_for_unknown(batch, plan, unknown)) is not None:
        newly_missing = [problem for problem in fresh.incoming.problems if problem not in plan.incoming.problems]
        plan = fresh
        done, troubles = read_records(mine, plan)
    packed = pack_transformed(done, troubles, plan.settings_version, plan.fields_read_at)
    with transaction() as session:
        batches.hold(session, batch)
        log_missing_fields(session, batch, newly_missing, plan.settings_version)
        batches.pass_to_load(session, batch.id, packed)


def _is_mine(record: Any, above: int | None, below: int | None) -> bool:
    record_id = extract.id_of(record)
    if record_id is None:
        return True
    return (above is None or record_id > above) and (below is None or record_id < below)


def read_records(records: list[Any], plan: CompiledSettings) -> tuple[list[IncomingRecord], list[LeftOut]]:
    """Return (converted records, records that cannot be read)."""
    read = plan.incoming.read
    done, troubles = [], []
    for record in records:
        try:
            done.append(read(record))
        except (Rejected, Skip) as refused:
            troubles.append(_trouble(record, refused))
    return done, troubles


def _trouble(record: Any, refused: Rejected | Skip) -> LeftOut:
    return LeftOut(
        pipedrive_id=extract.id_of(record),
        outcome=Outcome.SKIP if isinstance(refused, Skip) else Outcome.ERROR,
        reason=refused.reason,
        detail=refused.detail,
        field=refused.field,
        payload=write_lenient(record).decode("utf-8"),
    )
