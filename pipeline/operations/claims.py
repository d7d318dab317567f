"""Claims: e-mails, domains and external ids, each held by one record."""

from __future__ import annotations

from pydantic import BaseModel

from db import record_events
from db.session import after_commit
from pipeline.domain.kinds import Entity, Role
from pipeline.operations.call import Call
from pipeline.operations.errors import conflict, not_found
from pipeline.operations.models import ConnectorRequest, EntityName, RowId, Shape, Why
from pipeline.operations.registry import operation
from pipeline.sync.incoming import deletions
from pipeline.tasks.canvases import wake_control


class ReleaseClaims(ConnectorRequest):
    """A deleted record, by its Pipedrive id."""

    entity: EntityName
    pipedrive_id: RowId
    why: Why | None = None


class ReleasedShape(Shape):
    """`claim` is `email`, `domain` or `external_id`; `wanted_by` the Pipedrive id of the record that waits for it."""

    claim: str
    holder: int
    wanted_by: int | None


class ReleasedAnswer(BaseModel):
    released: list[ReleasedShape]


@operation(
    "POST /connectors/<connector>/records/<entity>/<pipedrive_id>/release-claims",
    role=Role.OPERATOR,
    audit_action="claims.release",
    query=("why",),
    command="mappings release CONNECTOR ENTITY PIPEDRIVE_ID",
    example="acme organization 414",
)
def release_claims(call: Call, request: ReleaseClaims) -> ReleasedAnswer:
    """Release the e-mail, domain and external id that a deleted record still holds, before Pipedrive has purged it.

    The record that waits for a released value takes it over, with the User or Account in Hull. This cannot be undone,
    even if the deleted record is restored.
    """
    named = f"{request.entity} {request.pipedrive_id}"
    with call.transaction(named, why=request.why) as session:
        entity = Entity(request.entity)
        if record_events.find_record_mapping(session, call.connector.key, entity, request.pipedrive_id, None) is None:
            raise not_found(f"This connector knows no {named}.", "Search for the record by its e-mail or domain.")
        released = deletions.release(session, call.connector.key, entity, request.pipedrive_id)
        if released is None:
            raise conflict(
                "not_deleted",
                f"{named} is not deleted, so it keeps its identifiers.",
                "Delete or merge it in Pipedrive.",
            )
        after_commit(session, lambda: wake_control("dispatch"))
    return ReleasedAnswer(released=[ReleasedShape.model_validate(each) for each in released])
