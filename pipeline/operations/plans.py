"""Plans: what new settings would do to every known record. Make, apply and discard plans, and approve runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import plan as rows
from db import run as run_rows
from db.plan import SettingsPlan
from db.session import transaction
from pipeline.domain.kinds import Entity, Role
from pipeline.jobs import runtime
from pipeline.jobs.plans import apply as plan_apply
from pipeline.jobs.plans import compute, create
from pipeline.jobs.plans.apply import PlanRefused
from pipeline.operations.call import Call
from pipeline.operations.errors import conflict, not_found
from pipeline.operations.models import (
    ConnectorRequest,
    DirectionName,
    Done,
    EntityName,
    PageRequest,
    RowRequest,
    Shape,
    Short,
)
from pipeline.operations.plan_answers import (
    Act,
    PlanAnswer,
    PlanItemsAnswer,
    PlanShape,
    describe_item,
    describe_plan,
    job_of,
)
from pipeline.operations.registry import operation
from pipeline.sync.connectors.settings_change import read_unknown_fields
from pipeline.sync.runs import backfill, runs
from pipeline.sync.runs.backfill import AskFirst

PATH = "/connectors/<connector>/plans"


class PlansAnswer(BaseModel):
    plans: list[PlanShape]


class HeldShape(Shape):
    run_id: int
    entity: str
    kind: str
    touched: int
    sentence: str
    started_at: datetime


class HeldAnswer(BaseModel):
    runs: list[HeldShape]


class AppliedAnswer(Shape):
    """`left_out` records changed after the plan was computed; the plan `follow_up` covers them."""

    settings_version: int
    sent: int
    left_out: int
    follow_up: int | None


class ListPlans(ConnectorRequest, PageRequest):
    """Plans of one connector."""


class PlanItemsAsked(RowRequest):
    """Without `act`, all records except unchanged ones."""

    direction: DirectionName
    entity: EntityName
    act: Annotated[Act | None, Field(description="Only records with this outcome.")] = None
    field: Annotated[Short | None, Field(description="Only records with a change of this field.")] = None
    after: Annotated[str, Field(max_length=300, description="Only records after this `next_after`.")] = ""
    limit: Annotated[int, Field(ge=1, le=100, description="Maximum number of records.")] = 50


class NewPlan(ConnectorRequest):
    """A complete document; omitted settings get their defaults."""

    document: dict[str, Any]
    force: Annotated[bool, Field(description="Accept field codes that Pipedrive does not know (yet).")] = False


class Yes(RowRequest):
    """`number` confirms the number of records, if the plan or run needs approval."""

    number: Annotated[int | None, Field(ge=0, le=2**31 - 1, description="The number of records to approve.")] = None


@operation(f"GET {PATH}", role=Role.VIEWER, command="settings plans CONNECTOR")
def list_plans(call: Call, request: ListPlans) -> PlansAnswer:
    """List plans, newest first."""
    with transaction() as session:
        found = rows.latest_plans(session, call.connector.key, before_id=request.before, limit=request.limit)
        return PlansAnswer(plans=[describe_plan(session, each) for each in found])


@operation(
    f"POST {PATH}",
    role=Role.OPERATOR,
    audit_action="settings.plan",
    command="settings plan CONNECTOR DOCUMENT",
    example="acme settings.json --wait",
)
def make_plan(call: Call, request: NewPlan) -> PlanAnswer:
    """Plan settings: preview what they would do to every known record. Costs no tokens; a large plan is `computing` for a while."""
    return _make(call, request.document, force=request.force)


@operation(f"GET {PATH}/<id>", role=Role.VIEWER, command="settings show-plan CONNECTOR ID", example="acme 12")
def show_plan(call: Call, request: RowRequest) -> PlanAnswer:
    """Show one plan."""
    return _answer(call, request.id)


@operation(
    f"GET {PATH}/<id>/items",
    role=Role.VIEWER,
    command="settings plan-items CONNECTOR ID DIRECTION ENTITY",
    example="acme 12 incoming person --act update",
)
def list_plan_items(call: Call, request: PlanItemsAsked) -> PlanItemsAnswer:
    """List the records of a plan, with values before and after."""
    with transaction() as session:
        found = rows.page_of_items(
            session,
            _get(session, call, request.id).id,
            request.direction,
            request.entity,
            act=request.act,
            field=request.field,
            after=request.after,
            limit=request.limit + 1,
        )
    shown = found[: request.limit]
    return PlanItemsAnswer(
        items=[describe_item(each) for each in shown],
        next_after=shown[-1].record_id if len(found) > len(shown) else None,
    )


@operation(
    f"POST {PATH}/<id>/apply",
    role=Role.ADMIN,
    audit_action="settings.apply",
    command="settings apply CONNECTOR ID",
    example="acme 12",
)
def apply_plan(call: Call, request: Yes) -> AppliedAnswer:
    """Put a plan's settings in force and make exactly the planned changes; records that changed since are left out.

    The plan is refused if the settings, Pipedrive's fields or more than 5 % of the records changed since. If it touches
    more than `change_stop_share` of the known records, send their number.
    """
    author = call.caller.name
    with transaction() as session:
        _get(session, call, request.id)
    try:
        with transaction() as session:
            applied = plan_apply.apply(session, request.id, author=author, confirmed=request.number)
            detail = {"settings_version": applied.settings_version, "left_out": applied.left_out}
            call.note(session, f"plan {request.id}", detail=detail)
    except PlanRefused as refused:
        with transaction() as session:
            plan_apply.refuse(session, request.id, refused, author=author)
        raise
    if applied.follow_up is not None:
        compute.compute_now(applied.follow_up)
    return AppliedAnswer.model_validate(applied)


@operation(
    f"POST {PATH}/<id>/discard",
    role=Role.OPERATOR,
    audit_action="settings.discard",
    command="settings discard CONNECTOR ID",
    example="acme 12",
)
def discard_plan(call: Call, request: RowRequest) -> Done:
    """Discard a plan that was not applied."""
    with call.transaction(f"plan {request.id}") as session:
        _get(session, call, request.id)
        if not create.discard(session, request.id, author=call.caller.name):
            raise conflict("wrong_state", f"Plan {request.id} has already ended.")
        if (job := job_of(session, call.connector.key, request.id)) is not None:
            runtime.abort(session, job, by=call.caller.name)
    return Done(done="discarded")


@operation(
    f"POST {PATH}/<id>/again",
    role=Role.OPERATOR,
    audit_action="settings.plan",
    command="settings plan-again CONNECTOR ID",
    example="acme 12 --wait",
)
def plan_again(call: Call, request: RowRequest) -> PlanAnswer:
    """Plan the same settings again."""
    with transaction() as session:
        document = _get(session, call, request.id).document
    return _make(call, document, force=True)


@operation("GET /connectors/<connector>/held-runs", role=Role.VIEWER, command="runs held CONNECTOR")
def list_held_runs(call: Call, _request: ConnectorRequest) -> HeldAnswer:
    """List runs that need approval because they would change more than the allowed share of all records."""
    key = call.connector.key
    with transaction() as session:
        return HeldAnswer(
            runs=[
                HeldShape(
                    run_id=run.id,
                    entity=run.entity,
                    kind=run.kind,
                    touched=(touched := backfill.reach(session, key, Entity(run.entity)).touched),
                    sentence=backfill.approval_sentence(run, touched),
                    started_at=run.started_at,
                )
                for run in run_rows.runs_in_state(session, key, "held")
            ]
        )


@operation(
    "POST /connectors/<connector>/runs/<id>/confirm",
    role=Role.ADMIN,
    audit_action="runs.confirm",
    command="runs confirm CONNECTOR ID",
    example="acme 12",
)
def confirm_run(call: Call, request: Yes) -> Done:
    """Approve a run that needs approval; send the number of records that it would change."""
    key = call.connector.key
    with call.transaction(f"run {request.id}") as session:
        held = {run.id: run for run in run_rows.runs_in_state(session, key, "held")}
        if request.id not in held:
            raise not_found("No such run needs approval.", f"See: pipeline runs held {call.connector.name}")
        reach = backfill.reach(session, key, Entity(held[request.id].entity))
        if request.number != reach.touched:
            raise AskFirst([reach])
        runs.confirm(session, request.id)
    return Done(done="confirmed")


def _make(call: Call, document: dict[str, Any], *, force: bool) -> PlanAnswer:
    """Store a plan. A small one is ready when this returns; a worker computes a larger one."""
    read_unknown_fields(call.connector.key, document)
    with transaction() as session:
        plan = create.make_plan(session, call.connector.key, document, author=call.caller.name, force=force)
        call.note(session, f"plan {plan.id}")
    compute.compute_now(plan.id)
    return _answer(call, plan.id)


def _get(session: Session, call: Call, plan_id: int) -> SettingsPlan:
    found = rows.get_plan(session, plan_id)
    if found is None or found.connector_key != call.connector.key:
        raise not_found(
            "There is no such plan of this connector.", f"See: pipeline settings plans {call.connector.name}"
        )
    return found


def _answer(call: Call, plan_id: int) -> PlanAnswer:
    with transaction() as session:
        return describe_plan(session, _get(session, call, plan_id))
