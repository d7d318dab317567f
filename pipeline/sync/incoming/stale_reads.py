"""Stale states: readings from Pipedrive that are older than a webhook, and deliveries to Hull that lost a race.

Pipedrive's lists may lag behind its webhooks. The record of a stale reading leaves the batch and is read again after growing
pauses; the last attempt is accepted as it is. Two edits in one second have the same `update_time`, so a reading of that second
is compared with the webhook itself.

Load posts before it writes, so another worker may write a newer state first. Then a change resends the newest state to Hull.
See "Two workers and one record" in docs/engine.md.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import change_writer, id_mapping, id_mapping_writer, webhook
from db.batch import ClaimedBatch
from db.change import Change
from db.id_mapping import CONTRADICTED, UNCERTAIN, Known
from db.page import PageRow
from db.session import transaction
from db.webhook import Newest
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction
from pipeline.domain.times import version_of
from pipeline.errors import Rejected, Skip
from pipeline.extract import id_of
from pipeline.load import incoming as load_incoming
from pipeline.load.incoming import PageDiff
from pipeline.sync.compiled import CompiledSettings
from pipeline.telemetry import logger
from pipeline.transform.webhooks import complete_record, decode_webhook

PAUSES_S: Final = (2.0, 5.0, 15.0, 60.0, 300.0)
"""Pauses before a record is read again, by its attempts: six minutes in total."""
SETTLED_S: Final = 120
"""A reading this long after a webhook counts as newer even if its `update_time` does not show it: that has whole seconds, and
it is not documented whether it changes when a deleted record is restored.
"""
FRESH_S = 120
"""A record with an older update time cannot change again within the same second, even if clocks differ."""
READ_AGAIN_AFTER_S = 2.0


def find_lagging(
    session: Session, batch: ClaimedBatch, plan: CompiledSettings, mine: Sequence[Change], read: Sequence[Any]
) -> set[int]:
    """Return Pipedrive ids of the records in `read` that are older than the newest webhook, and may be requested again."""
    tries = {int(change.record_id): change.attempts for change in mine}
    records = {record_id: record for record in read if (record_id := id_of(record)) is not None}
    newest = webhook.find_newest(session, batch.connector_key, batch.entity, records)
    lagging = {each for each in newest if _is_older(records[each], newest[each])}
    doubtful = {each for each in newest if _is_of_one_second(records[each], newest[each])}
    if doubtful:
        uncertain_from_ms = 1000 * (_now_s(session) - SETTLED_S)
        doubtful = {each for each in doubtful if newest[each].sent_at_ms > uncertain_from_ms}
        bodies = webhook.bodies_of(session, [newest[each] for each in doubtful])
        lagging |= {
            each
            for each in doubtful
            if newest[each].is_deleted or (each in bodies and _differs_from(bodies[each], records[each], plan))
        }
    exhausted = {each for each in lagging if not may_ask_again(tries[each])}
    for each in sorted(exhausted):
        logger().warning("incoming.reading.older_than_webhook", pipedrive_id=each, attempts=tries[each])
    return lagging - exhausted


def _is_older(record: Mapping[str, Any], newest: Newest) -> bool:
    version = version_of(record)
    return version is not None and newest.version is not None and version < newest.version


def _is_of_one_second(record: Mapping[str, Any], newest: Newest) -> bool:
    """Return whether both have the same second, or the record was deleted and nothing shows that it was restored since."""
    version = version_of(record)
    if newest.is_deleted:
        return version is not None and version <= newest.sent_at_ms // 1000 and not is_shown_deleted(record)
    return version is not None and version == newest.version


def _now_s(session: Session) -> float:
    return float(session.execute(text("SELECT extract(epoch FROM now())")).scalar_one())


def _differs_from(body: bytes, record: dict[str, Any], plan: CompiledSettings) -> bool:
    """Return whether a mapped value of the webhook differs from the reading."""
    if is_shown_deleted(record):
        return True
    try:
        decoded = decode_webhook(read_lenient(body), plan.catalog)
        if decoded.record is None:
            return False
        completed, _ = complete_record(decoded, record, plan.incoming.custom_fields)
        return plan.incoming.read(completed).digest != plan.incoming.read(record).digest
    except (Rejected, Skip, ValueError, RecursionError):
        return False


def may_ask_again(attempts: int) -> bool:
    return attempts <= len(PAUSES_S)


def ask_again(session: Session, batch: ClaimedBatch, mine: Sequence[Change], ids: Collection[int]) -> None:
    """Postpone these records to read them again. One with a newer webhook since is due when the batch ends."""
    waits: dict[float, list[str]] = {}
    for change in mine:
        if int(change.record_id) in ids and change.revision == change.claimed_revision:
            waits.setdefault(PAUSES_S[min(change.attempts, len(PAUSES_S)) - 1], []).append(change.record_id)
    for wait_s, record_ids in waits.items():
        change_writer.put_back(session, batch.id, record_ids, wait_s, counted=record_ids)
        logger().info("incoming.reading.lags", records=len(record_ids), wait_s=wait_s)


def expects_living(newest: Newest | None, change: Change) -> bool:
    """Return whether the newest webhook shows the record: then an answer without it may be stale."""
    return newest is not None and not newest.is_deleted and newest.sent_at_ms <= change.rank


def is_outdated(newest: Mapping[int, Newest], change: Change) -> bool:
    """Return whether a newer webhook about the record than this change's was received."""
    known = newest.get(int(change.record_id))
    return known is not None and (known.sent_at_ms > change.rank or (known.is_deleted and not change.is_deleted))


def is_shown_deleted(record: Any) -> bool:
    """Return whether Pipedrive returned the record as a deleted one."""
    return isinstance(record, dict) and (record.get("is_deleted") is True or record.get("active_flag") is False)


def fresh_from() -> float:
    """Return the oldest version that may change again within its second."""
    return time.time() - FRESH_S


def send_newest(session: Session, batch: ClaimedBatch, moved_on: Sequence[PageRow]) -> None:
    """Resend the newest state of records that another worker has changed: Hull has received an older state since."""
    if not moved_on:
        return
    delivered = {row.pipedrive_id: row.delivered for row in moved_on}
    id_mapping_writer.mark_uncertain(session, batch.connector_key, batch.entity, delivered)
    scope = (batch.connector_key, Direction.INCOMING, batch.entity)
    change_writer.write_changes(session, *scope, map(str, delivered), cause="stale_overwrite")


def resend_after_lost_lease(batch: ClaimedBatch, rows: list[PageRow]) -> None:
    """Resend what another worker delivered since: we posted after losing the lease."""
    with transaction() as session:
        ids = [row.pipedrive_id for row in rows]
        known = id_mapping.known(session, batch.connector_key, batch.entity, ids)
        send_newest(session, batch, [row for row in rows if _is_newer(known.get(row.pipedrive_id), row)])


def _is_newer(known: Known | None, row: PageRow) -> bool:
    return known is not None and known.version > row.version


def read_again_later(session: Session, batch: ClaimedBatch, plan: PageDiff, known: dict[int, Known]) -> None:
    """Read records with two contents in one second again: only a reading after that second shows the later one.

    New settings also give an old record other content with the same version; that needs no recheck.
    """
    doubtful = [
        sending.record
        for sending in plan.sendings
        if sending.effect == load_incoming.CHANGED
        and _is_of_same_version(known[sending.record["pipedrive_id"]], sending.record)
    ]
    if not doubtful:
        return
    now_s = _now_s(session)
    ids = [str(record["pipedrive_id"]) for record in doubtful if record["version"] >= now_s - FRESH_S]
    scope = (batch.connector_key, Direction.INCOMING, batch.entity)
    change_writer.write_changes(session, *scope, ids, cause="same_second", wait_s=READ_AGAIN_AFTER_S)


def _is_of_same_version(known: Known, record: load_incoming.Record) -> bool:
    return known.digest not in (None, UNCERTAIN, CONTRADICTED) and known.version == record["version"]
