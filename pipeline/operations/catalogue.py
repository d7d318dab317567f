"""All operations, in the order of the documentation."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from pipeline.operations import (
    alerts,
    budget,
    claims,
    comparisons,
    connectors,
    credentials,
    events,
    failures,
    fields,
    first_steps,
    jobs,
    mappings,
    operators,
    overview,
    people,
    plans,
    records,
    replays,
    runs,
    sends,
    settings,
    settings_preview,
    webhooks,
    workers,
)
from pipeline.operations.registry import Operation

SUBJECTS: Final[tuple[ModuleType, ...]] = (
    *(connectors, overview, budget, credentials, settings, settings_preview, fields, first_steps, plans),
    *(runs, jobs, sends, comparisons, records, events, mappings, claims, failures, replays, webhooks, workers, alerts),
    operators,
    people,
)


def all_operations() -> list[Operation[Any, Any]]:
    """Return every declared operation, by subject and in the order of declaration."""
    return [each for subject in SUBJECTS for each in vars(subject).values() if isinstance(each, Operation)]
