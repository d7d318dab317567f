"""The repair of `pipeline verify`: every drifted record becomes a change, and is synchronized as usual.

A finding is only a reason to read the record again: the change has no values. The id map is marked as in doubt, so that
the record is sent although the id map says that Hull has it. The job repairs one piece per step; a piece may be
repaired twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import orjson
from sqlalchemy.orm import Session

from db import change_writer, verification
from db.id_mapping_writer import adopt, ask_for_conflicts, doubt
from pipeline.domain.drift import Drift, DriftFinding
from pipeline.domain.kinds import Direction, Entity
from pipeline.jobs.verify.comparison import EntityReport
from pipeline.transform.hull_reports import ID_ATTRIBUTE

AT_ONCE = 500
"""Records to a transaction."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPiece:
    """What is repaired in one transaction: findings, or ids that were not read again, of one entity."""

    entity: Entity
    findings: Sequence[DriftFinding] = ()
    unconfirmed: Sequence[int] = ()


def pieces_of(parts: Iterable[EntityReport]) -> list[RepairPiece]:
    """Return the pieces of a repair, at least one for each entity, always in the same order."""
    pieces: list[RepairPiece] = []
    for part in parts:
        pieces += [RepairPiece(entity=part.entity, findings=some) for some in _chunks(part.findings) or [[]]]
        pieces += [RepairPiece(entity=part.entity, unconfirmed=ids) for ids in _chunks(part.unconfirmed)]
    return pieces


def count_records(parts: Iterable[EntityReport]) -> int:
    """Return how many records a repair would change."""
    return sum(
        len({each.pipedrive_id for each in part.findings if each.is_ours} | set(part.unconfirmed)) for part in parts
    )


def repair(session: Session, connector_key: int, piece: RepairPiece) -> Counter[str]:
    """Write a change for every record of a piece.

    Return how many of each kind were written; under `left`, those that the pipeline may not write to.
    """
    ask_for_conflicts(session, connector_key, piece.entity)
    ours = [finding for finding in piece.findings if finding.is_ours]
    if ours:
        _put_right(session, connector_key, piece.entity, ours)
    if piece.unconfirmed:
        _send_again(session, connector_key, piece.entity, {pipedrive_id: {} for pipedrive_id in piece.unconfirmed})
    done = Counter(finding.kind.value for finding in ours)
    return +(done + Counter(left=len(piece.findings) - len(ours), unconfirmed=len(piece.unconfirmed)))


def _put_right(session: Session, connector_key: int, entity: Entity, findings: Sequence[DriftFinding]) -> None:
    right = {each.pipedrive_id: each.hull_id for each in findings if each.kind is Drift.MISMAPPED and each.hull_id}
    unknown = [each.pipedrive_id for each in findings if each.kind is Drift.MISSING]
    extra = [each.pipedrive_id for each in findings if each.kind is Drift.EXTRA]
    verification.correct_hull_ids(session, connector_key, entity, right, unknown)
    adopt(session, connector_key, entity, extra)
    unmarked = [each.pipedrive_id for each in findings if each.kind is Drift.UNMARKED]
    shown = {pipedrive_id: orjson.dumps({ID_ATTRIBUTE: pipedrive_id}) for pipedrive_id in unmarked}
    doubt(session, connector_key, entity, shown)
    _read_again(session, connector_key, entity, [*extra, *unmarked], cause="missing")
    said: dict[int, dict[str, object]] = {}
    for each in findings:
        if each.kind not in (Drift.EXTRA, Drift.UNMARKED):
            held = {one.attribute: one.hull for one in each.differences if one.hull is not None}
            said[each.pipedrive_id] = said.get(each.pipedrive_id, {}) | held
    _send_again(session, connector_key, entity, said)


def _send_again(session: Session, connector_key: int, entity: Entity, said: dict[int, dict[str, object]]) -> None:
    """`said`: Pipedrive id → values that Hull should not have, so that a null is sent if Pipedrive has no value."""
    doubt(session, connector_key, entity, {key: orjson.dumps(values) for key, values in said.items()})
    _read_again(session, connector_key, entity, said, cause="verify")


def _read_again(session: Session, connector_key: int, entity: Entity, ids: Iterable[int], *, cause: str) -> None:
    change_writer.write_changes(session, connector_key, Direction.INCOMING, entity, map(str, ids), cause=cause)


def _chunks(items: Iterable[T]) -> list[list[T]]:
    rest: Iterator[T] = iter(items)
    return list(iter(lambda: list(islice(rest, AT_ONCE)), []))
