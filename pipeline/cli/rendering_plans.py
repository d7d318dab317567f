"""Text output of the commands about plans, and the prompt for the number of records to confirm."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from pipeline.cli.calling import Caller, LocalCaller
from pipeline.cli.presentation import Presentation
from pipeline.cli.showing import duration, own_name, say, says_yes, table, typed_number
from pipeline.insight.plan_views import WORDS
from pipeline.jobs.plans import compute
from pipeline.operations import plans
from pipeline.operations.models import ConnectorRequest, RowRequest
from pipeline.operations.plans import (
    AppliedAnswer,
    HeldAnswer,
    PlanAnswer,
    PlanItemsAnswer,
    PlanItemShape,
    PlansAnswer,
)
from pipeline.operations.registry import Operation

CUT: Final = 60
"""Characters of one value in the table of records."""
PAUSE_S: Final = 1.0
"""Pause between two polls of a plan that workers compute."""
YES: Final = "Do not prompt, whatever the number of records."


def _list(request: ConnectorRequest, answer: PlansAnswer) -> None:
    columns = ("plan", "state", "created (UTC)", "by", "changes", "would write", "tokens")
    lines = [
        (each.id, each.state, each.created_at, each.author, ", ".join(each.changed), each.written, each.tokens)
        for each in answer.plans
    ]
    table("", columns, lines, empty=f"No plan yet. Make one: {own_name()} settings plan {request.connector} FILE")


def _plan(request: ConnectorRequest, answer: PlanAnswer) -> None:
    say(f"Plan {answer.id}, on version {answer.base_version}: {answer.state}. {answer.sentence}")
    if answer.detail:
        say(f"  {answer.detail}")
    for side in answer.sides:
        for reason in side.reasons:
            say(f"  {reason.records:,} {side.kind} {WORDS[reason.act]}: {reason.code}. {reason.meaning}")
    if answer.state == "ready":
        if answer.looked_up:
            say(f"  {answer.looked_up:,} records need a look-up in Pipedrive: they are matched or created.")
        say(f"  {answer.tokens:,} tokens, about {duration(answer.takes_s)}.")
        say(f"Records: {own_name()} settings plan-items {request.connector} {answer.id} incoming|outgoing ENTITY")
        say(f"Next: {own_name()} settings apply {request.connector} {answer.id}")
    elif answer.state in ("computing", "paused"):
        say(f"Next: {own_name()} settings show-plan {request.connector} {answer.id}")


def _items(_request: ConnectorRequest, answer: PlanItemsAnswer) -> None:
    columns = ("record", "what", "field", "before", "after")
    table("", columns, [line for item in answer.items for line in _lines(item)], empty="Nothing to show.")
    if answer.next_after:
        say(f"Next page: --after {answer.next_after}")


def _lines(item: PlanItemShape) -> list[tuple[str, str, str, str, str]]:
    if not item.fields:
        return [(item.record, WORDS[item.act], "", item.reason or "", item.detail or "")]
    return [
        (
            item.record,
            WORDS[item.act],
            each["field"],
            _short(each["before"]),
            each.get("problem") or _short(each["after"]),
        )
        for each in item.fields
    ]


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= CUT else f"{text[:CUT]}…"


def _applied(_request: ConnectorRequest, answer: AppliedAnswer) -> None:
    say(f"Version {answer.settings_version} is in force; {answer.sent:,} records are being sent to Pipedrive.")
    if answer.follow_up is not None:
        say(f"{answer.left_out:,} records had changed and were left out; plan {answer.follow_up} covers them.")


def _held(request: ConnectorRequest, answer: HeldAnswer) -> None:
    for each in answer.runs:
        say(f"{each.sentence} Next: {own_name()} runs confirm {request.connector} {each.run_id}")
    if not answer.runs:
        say("No run needs approval.")


def _number_of_plan(caller: Caller, given: dict[str, Any]) -> None:
    """Prompt for the number of records that a plan touches, if it needs approval."""
    if "number" in given:
        return
    plan = caller.call(plans.show_plan, RowRequest(connector=given["connector"], id=given["id"]))
    if plan.state == "ready" and plan.asks:
        sentence = f"Plan {plan.id} touches {plan.touched:,} of the known records"
        given["number"] = plan.touched if says_yes() else typed_number(sentence, plan.touched)


def _number_of_run(caller: Caller, given: dict[str, Any]) -> None:
    """Prompt for the number of records that a run touches."""
    if "number" in given:
        return
    held = caller.call(plans.list_held_runs, ConnectorRequest(connector=given["connector"]))
    run = next((each for each in held.runs if each.run_id == given["id"]), None)
    if run is not None:
        given["number"] = run.touched if says_yes() else typed_number(run.sentence.rstrip("."), run.touched)


def _computed(caller: Caller, request: ConnectorRequest, answer: PlanAnswer, *, wait: bool) -> PlanAnswer:
    """With `wait`, return the plan once it is computed, by this process or by the workers of a running installation."""
    if not wait:
        return answer
    asked = RowRequest(connector=request.connector, id=answer.id)
    if isinstance(caller, LocalCaller):
        compute.compute_now(answer.id, float("inf"))
        return caller.call(plans.show_plan, asked)
    while answer.state == "computing":
        time.sleep(PAUSE_S)
        answer = caller.call(plans.show_plan, asked)
    return answer


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    plans.apply_plan: Presentation(show=_applied, ask=_number_of_plan, yes=YES),
    plans.confirm_run: Presentation(
        show=lambda request, _answer: say(f"Run {request.id} was approved and starts."), ask=_number_of_run, yes=YES
    ),
    plans.discard_plan: Presentation(show=lambda request, _answer: say(f"Plan {request.id} is discarded.")),
    plans.list_held_runs: Presentation(show=_held),
    plans.list_plan_items: Presentation(show=_items),
    plans.list_plans: Presentation(show=_list),
    plans.make_plan: Presentation(show=_plan, follow=_computed),
    plans.plan_again: Presentation(show=_plan, follow=_computed),
    plans.show_plan: Presentation(show=_plan),
}
