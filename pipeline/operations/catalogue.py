"""All operations, in the order of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
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

SUBJECTS: Final[Mapping[str, tuple[ModuleType, ...]]] = {
    "Connectors": (connectors, overview, budget, credentials),
    "Settings and plans": (settings, settings_preview, fields, first_steps, plans),
    "Fetches, jobs and sends": (runs, jobs, sends, comparisons),
    "Records and events": (records, events, mappings, claims),
    "Failures and replays": (failures, replays),
    "Webhooks, workers and alerts": (webhooks, workers, alerts),
    "People": (operators, people),
}
"""Heading in docs/api.md → the modules that declare its operations."""


def operations_of(modules: tuple[ModuleType, ...]) -> list[Operation[Any, Any]]:
    """Return the operations that modules declare, in the order of declaration."""
    return [each for module in modules for each in vars(module).values() if isinstance(each, Operation)]


def all_operations() -> list[Operation[Any, Any]]:
    """Return every operation."""
    return [each for modules in SUBJECTS.values() for each in operations_of(modules)]
