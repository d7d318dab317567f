"""The repair of `pipeline verify`: every record that has drifted becomes a change, and goes its ordinary way to Hull.

What a comparison saw is only a reason to read the record again: the change carries no value. The id map is put in doubt, so
that the record is sent although the id map says that Hull has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import orjson
from sqlalchemy.orm import Session

from db import change as changes
from db import verification
from db.hull_ids import ask_for_conflicts
from db.id_mapping import doubt
from db.session import transaction
from pipeline.domain.drift import Drift, DriftFinding
from pipeline.domain.kinds import Direction, Entity
from pipeline.jobs.verify.verify import Report
from pipeline.tasks.wakeups import wake_control
from pipeline.transform.incoming import ID_ATTRIBUTE

AT_ONCE = 500
"""Records to a transaction."""

T = TypeVar("T")


def repair(connector_key: int, report: Report) -> Counter[str]:
    """Fold a change for every record that has drifted, and wake a worker.

    Returns how many of each kind were folded; under `left`, those that nothing here may write to.
    """
    done: Counter[str] = Counter()
    for part in report.entities:
        with transaction() as session:
            ask_for_conflicts(session, connector_key, part.entity)
        ours = [finding for finding in part.findings if finding.is_ours]
        done["left"] += len(part.findings) - len(ours)
        for some in _chunks(ours):
            with transaction() as session:
                _put_right(session, connector_key, part.entity, some)
        for ids in _chunks(part.unconfirmed):
            with transaction() as session:
                _send_again(session, connector_key, part.entity, {pipedrive_id: {} for pipedrive_id in ids})
        done.update(finding.kind.value for finding in ours)
        done["unconfirmed"] += len(part.unconfirmed)
    wake_control("dispatch")
    return +done


def _put_right(session: Session, connector_key: int, entity: Entity, findings: Sequence[DriftFinding]) -> None:
    right = {each.pipedrive_id: each.hull_id for each in findings if each.kind is Drift.MISMAPPED and each.hull_id}
    unknown = [each.pipedrive_id for each in findings if each.kind is Drift.MISSING]
    extra = [each.pipedrive_id for each in findings if each.kind is Drift.EXTRA]
    verification.correct_hull_ids(session, connector_key, entity, right, unknown)
    verification.adopt(session, connector_key, entity, extra)
    unmarked = [each.pipedrive_id for each in findings if each.kind is Drift.UNMARKED]
    shown = {pipedrive_id: orjson.dumps({ID_ATTRIBUTE: pipedrive_id}) for pipedrive_id in unmarked}
    doubt(session, connector_key, entity, shown)
    for pipedrive_id in sorted([*extra, *unmarked]):
        changes.fold(session, connector_key, Direction.INCOMING, entity, str(pipedrive_id), cause="missing")
    said: dict[int, dict[str, object]] = {}
    for each in findings:
        if each.kind not in (Drift.EXTRA, Drift.UNMARKED):
            held = {one.attribute: one.hull for one in each.differences if one.hull is not None}
            said[each.pipedrive_id] = said.get(each.pipedrive_id, {}) | held
    _send_again(session, connector_key, entity, said)


def _send_again(session: Session, connector_key: int, entity: Entity, said: dict[int, dict[str, object]]) -> None:
    """`said`: Pipedrive id → what Hull holds that it should not, so that a null is said where Pipedrive has nothing."""
    doubt(session, connector_key, entity, {key: orjson.dumps(values) for key, values in said.items()})
    for pipedrive_id in sorted(said):
        changes.fold(session, connector_key, Direction.INCOMING, entity, str(pipedrive_id), cause="verify")


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, AT_ONCE)):
        yield some
