"""Records: search, one record with both sides and its events, and the explanation of each field."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import quote

from flask import redirect, request
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from db.connector import Connector
from db.record_events import RecordIds
from db.session import transaction
from pipeline.domain.deletions import DELETED_STATES
from pipeline.domain.kinds import Entity
from pipeline.domain.times import read_moment
from pipeline.operations import claims
from pipeline.operations.errors import OperationError
from pipeline.operations.explanations import explain_field
from pipeline.operations.mapped_fields import find_field, mapped_fields
from pipeline.operations.record_sides import find_record, read_sides
from pipeline.operations.records import read_history, read_record, search_records
from pipeline.operations.search import LONGEST, SEARCHED
from pipeline.sync.compiled import compiled_for
from pipeline.web import auth
from pipeline.web.console.layout import before_id, connector_path, done, page
from pipeline.web.console.pages import Pages, perform

ENTITY = "<any(person,organization):entity>"


def add(pages: Pages) -> None:
    pages.page("/c/<name>/records", find)
    for rule, last in (("", show), ("/explain", explain)):
        pages.page(f"/c/<name>/records/{ENTITY}/<int:pipedrive_id>{rule}", last)
    pages.action(f"/c/<name>/records/{ENTITY}/<int:pipedrive_id>/release-claims", release_claims)
    pages.page(f"/c/<name>/records/{ENTITY}/hull/<hull_id>", show_of_hull)
    pages.page(f"/c/<name>/records/{ENTITY}/hull/<hull_id>/explain", explain_of_hull)


def find(connector: Connector) -> Response:
    """Search records; redirect to the record if only one is found."""
    asked = request.args.get("q", "").strip()
    found = perform(search_records, q=asked[:LONGEST]).records if asked and "\0" not in asked else []
    if len(found) == 1:
        only = found[0]
        return redirect(path_of(connector, only.entity, only.pipedrive_id, only.hull_id), HTTPStatus.SEE_OTHER)
    return page("records.html", connector=connector, tab="records", found=found, search_text=asked, searched=SEARCHED)


def show(connector: Connector, entity: str, pipedrive_id: int) -> Response:
    with transaction() as session:
        return _show(session, connector, _find_record(session, connector, entity, pipedrive_id=pipedrive_id))


def release_claims(connector: Connector, entity: str, pipedrive_id: int) -> Response:
    """Release the identifiers of a deleted record."""
    where, why = path_of(connector, entity, pipedrive_id, None), request.form.get("why", "").strip() or None
    try:
        freed = perform(claims.release_claims, entity=entity, pipedrive_id=pipedrive_id, why=why).released
    except OperationError as error:
        raise auth.refusal("release", error.message, error.next_step, error.status) from None
    names = ", ".join(each.claim.replace("_", " ") for each in freed)
    return done(where, f"Released: {names}." if freed else "The record had no identifiers to release.")


def show_of_hull(connector: Connector, entity: str, hull_id: str) -> Response:
    """Show a User or Account that was never matched; redirect to the Pipedrive id of one that was."""
    with transaction() as session:
        ids = _find_record(session, connector, entity, hull_id=hull_id)
        if ids.pipedrive_id is not None:
            return redirect(path_of(connector, entity, ids.pipedrive_id, None), HTTPStatus.SEE_OTHER)
        return _show(session, connector, ids)


def explain(connector: Connector, entity: str, pipedrive_id: int) -> Response:
    with transaction() as session:
        return _explain(session, connector, _find_record(session, connector, entity, pipedrive_id=pipedrive_id))


def explain_of_hull(connector: Connector, entity: str, hull_id: str) -> Response:
    with transaction() as session:
        return _explain(session, connector, _find_record(session, connector, entity, hull_id=hull_id))


def path_of(connector: Connector, entity: str, pipedrive_id: int | None, hull_id: str | None) -> str:
    """Return the address of a record."""
    last = pipedrive_id if pipedrive_id is not None else f"hull/{quote(hull_id or '', safe='')}"
    return connector_path(connector, f"records/{entity}/{last}")


def _find_record(
    session: Session, connector: Connector, entity: str, *, pipedrive_id: int | None = None, hull_id: str | None = None
) -> RecordIds:
    kind = Entity(entity)
    found = find_record(session, connector.key, kind, pipedrive_id=pipedrive_id, hull_id=hull_id)
    if found is None:
        what = f"{kind.value.capitalize()} {pipedrive_id}" if hull_id is None else f"{kind.hull.capitalize()} {hull_id}"
        raise auth.missing(
            f"{what} is not known here.",
            "If Pipedrive shows the record, the next fetch adds it, or search for it above.",
        )
    return found


def _show(session: Session, connector: Connector, ids: RecordIds) -> Response:
    record = read_record(session, ids)
    before = before_id()
    history = record if before is None else read_history(session, ids, before_id=before)
    return page(
        "record.html",
        connector=connector,
        tab="records",
        record=record,
        ids=ids,
        entity=Entity(ids.entity),
        path=path_of(connector, ids.entity, ids.pipedrive_id, ids.hull_id),
        events=history.events,
        more=history.more,
        is_first="before" not in request.args,
        holds=record.state in DELETED_STATES and any(each.holds for each in record.claims),
    )


def _explain(session: Session, connector: Connector, ids: RecordIds) -> Response:
    """Show the explanation of one field, now or at a moment in the past."""
    fields = mapped_fields(compiled_for(session, connector.key, Entity(ids.entity)))
    requested_at, wanted = request.args.get("at", "").strip(), request.args.get("field", "").strip()[:300]
    mistake, at = "", None
    try:
        at = read_moment(requested_at, datetime.now(UTC)) if requested_at else None
    except ValueError as wrong:
        mistake = f"{str(wrong).capitalize()}."
    field = find_field(fields, wanted) if wanted else fields[0]
    explanation = explain_field(session, ids, field, read_sides(session, ids), at)
    return page(
        "explain.html",
        connector=connector,
        tab="records",
        status=HTTPStatus.BAD_REQUEST if mistake else HTTPStatus.OK,
        explanation=explanation,
        ids=ids,
        entity=Entity(ids.entity),
        fields=fields,
        requested_at=requested_at,
        mistake=mistake,
        path=path_of(connector, ids.entity, ids.pipedrive_id, ids.hull_id),
    )
