"""Preview the replay of failures: from stored data, without tokens or changes.

The transforms are those of the stages, but Pipedrive is not called. So a preview is as current as the last reading, and
says so if there was none. An incoming record is always read again when it is replayed, whatever the preview.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sqlalchemy.orm import Session

from db.failure import OF_RECORDS, Failure
from pipeline.domain.kinds import Direction, Entity
from pipeline.error_kinds import may_come_back
from pipeline.jobs.replays.preview_batches import being_sent, foresee_batch, foresee_control
from pipeline.jobs.replays.preview_incoming import foresee_incoming
from pipeline.jobs.replays.preview_outgoing import foresee_outgoing
from pipeline.jobs.replays.verdict import Kind, Verdict
from pipeline.telemetry import logger


def foresee(
    session: Session, mine: Sequence[Failure], payloads: Mapping[int, bytes] | None = None
) -> dict[int, Verdict]:
    """Return failure → its preview. `payloads`: failure → an edited payload to use instead of the received one."""
    verdicts: dict[int, Verdict] = {
        each.id: Verdict(kind=Kind.CLOSED, detail=f"It is {each.state} already, by {each.closed_by}.")
        for each in mine
        if each.state != "open"
    }
    records: dict[tuple[int, str, Entity], list[Failure]] = defaultdict(list)
    for each in mine:
        if each.id in verdicts:
            continue
        if each.kind in OF_RECORDS:
            records[each.connector_key, each.direction, Entity(each.entity)].append(each)
        else:
            verdicts[each.id] = (foresee_batch if each.kind == "batch" else foresee_control)(session, each)
    verdicts |= being_sent(session, [each for each in mine if each.id not in verdicts])
    for (connector_key, direction, entity), some in records.items():
        asked = [each for each in some if each.id not in verdicts]
        if direction == Direction.OUTGOING:
            look: Look = partial(foresee_outgoing, session, connector_key, entity, payloads=payloads)
        else:
            look = partial(foresee_incoming, session, connector_key, entity)
        verdicts |= _each_by_itself(session, asked, look)
    return verdicts


Look = Callable[[Sequence[Failure]], dict[int, Verdict]]


def _each_by_itself(session: Session, asked: Sequence[Failure], look: Look) -> dict[int, Verdict]:
    """All together; if a record causes an error, one by one, so that the others still get a preview."""
    try:
        with session.begin_nested():
            return look(asked)
    except Exception as error:
        if may_come_back(error):
            raise
        if len(asked) > 1:
            return {id_: verdict for each in asked for id_, verdict in _each_by_itself(session, [each], look).items()}
        logger().error("failures.verdict.error", failure_id=asked[0].id, error=type(error).__name__)
        return {
            asked[0].id: Verdict(
                kind=Kind.UNKNOWN, detail="Looking at it ends in an error; a replay tells what it comes to."
            )
        }
