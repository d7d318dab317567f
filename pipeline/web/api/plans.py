"""Plans: what new settings would do to every known record; apply them or not; and runs that wait for a yes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from flask import Response
from pydantic import Field

from db.connector import Connector
from pipeline.domain.roles import Role
from pipeline.insight import plan as plans
from pipeline.insight.plan_views import PlanView, Side
from pipeline.operations.errors import OperationError, not_found
from pipeline.operations.models import Asked, Done, Listed, OfConnector, OfRow
from pipeline.web.api.plan_shapes import (
    AppliedAnswer,
    CountShape,
    HeldAnswer,
    HeldShape,
    PlanAnswer,
    PlanItemsAnswer,
    PlanItemsAsked,
    PlansAnswer,
    PlanShape,
    ReasonShape,
    SideShape,
)
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who


class NewPlan(Asked):
    """A whole document; what it does not name has its default."""

    document: dict[str, Any]


class Yes(Asked):
    """To how many records, where a plan or a run asks."""

    number: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None


def add(operations: Operations) -> None:
    base = "/connectors/<connector>/plans"
    operations.get(base, list_plans, PlansAnswer)
    operations.post(base, make_plan, PlanAnswer)
    operations.get(f"{base}/<id>", show_plan, PlanAnswer)
    operations.get(f"{base}/<id>/items", list_plan_items, PlanItemsAnswer)
    operations.post(f"{base}/<id>/apply", apply_plan, AppliedAnswer, needs=Role.ADMIN)
    operations.post(f"{base}/<id>/discard", discard_plan, Done)
    operations.post(f"{base}/<id>/again", plan_again, PlanAnswer)
    operations.get("/connectors/<connector>/held-runs", list_held_runs, HeldAnswer)
    operations.post("/connectors/<connector>/runs/<id>/confirm", confirm_run, Done, needs=Role.ADMIN)


def list_plans(path: OfConnector, query: Listed) -> Response:
    """List plans, newest first."""
    found = plans.latest(find(path).key, before_id=query.before, limit=query.limit)
    return answer(PlansAnswer(plans=[PlanShape.model_validate(each) for each in found]))


def make_plan(path: OfConnector, body: NewPlan) -> Response:
    """Plan a document: what it would do to every known record, for no tokens. A large plan is `computing` for a while."""
    connector = find(path)
    plan_id = plans.make(connector.key, body.document, who=who().name)
    return answer(_told(_plan(connector, plan_id)))


def show_plan(path: OfRow) -> Response:
    """Show one plan."""
    return answer(_told(_plan(find(path), path.id)))


def list_plan_items(path: OfRow, query: PlanItemsAsked) -> Response:
    """List what a plan says of single records, with values before and after."""
    plan = _plan(find(path), path.id)
    found = plans.items(
        plan.id,
        query.direction,
        query.entity,
        act=query.act,
        field=query.field,
        after=query.after,
        limit=query.limit,
    )
    return answer(PlanItemsAnswer.model_validate(found))


def apply_plan(path: OfRow, body: Yes) -> Response:
    """Put a plan's settings in force, and do just what it says; what moved since is left out."""
    plan = _plan(connector := find(path), path.id)
    return answer(
        AppliedAnswer.model_validate(plans.apply(connector.key, plan.id, who=who().name, confirmed=body.number))
    )


def discard_plan(path: OfRow) -> Response:
    """Forget a plan that was not applied."""
    plan = _plan(connector := find(path), path.id)
    if not plans.discard(connector.key, plan.id, who=who().name):
        raise OperationError(HTTPStatus.CONFLICT, "wrong_state", f"Plan {plan.id} is over already.")
    return answer(Done(done="discarded"))


def plan_again(path: OfRow) -> Response:
    """Plan the same settings anew."""
    plan = _plan(connector := find(path), path.id)
    made = plans.again(connector.key, plan.id, who=who().name)
    return answer(_told(_plan(connector, made or plan.id)))


def list_held_runs(path: OfConnector) -> Response:
    """List runs that would touch more than a set share of all records, and wait for a yes."""
    found = plans.held(find(path).key)
    return answer(HeldAnswer(runs=[HeldShape.model_validate(each) for each in found]))


def confirm_run(path: OfRow, body: Yes) -> Response:
    """Let a run begin that waits for a yes, to the number of records that it would touch."""
    if not plans.confirm(find(path).key, path.id, who=who().name, number=body.number):
        raise not_found("There is no such run that waits for a yes.")
    return answer(Done(done="confirmed"))


def _plan(connector: Connector, plan_id: int) -> PlanView:
    found = plans.read(connector.key, plan_id)
    if found is None:
        raise not_found("There is no such plan of this connector.")
    return found


def _told(plan: PlanView) -> PlanAnswer:
    whole = PlanShape.model_validate(plan).model_dump()
    return PlanAnswer(**whole, document=plan.document, sides=[_side(each) for each in plan.sides])


def _side(side: Side) -> SideShape:
    return SideShape(
        direction=side.direction,
        entity=side.entity,
        kind=side.kind,
        sentence=side.sentence,
        written=side.written,
        acts=side.acts,
        fields=[CountShape(name=name, label=side.label(name), records=records) for name, records in side.fields],
        problems=[CountShape(name=name, label=side.label(name), records=records) for name, records in side.problems],
        reasons=[ReasonShape.model_validate(each) for each in side.reasons],
        flawed=side.flawed,
    )
