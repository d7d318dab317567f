"""What would become of failures if they were replayed now: worked out from what is stored, for no tokens, changing nothing.

The transforms are those that carry records over; only Pipedrive is not asked. So a verdict is as true as the last reading, and
where nothing was read it says so. An incoming record is always read again when it is replayed, whatever its verdict.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from db.failure import Failure
from pipeline.domain.kinds import Direction, Entity
from pipeline.tasks.replaying.foreseen_incoming import foresee_incoming
from pipeline.tasks.replaying.foreseen_outgoing import foresee_outgoing
from pipeline.tasks.replaying.foreseen_work import being_sent, foresee_batch, foresee_control
from pipeline.tasks.replaying.verdict import Kind, Verdict


def foresee(
    session: Session, mine: Sequence[Failure], payloads: Mapping[int, bytes] | None = None
) -> dict[int, Verdict]:
    """Failure → its verdict. `payloads`: failure → a corrected payload that would be sent in place of the one that came."""
    verdicts: dict[int, Verdict] = {
        each.id: Verdict(kind=Kind.CLOSED, detail=f"It is {each.state} already, by {each.closed_by}.")
        for each in mine
        if each.state != "open"
    }
    records: dict[tuple[int, str, Entity], list[Failure]] = defaultdict(list)
    for each in mine:
        if each.id in verdicts:
            continue
        if each.kind == "record":
            records[each.connector_key, each.direction, Entity(each.entity)].append(each)
        else:
            verdicts[each.id] = (foresee_batch if each.kind == "batch" else foresee_control)(session, each)
    verdicts |= being_sent(session, [each for each in mine if each.id not in verdicts])
    for (connector_key, direction, entity), some in records.items():
        asked = [each for each in some if each.id not in verdicts]
        if direction == Direction.OUTGOING:
            verdicts |= foresee_outgoing(session, connector_key, entity, asked, payloads)
        else:
            verdicts |= foresee_incoming(session, connector_key, entity, asked)
    return verdicts
