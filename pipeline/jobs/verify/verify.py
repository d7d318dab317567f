"""`pipeline verify`: compares Pipedrive, Hull and the id map, and names what has drifted apart. Nothing is changed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy.orm import Session

from db.id_mapping import mapping_counts
from db.session import transaction
from pipeline import wiring
from pipeline.domain.budget import Lane
from pipeline.domain.kinds import Entity
from pipeline.jobs.verify.comparison import Comparison, EntityReport, OnProgress
from pipeline.jobs.verify.reading import Reader
from pipeline.settings import settings
from pipeline.sync.definitions import refresh

ORDER = (Entity.ORGANIZATION, Entity.PERSON)
LIST_TOKENS = 10
IDS_TO_A_REQUEST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole comparison: how long it took, what it cost."""

    entities: tuple[EntityReport, ...]
    seconds: float
    tokens: int
    requests: int

    @property
    def drift(self) -> int:
        return sum(each.drift for each in self.entities)


def expected_tokens(session: Session, connector_key: int, sample: int | None) -> int:
    """Tokens the comparison will cost, by the size of the id map; a second look costs 10 for 100 records beyond that."""
    definitions = LIST_TOKENS * len(ORDER)
    if sample is not None:
        return definitions + LIST_TOKENS * len(ORDER) * (1 + -(-sample // IDS_TO_A_REQUEST))
    sizes = dict.fromkeys(ORDER, 0)
    for count in mapping_counts(session, connector_key):
        sizes[Entity(count.entity)] += count.records
    return definitions + LIST_TOKENS * sum(max(1, -(-size // settings().page_limit)) for size in sizes.values())


def verify(connector_key: int, *, sample: int | None = None, on_progress: OnProgress = lambda _: None) -> Report:
    """Compare everything, or `sample` records of each entity drawn from all three sides.

    Raises: ConfigurationError; Retryable, `daily_budget_spent` with the time to wait among them; Rejected.
    """
    started = time.monotonic()
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key, lane=Lane.VERIFY)
    reports = []
    for entity in ORDER:
        comparison = Comparison(Reader(wired=wired, entity=entity, plan=refresh(wired, entity)), on_progress)
        reports.append(comparison.of_all() if sample is None else comparison.of_sample(sample))
    seconds = time.monotonic() - started
    return Report(entities=tuple(reports), seconds=seconds, tokens=wired.calls.tokens, requests=wired.calls.requests)
