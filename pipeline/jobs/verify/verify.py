"""The job that compares Pipedrive, Hull and the id map; on request it repairs the drift.

    enqueue → step, by workers: a page, or 100 records that are read again → report_of, during the job and for a day after

The checkpoint of the job is a `Report` with its progress and counts; findings and ids are `job_items`. So another worker continues
after the last step of a killed one. A spent budget or a rate limit postpones the job and is not an attempt.

A repair synchronizes every drifted record again: its change has no values, so the record is read again, and the id map is marked as
uncertain, so that the record is sent although it was delivered before. A step repairs one piece; repairing a piece twice
does no harm.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import change_writer, verification
from db import job as jobs
from db.id_mapping import mapping_counts
from db.id_mapping_writer import add_unmapped, mark_uncertain, query_conflicts_again
from db.job import ClaimedJob, Job
from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.domain.budget import LIST_TOKENS, Lane
from pipeline.domain.drift import Drift, DriftFinding
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.paging import MAX_IDS
from pipeline.jobs.verify.comparison import Comparison
from pipeline.jobs.verify.reading import Reader
from pipeline.jobs.verify.report import EntityReport, with_findings
from pipeline.settings import settings
from pipeline.sync import job_queue
from pipeline.sync.compiled import compiled_for
from pipeline.sync.definitions import refresh
from pipeline.sync.job_queue import CONTINUE, DONE, VERIFY, JobStep, order_of, read_stored
from pipeline.tasks import canvases
from pipeline.transform.hull_reports import ID_ATTRIBUTE

PIECE_SIZE: Final = 500
"""Records to a transaction."""
T = TypeVar("T")
ORDER: Final = (Entity.ORGANIZATION, Entity.PERSON)
SAMPLE: Final = 500
"""Records of each kind in a sample: they are compared within a minute, and show drift of one in a hundred records."""
NAMED: Final = 100
"""Maximum of records that `verifications` names; others are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPiece:
    """What one transaction repairs: findings, or ids that were not read again, of one entity."""

    entity: Entity
    findings: Sequence[DriftFinding] = ()
    unconfirmed: Sequence[int] = ()


class VerifyOrder(BaseModel):
    """sample  number of compared records of each kind, drawn from all three sides; None for all
    repair  whether drifted records are synchronized again
    """

    sample: int | None
    requested_by: str
    repair: bool = False

    @property
    def title(self) -> str:
        """Return the title of the job."""
        return f"Compare {'all records' if self.sample is None else f'{self.sample:,} records of each kind'}"


class Report(BaseModel):
    """The progress of a comparison, with the duration and the cost of its steps.

    is_kept    its counts are in `verifications`
    to_repair  number of records that a repair would change, once `is_kept`
    repaired   number of records of each kind that became changes, after so many `pieces`; None without a repair
    """

    entities: tuple[EntityReport, ...] = tuple(EntityReport(entity=entity) for entity in ORDER)
    seconds: float = 0.0
    tokens: int = 0
    requests: int = 0
    is_kept: bool = False
    to_repair: int = 0
    repaired: Counter[str] | None = None
    pieces: int = 0

    @property
    def drift(self) -> int:
        return sum(each.drift for each in self.entities)


def pieces_of(parts: Iterable[EntityReport]) -> list[RepairPiece]:
    """Return the pieces of a repair, at least one for each entity, always in the same order."""
    pieces: list[RepairPiece] = []
    for part in parts:
        pieces += [RepairPiece(entity=part.entity, findings=some) for some in _chunks(part.findings) or [[]]]
        pieces += [RepairPiece(entity=part.entity, unconfirmed=ids) for ids in _chunks(part.unconfirmed)]
    return pieces


def _chunks(items: Iterable[T]) -> list[list[T]]:
    rest: Iterator[T] = iter(items)
    return list(iter(lambda: list(islice(rest, PIECE_SIZE)), []))


def count_records(parts: Iterable[EntityReport]) -> int:
    """Return how many records a repair would change."""
    return sum(
        len({each.pipedrive_id for each in part.findings if each.is_ours} | set(part.unconfirmed)) for part in parts
    )


def repair(session: Session, connector_key: int, piece: RepairPiece) -> Counter[str]:
    """Write a change for every record of a piece.

    Return how many of each kind were written; under `left`, those that the pipeline may not write to.
    """
    query_conflicts_again(session, connector_key, piece.entity)
    ours = [finding for finding in piece.findings if finding.is_ours]
    if ours:
        _repair_findings(session, connector_key, piece.entity, ours)
    if piece.unconfirmed:
        _send_again(session, connector_key, piece.entity, {pipedrive_id: {} for pipedrive_id in piece.unconfirmed})
    done = Counter(finding.kind.value for finding in ours)
    return +(done + Counter(left=len(piece.findings) - len(ours), unconfirmed=len(piece.unconfirmed)))


def _repair_findings(session: Session, connector_key: int, entity: Entity, findings: Sequence[DriftFinding]) -> None:
    correct = {each.pipedrive_id: each.hull_id for each in findings if each.kind is Drift.MISMAPPED and each.hull_id}
    unknown = [each.pipedrive_id for each in findings if each.kind is Drift.MISSING]
    extra = [each.pipedrive_id for each in findings if each.kind is Drift.EXTRA]
    verification.correct_hull_ids(session, connector_key, entity, correct, unknown)
    add_unmapped(session, connector_key, entity, extra)
    unmarked = [each.pipedrive_id for each in findings if each.kind is Drift.UNMARKED]
    shown = {pipedrive_id: orjson.dumps({ID_ATTRIBUTE: pipedrive_id}) for pipedrive_id in unmarked}
    mark_uncertain(session, connector_key, entity, shown)
    _read_again(session, connector_key, entity, [*extra, *unmarked], cause="missing")
    held_values: dict[int, dict[str, object]] = {}
    for each in findings:
        if each.kind not in (Drift.EXTRA, Drift.UNMARKED):
            held = {one.attribute: one.hull for one in each.differences if one.hull is not None}
            held_values[each.pipedrive_id] = held_values.get(each.pipedrive_id, {}) | held
    _send_again(session, connector_key, entity, held_values)


def _read_again(session: Session, connector_key: int, entity: Entity, ids: Iterable[int], *, cause: str) -> None:
    change_writer.write_changes(session, connector_key, Direction.INCOMING, entity, map(str, ids), cause=cause)


def _send_again(
    session: Session, connector_key: int, entity: Entity, held_values: dict[int, dict[str, object]]
) -> None:
    """Send records again. `held_values`: Pipedrive id → Hull's wrong values, so that a null is sent if Pipedrive has no value."""
    mark_uncertain(session, connector_key, entity, {key: orjson.dumps(values) for key, values in held_values.items()})
    _read_again(session, connector_key, entity, held_values, cause="verify")


def enqueue(session: Session, connector_key: int, order: VerifyOrder) -> int:
    """Start a comparison; return the id of its job, or of the same comparison that is due or running."""
    key = f"{connector_key}:{order.sample or 'all'}"
    job_id = jobs.find_open(session, VERIFY, key)
    if job_id is None:
        sealed = order.model_dump_json()
        job_queue.enqueue(session, VERIFY, key, title=order.title, connector_key=connector_key, secret=sealed)
        job_id = jobs.find_open(session, VERIFY, key)
    after_commit(session, lambda: canvases.wake_control("dispatch"))
    return job_id or 0


def step(job: ClaimedJob) -> JobStep:
    """Compare the next piece; then store the result; then repair piece by piece. Raises: Rejected, Retryable, LostLease."""
    began, order, report, key = (
        time.monotonic(),
        order_of(job, VerifyOrder),
        _read(job.checkpoint),
        job.connector_key or 0,
    )
    part = next((each for each in report.entities if each.phase != "done"), None)
    if part is None and not report.is_kept:
        return _keep(job, order, report)
    if part is None:
        return _repair(job, report) if order.repair else DONE
    with transaction() as session:
        wired = wiring.open_connector(session, key, lane=Lane.VERIFY)
        plan = None if part.phase == "start" else compiled_for(session, key, part.entity)
    reader = Reader(wired=wired, entity=part.entity, plan=plan or refresh(wired, part.entity))
    found = Comparison(job.id, reader, part, order.sample).step()
    report.seconds += time.monotonic() - began
    report.tokens += wired.calls.tokens
    report.requests += wired.calls.requests
    with transaction() as session:
        jobs.checkpoint(session, job, sum(each.compared for each in report.entities), report.model_dump_json())
        found.write(session, job.id, part.entity)
    return CONTINUE


def _read(checkpoint: str | None) -> Report:
    return read_stored(checkpoint, Report) if checkpoint else Report()


def _keep(job: ClaimedJob, order: VerifyOrder, report: Report) -> JobStep:
    """Store counts and ids in `verifications`, never values of records."""
    with transaction() as session:
        parts = [with_findings(session, job.id, each) for each in report.entities]
        named = [
            {
                "entity": part.entity.value,
                "kind": each.kind.value,
                "pipedrive_id": each.pipedrive_id,
                "hull_id": each.hull_id,
            }
            for part in parts
            for each in part.findings
        ]
        kept = report.model_copy(update={"is_kept": True, "to_repair": count_records(parts)})
        jobs.checkpoint(session, job, job.progress, kept.model_dump_json())
        session.add(
            verification.Verification(
                connector_key=job.connector_key,
                requested_by=order.requested_by,
                sample=order.sample,
                drift=sum(part.drift for part in parts),
                took_s=round(report.seconds, 3),
                tokens=report.tokens,
                counts={part.entity.value: _counts(part) for part in parts},
                named=named[:NAMED],
            )
        )
    return CONTINUE if order.repair else DONE


def _counts(part: EntityReport) -> dict[str, Any]:
    return {
        "compared": part.compared,
        "drift": part.drift,
        "kinds": dict(Counter(each.kind.value for each in part.findings)),
        "waiting": sum(part.pending.values()),
        "failed": sum(part.failed.values()),
    }


def _repair(job: ClaimedJob, report: Report) -> JobStep:
    """Repair the next piece."""
    with transaction() as session:
        pieces = pieces_of(with_findings(session, job.id, each) for each in report.entities)
        if report.pieces >= len(pieces):
            return DONE
        report.repaired = (report.repaired or Counter()) + repair(
            session, job.connector_key or 0, pieces[report.pieces]
        )
        report.pieces += 1
        jobs.checkpoint(session, job, job.progress, report.model_dump_json())
        after_commit(session, lambda: canvases.wake_control("dispatch"))
    return CONTINUE


def repairable(session: Session, job: Job) -> int | None:
    """Return how many records a repair of a comparison would change.

    None if the comparison has not ended, was repaired, or ended so long ago that its findings are deleted.
    """
    report = progress_of(job)
    if job.state != "done" or not report.is_kept or report.repaired is not None:
        return None
    is_stored = count_records(report_of(session, job).entities) == report.to_repair
    return report.to_repair if is_stored else None


def begin_repair(session: Session, job: Job, *, count: int, requested_by: str) -> bool:
    """Reopen the job of a `repairable` comparison to repair what it found; False if another request did so first."""
    sample = job.dedupe_key.partition(":")[2]
    order = VerifyOrder(
        sample=None if sample == "all" else int(sample), requested_by=requested_by, repair=True
    ).model_dump_json()
    after_commit(session, lambda: canvases.wake_control("dispatch"))
    return job_queue.reopen(
        session, job, f"{job.dedupe_key}:repair:{job.id}", title=f"Repair {count:,} records", secret=order
    )


def report_of(session: Session, job: Job) -> Report:
    """Return the report of a comparison so far; its findings are deleted a day after its end."""
    report = _read(job.checkpoint)
    return report.model_copy(
        update={"entities": tuple(with_findings(session, job.id, each) for each in report.entities)}
    )


def progress_of(job: Job) -> Report:
    """Return the progress of a comparison, without its findings."""
    return _read(job.checkpoint)


def expected_tokens(session: Session, connector_key: int, sample: int | None) -> int:
    """Return the tokens that a comparison costs, by the size of the id map; each recheck of 100 records costs 10 more."""
    definitions = LIST_TOKENS * len(ORDER)
    if sample is not None:
        return definitions + LIST_TOKENS * len(ORDER) * (1 + -(-sample // MAX_IDS))
    sizes = dict.fromkeys(ORDER, 0)
    for count in mapping_counts(session, connector_key):
        sizes[Entity(count.entity)] += count.records
    return definitions + LIST_TOKENS * sum(max(1, -(-size // settings().page_limit)) for size in sizes.values())
