"""The id map: how many records are joined, and the shells that wait for their Organization."""

from __future__ import annotations

from datetime import datetime

from flask import Response
from pydantic import BaseModel

from db.id_mapping import mapping_counts
from db.session import transaction
from db.shell import shell_ages
from pipeline.operations.models import OfConnector, Shape
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find


class MappingCountShape(Shape):
    entity: str
    state: str
    records: int
    with_hull_id: int
    without_hull_id: int


class MappingsAnswer(BaseModel):
    counts: list[MappingCountShape]


class ShellsAnswer(BaseModel):
    """Organizations of which only the id is known; `late` wait longer than they should."""

    shells: int
    oldest: datetime | None
    late: int


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/mappings", count_mappings, MappingsAnswer)
    operations.get("/connectors/<connector>/shells", show_shells, ShellsAnswer)


def count_mappings(path: OfConnector) -> Response:
    """Count the id mappings by entity and state."""
    connector = find(path)
    with transaction() as session:
        found = mapping_counts(session, connector.key)
    return answer(MappingsAnswer(counts=[MappingCountShape.model_validate(each) for each in found]))


def show_shells(path: OfConnector) -> Response:
    """Show how many shells there are, and how old."""
    connector = find(path)
    with transaction() as session:
        found = shell_ages(session, connector.key)
    if not found:
        return answer(ShellsAnswer(shells=0, oldest=None, late=0))
    return answer(ShellsAnswer(shells=found[0].shells, oldest=found[0].oldest, late=found[0].late))
