"""The report of a comparison: its checkpoint, and what its steps add as items of the job."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Final, Literal

from pydantic import BaseModel, Field, TypeAdapter
from sqlalchemy.orm import Session

from db import job_item as items
from pipeline.domain.drift import DriftFinding
from pipeline.domain.json_text import read_lenient, write_lenient
from pipeline.domain.kinds import Entity
from pipeline.jobs.verify.reading import Window

FINDINGS: Final = TypeAdapter(list[DriftFinding])


class EntityReport(BaseModel):
    """The progress and the result of the comparison of one entity.

    pipedrive, hull     records that Pipedrive listed (None in a sample), and records of Hull with a `pipedrive/id` (None
                        if Hull refused to count them: records that only Hull has were not searched then)
    id_map              state → records; `without_hull_id` of them must be requested
    compared            compared records
    buckets, differing  pages, and those that differ
    suspects            records that seem to differ
    findings            items of the job: empty until `with_findings` adds them
    unconfirmed         ids that seem to differ and were not read again: items of the job too
    pending, failed     what records wait for, and reason codes of known failures → number of records
    outdated            records that are correct in Hull, although different values were stored as delivered
    cursor, above, empty  of the walk: its next page, the highest id so far, and pages without a record in a row
    windows             ids in Hull that are still to be counted
    rechecked           suspects that were read again
    """

    entity: Entity
    phase: Literal["start", "walk", "hull_only", "recheck", "done"] = "start"
    pipedrive: int | None = None
    hull: int | None = None
    id_map: dict[str, int] = {}
    without_hull_id: int = 0
    compared: int = 0
    buckets: int = 0
    differing: int = 0
    suspects: int = 0
    findings: list[DriftFinding] = Field(default=[], exclude=True)
    unconfirmed: list[int] = Field(default=[], exclude=True)
    pending: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    outdated: int = 0
    cursor: str | None = None
    above: int = 0
    empty: int = 0
    windows: list[Window] = []
    rechecked: int = 0

    @property
    def drift(self) -> int:
        return len(self.findings) + len(self.unconfirmed)

    @property
    def expected(self) -> int:
        """Return the number of records in the id map: about as many are compared."""
        return sum(self.id_map.values())


class StepItems(BaseModel):
    """What one step adds to the items of its job."""

    seen: list[int] = []
    suspects: list[int] = []
    to_recheck: list[int] = []
    unconfirmed: list[int] = []
    findings: list[DriftFinding] = []

    def write(self, session: Session, job_id: int, entity: Entity) -> None:
        """Add the items. The job must be locked."""
        for name in ("seen", "suspects", "to_recheck", "unconfirmed"):
            if ids := getattr(self, name):
                items.add_item(session, job_id, f"{entity}.{name}", array("q", ids).tobytes())
        if self.findings:
            dumped = write_lenient(FINDINGS.dump_python(self.findings, mode="json"))
            items.add_item(session, job_id, f"{entity}.findings", dumped)


def ids_found(session: Session, job_id: int, entity: Entity, name: str) -> array[int]:
    """Return the ids that the steps of a job added under this name, in their order."""
    found = array("q")
    for piece in items.items_of(session, job_id, f"{entity}.{name}"):
        found.frombytes(piece)
    return found


def with_findings(session: Session, job_id: int, report: EntityReport) -> EntityReport:
    """Return the report with its findings and unconfirmed ids."""
    pieces = items.items_of(session, job_id, f"{report.entity}.findings")
    findings = [each for piece in pieces for each in FINDINGS.validate_python(read_lenient(piece))]
    unconfirmed = list(ids_found(session, job_id, report.entity, "unconfirmed"))
    return report.model_copy(update={"findings": findings, "unconfirmed": unconfirmed})
