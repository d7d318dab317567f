"""The id map: pairs of User and Person, and of Account and Organization; and the shells that are not read yet."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field

from db import id_mapping
from db.id_mapping import IdMapping, mapping_counts
from db.session import transaction
from db.shell import shell_ages
from pipeline.domain.kinds import Role
from pipeline.operations.call import Call
from pipeline.operations.errors import not_found
from pipeline.operations.models import ConnectorRequest, Shape, Value
from pipeline.operations.registry import operation

PATH = "/connectors/<connector>/mappings"


class MappingCountShape(Shape):
    entity: str
    state: str
    records: int
    with_hull_id: int
    without_hull_id: int


class MappingsAnswer(BaseModel):
    counts: list[MappingCountShape]


class MappingShape(Shape):
    """One id mapping; `delivered`: attribute → value last delivered to Hull."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    state: str
    version: int
    matched_by: str | None
    merged_into: int | None
    first_seen_at: datetime
    updated_at: datetime
    resolve_at: datetime | None
    resolve_attempts: int
    delivered: dict[str, Value]


class MappingsOfRecordAnswer(BaseModel):
    mappings: list[MappingShape]


class ShellsAnswer(BaseModel):
    """Organizations with only an id; `late` ones wait too long."""

    shells: int
    oldest: datetime | None
    late: int


class MappingsOfRecord(ConnectorRequest):
    record: Annotated[str, Field(min_length=1, max_length=200, description="A Pipedrive id, or a Hull id.")]


@operation(f"GET {PATH}", role=Role.VIEWER, command="mappings count CONNECTOR")
def count_mappings(call: Call, _request: ConnectorRequest) -> MappingsAnswer:
    """Count the id mappings by entity and state."""
    with transaction() as session:
        found = mapping_counts(session, call.connector.key)
    return MappingsAnswer(counts=[MappingCountShape.model_validate(each) for each in found])


@operation(f"GET {PATH}/<record>", role=Role.VIEWER, command="mappings show CONNECTOR RECORD", example="acme 4711")
def show_mappings(call: Call, request: MappingsOfRecord) -> MappingsOfRecordAnswer:
    """Show the id mappings of a Pipedrive id or a Hull id, with the values delivered to Hull."""
    with transaction() as session:
        found = id_mapping.find_mapping(session, call.connector.key, request.record)
        shown = [MappingShape(**_facts(each)) for each in found]
    if not shown:
        raise not_found(
            f"There is no id mapping of {request.record}.",
            f"If Pipedrive shows the record, the next fetch adds it: pipeline fetch all {call.connector.name} --wait",
        )
    return MappingsOfRecordAnswer(mappings=shown)


@operation("GET /connectors/<connector>/shells", role=Role.VIEWER, command="mappings shells CONNECTOR")
def show_shells(call: Call, _request: ConnectorRequest) -> ShellsAnswer:
    """Show the number of shells and the age of the oldest."""
    with transaction() as session:
        found = shell_ages(session, call.connector.key)
    if not found:
        return ShellsAnswer(shells=0, oldest=None, late=0)
    return ShellsAnswer(shells=found[0].shells, oldest=found[0].oldest, late=found[0].late)


def _facts(row: IdMapping) -> dict[str, Any]:
    columns = {name: getattr(row, name) for name in MappingShape.model_fields if name != "delivered"}
    return columns | {"delivered": orjson.loads(row.delivered) if row.delivered else {}}
