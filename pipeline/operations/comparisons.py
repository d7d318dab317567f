"""Comparisons of Pipedrive, Hull and the id map, record by record, and their repair."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field
from sqlalchemy.orm import Session

from db import job as jobs
from db.id_mapping import any_read
from db.session import transaction
from db.verification import last_verification
from pipeline.domain.kinds import Entity, Role
from pipeline.jobs.verify import verify
from pipeline.jobs.verify.verify import SAMPLE, VerifyOrder, expected_tokens
from pipeline.operations.call import Call
from pipeline.operations.errors import conflict, not_found
from pipeline.operations.models import ConnectorRequest, Done, RowRequest, Shape
from pipeline.operations.registry import operation
from pipeline.sync.job_queue import VERIFY

PATH: Final = "/connectors/<connector>/verify"


class ComparedShape(Shape):
    """`sample` is null if all records were compared; `named` are records that differed."""

    finished_at: datetime
    requested_by: str
    sample: int | None
    compared: int
    drift: int
    took_s: float
    tokens: int
    counts: dict[str, Any]
    named: list[dict[str, Any]]


class ComparingAnswer(Shape):
    """`tokens` is the cost of a sample, `tokens_of_all` that of all records; null before the first fetch.

    `job_id` is the newest comparison. Its repair would change `repairable` records: null while it runs, after its repair, and
    a day after its end, when its findings are deleted.
    """

    sample: int
    tokens: int
    tokens_of_all: int | None
    under_way: bool
    job_id: int | None
    repairable: int | None
    last: ComparedShape | None


class NewComparison(ConnectorRequest):
    sample: Annotated[int, Field(ge=1, le=100_000, description="Records of each kind, drawn at random.")] = SAMPLE
    everything: Annotated[bool, Field(description="Compare every record instead of a sample.")] = False


class ComparisonRequested(Done):
    """`job_id` is the job that compares: a new one, or the same comparison that is due or running."""

    job_id: int


class RepairRequest(RowRequest):
    """`id` is the job of the comparison."""

    count: Annotated[int, Field(ge=0, description="The number of records that the repair would change.")]


@operation(f"GET {PATH}", role=Role.VIEWER, command="comparisons show CONNECTOR")
def show_comparison(call: Call, _request: ConnectorRequest) -> ComparingAnswer:
    """Show the result of the last comparison, the size of its repair, and the cost of the next one."""
    key = call.connector.key
    with transaction() as session:
        newest = next(iter(jobs.latest_jobs(session, key, [VERIFY], limit=1)), None)
        return ComparingAnswer(
            sample=SAMPLE,
            tokens=expected_tokens(session, key, SAMPLE),
            tokens_of_all=cost_of(session, key, None),
            under_way=newest is not None and newest.state in jobs.OPEN,
            job_id=None if newest is None else newest.id,
            repairable=None if newest is None else verify.repairable(session, newest),
            last=last_compared(session, key),
        )


@operation(
    f"POST {PATH}",
    role=Role.OPERATOR,
    audit_action="verify.start",
    command="comparisons start CONNECTOR",
    example="acme --sample 300",
)
def compare(call: Call, request: NewComparison) -> ComparisonRequested:
    """Compare a sample of the records of both sides, or all records, in a job. A sample takes about a minute."""
    order = VerifyOrder(sample=None if request.everything else request.sample, requested_by=call.caller.name)
    with call.transaction(order.title) as session:
        job_id = verify.enqueue(session, call.connector.key, order)
    return ComparisonRequested(done="asked", job_id=job_id)


@operation(
    f"POST {PATH}/<id>/repair",
    role=Role.OPERATOR,
    audit_action="verify.repair",
    command="comparisons repair CONNECTOR ID",
    example="acme 12 --count 3",
)
def repair_comparison(call: Call, request: RepairRequest) -> Done:
    """Synchronize the differing records again, unless their number is not `count`.

    The comparison must have ended less than a day ago, and is repaired once.
    """
    with call.transaction(f"comparison {request.id}: {request.count} records") as session:
        found = jobs.find_job(session, call.connector.key, request.id)
        if found is None or found[0].kind != VERIFY:
            raise not_found("There is no such comparison of this connector.", "Start a comparison first.")
        count = verify.repairable(session, found[0])
        if count is None:
            next_step = f"Compare again: pipeline comparisons start {call.connector.name}"
            raise conflict("not_repairable", f"Comparison {request.id} cannot be repaired now.", next_step)
        if count != request.count:
            message = f"The repair would change {count} records instead of {request.count}, so nothing was done."
            raise conflict("more_than_expected", message, f"Send count {count} to accept that.")
        if not verify.begin_repair(session, found[0], count=count, requested_by=call.caller.name):
            raise conflict("not_repairable", f"Comparison {request.id} is being repaired already.")
    return Done(done="asked")


def last_compared(session: Session, connector_key: int) -> ComparedShape | None:
    """Return the result of the last comparison, if there was one."""
    row = last_verification(session, connector_key)
    if row is None:
        return None
    return ComparedShape(
        finished_at=row.finished_at,
        requested_by=row.requested_by,
        sample=row.sample,
        compared=sum(part["compared"] for part in row.counts.values()),
        drift=row.drift,
        took_s=row.took_s,
        tokens=row.tokens,
        counts=row.counts,
        named=row.named,
    )


def cost_of(session: Session, connector_key: int, sample: int | None) -> int | None:
    """Return the tokens that a comparison of a sample, or of all records, costs; None if that is not known yet."""
    is_known = sample is not None or any(any_read(session, connector_key, each) for each in Entity)
    return expected_tokens(session, connector_key, sample) if is_known else None
