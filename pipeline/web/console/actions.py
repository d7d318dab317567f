"""`/c/<name>/actions`: fetch, send, verify, pause and resume. Each page shows the cost before the button."""

from __future__ import annotations

from typing import Any, Final

from flask import request
from werkzeug.wrappers import Response

from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Entity, Role
from pipeline.operations import comparisons, connectors, jobs, runs, sends
from pipeline.operations.errors import OperationError, impossible
from pipeline.operations.sends import Choice
from pipeline.sync.runs.runs import RunInProgress
from pipeline.web import auth
from pipeline.web.console import overview
from pipeline.web.console.layout import connector_path, done, page, plural
from pipeline.web.console.pages import Pages, perform, refusal_of

NAMES: Final = {Entity.PERSON: "Fetch All Persons", Entity.ORGANIZATION: "Fetch All Organizations"}
"""The names in the customer's guide."""


def add(pages: Pages) -> None:
    pages.page("/c/<name>/actions", show)
    pages.page("/c/<name>/actions/fetch/<entity>", confirm_fetch, needs=Role.OPERATOR)
    pages.action("/c/<name>/actions/fetch/<entity>", fetch)
    pages.action("/c/<name>/actions/changes", fetch_changes)
    pages.action("/c/<name>/actions/pause", pause)
    pages.action("/c/<name>/actions/resume", resume)
    pages.action("/c/<name>/actions/verify", verify)
    pages.action("/c/<name>/actions/verify/<int:job_id>/repair", repair)
    pages.page("/c/<name>/actions/send", show_send, needs=Role.OPERATOR)
    pages.action("/c/<name>/actions/send/count", count_send)
    pages.action("/c/<name>/actions/send", send)


def show(connector: Connector, mistake: OperationError | None = None, status: int = 200) -> Response:
    compared = perform(comparisons.show_comparison)
    sent = perform(sends.list_sends).sends
    return page(
        "actions.html", connector=connector, status=status, mistake=mistake, sent=sent, compared=compared, names=NAMES
    )


def confirm_fetch(
    connector: Connector, entity: str, mistake: OperationError | None = None, status: int = 200
) -> Response:
    """Show the guide's warning, the cost and the duration of a fetch, and its button."""
    kind = _entity(entity)
    with transaction() as session:
        preview = runs.estimate_fetch(session, connector.key, kind)
    return page(
        "fetch.html",
        connector=connector,
        status=status,
        mistake=mistake,
        preview=preview,
        name=NAMES[kind],
        nouns=kind.plural.capitalize(),
        hull_nouns=kind.hull.capitalize() + "s",
    )


def fetch(connector: Connector, entity: str) -> Response:
    kind = _entity(entity)
    try:
        changed_only = request.form.get("what") == "changed"
        run_id = perform(runs.start_fetch, entity=kind.value, changed_only=changed_only).id
    except OperationError as error:
        if not isinstance(error.__cause__, RunInProgress):
            return confirm_fetch(connector, entity, error, 400)
        notice = f"A full fetch of {kind.plural.capitalize()} is already running."
        return done(connector_path(connector, f"runs/{error.__cause__.run_id}"), notice)
    overview.forget_overview()
    return done(connector_path(connector, f"runs/{run_id}"), f"Fetch of all {kind.plural.capitalize()} started.")


def fetch_changes(connector: Connector) -> Response:
    try:
        started = perform(runs.fetch_changes).runs
    except OperationError as error:
        return show(connector, error, 400)
    overview.forget_overview()
    return done(
        connector_path(connector, "runs?kind=incremental") if started else connector_path(connector),
        "Fetch of changes started." if started else "A fetch of changes is already running.",
    )


def pause(connector: Connector) -> Response:
    perform(connectors.pause_connector, why=request.form.get("why", "").strip()[:500] or None)
    overview.forget_overview()
    return done(_next(connector), f"{connector.name} is paused. Its work waits.")


def resume(connector: Connector) -> Response:
    if refusal := refusal_of(connectors.resume_connector):
        return show(connector, impossible(refusal), 400)
    overview.forget_overview()
    return done(_next(connector), f"{connector.name} is active. Waiting work continues.")


def _next(connector: Connector) -> str:
    """Return the path that the form names, else the connector's overview."""
    wanted = request.form.get("next")
    return auth.safe_path(wanted) if wanted else connector_path(connector)


def verify(connector: Connector) -> Response:
    perform(comparisons.compare, everything=request.form.get("what") == "everything")
    return done(connector_path(connector, "jobs?kind=verify"), "Comparison started. It changes nothing.")


def repair(connector: Connector, job_id: int) -> Response:
    """Repair the number of records that the button shows."""
    perform(jobs.show_job, id=job_id)  # a job of another connector counts as missing, whatever the form contains
    if refusal := refusal_of(comparisons.repair_comparison, id=job_id, count=request.form.get("count", "")):
        return show(connector, impossible(refusal), 400)
    return done(
        connector_path(connector, "jobs?kind=verify"), "Repair started. The differing records are synchronized again."
    )


def show_send(connector: Connector, mistake: OperationError | None = None, status: int = 200) -> Response:
    """Show the forms that choose records by segment, by ids, or by a search among linked records."""
    kind = _entity(request.values.get("entity", Entity.PERSON))
    search_text = request.args.get("q", "").strip()[:300]
    with transaction() as session:
        found = sends.find_known(session, connector.key, kind, search_text) if search_text else []
    return page(
        "send.html",
        connector=connector,
        status=status,
        mistake=mistake,
        entity=kind,
        entities=list(Entity),
        query=search_text,
        found=found,
        segment=request.form.get("segment", "")[:200],
        ids=request.form.get("ids", ""),
    )


def count_send(connector: Connector) -> Response:
    """Show how many records would be sent, and the button that sends them."""
    try:
        choice = _choice()
        size = perform(sends.count_send, **_fields(choice))
    except OperationError as refused:
        return show_send(connector, refused, 400)
    return page(
        "send_count.html",
        connector=connector,
        choice=choice,
        size=size.count,
        noun=plural(size.count, choice.entity.hull.capitalize()),
        most_tokens=size.most_tokens,
    )


def send(connector: Connector) -> Response:
    try:
        choice = _choice()
        ordered = perform(sends.order_send, **_fields(choice))
    except OperationError as refused:
        return show_send(connector, refused, 400)
    notice = f"{plural(ordered.count, choice.entity.hull.capitalize())} will be sent to Pipedrive."
    return done(connector_path(connector, "actions#sent"), notice)


def _choice() -> Choice:
    """Return the selection in the form. Raises OperationError."""
    form = request.form
    segment = form.get("segment", "").strip()
    ids = sends.read_ids(" ".join([form.get("ids", ""), *form.getlist("id")]))
    if bool(segment) == bool(ids):
        raise impossible("Choose either a segment or ids.", "Clear the other field.")
    if len(segment) > sends.LONGEST_ID or not segment.isprintable():
        raise impossible("This is not a valid segment id.", "Copy it from the address of the segment's page in Hull.")
    return Choice(entity=_entity(form.get("entity", "")), ids=ids, segment=segment or None)


def _fields(choice: Choice) -> dict[str, Any]:
    """Return the selection as fields of a request."""
    return {"entity": choice.entity.value, "ids": list(choice.ids), "segment": choice.segment}


def _entity(given: str) -> Entity:
    try:
        return Entity(given)
    except ValueError:
        raise auth.missing("This record type does not exist.", "Use person or organization.") from None
