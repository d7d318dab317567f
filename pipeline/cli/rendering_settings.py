"""Presentations of the commands about settings, fields and plans; prompt for the number of records to confirm."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from pipeline.cli.calling import Caller, LocalCaller
from pipeline.cli.output import duration, echo, is_confirmed, own_name, table, typed_number
from pipeline.cli.presentation import Presentation, Show, lines, print_rows, rows
from pipeline.domain.kinds import Entity
from pipeline.jobs.plans import compute
from pipeline.operations import fields, plans, settings, settings_preview
from pipeline.operations.fields import SegmentsAnswer, SuggestionsAnswer
from pipeline.operations.models import ConnectorRequest, RowRequest
from pipeline.operations.plan_answers import WORDS, PlanAnswer, PlanItemsAnswer, PlanItemShape
from pipeline.operations.plans import AppliedAnswer, HeldAnswer, PlansAnswer
from pipeline.operations.registry import Operation
from pipeline.operations.settings import (
    DifferenceAnswer,
    FollowingRunShape,
    RebasedAnswer,
    RollBack,
    SavedAnswer,
    SettingsShape,
    ShowSettings,
)
from pipeline.operations.settings_differences import pretty
from pipeline.operations.settings_editing import ReviewAnswer
from pipeline.operations.settings_preview import MappingTriedAnswer, ScheduleTriedAnswer

BASE: Final = frozenset({"base_version"})
CUT: Final = 60
"""Maximum length of a value in the table of records."""
PAUSE_S: Final = 1.0
"""Pause between two polls of a plan that workers compute."""
YES: Final = "Do not prompt, whatever the number of records."


def add_defaults(_caller: Caller, given: dict[str, Any]) -> None:
    given["defaults"] = True


def add_base_version(caller: Caller, given: dict[str, Any]) -> None:
    """Set `base_version` to the version in force, if it was not given."""
    if "base_version" not in given:
        now = caller.call(settings.show_settings, ShowSettings(connector=given["connector"]))
        given["base_version"] = now.version


def show_document(_request: Any, answer: SettingsShape | RebasedAnswer) -> None:
    echo(pretty(answer.document))


def show_difference(_request: ConnectorRequest, answer: DifferenceAnswer) -> None:
    words = [each.sentence for each in answer.changes]
    echo("\n".join([*words, "", answer.diff]) if answer.diff else "Nothing differs.")


def show_review(request: ConnectorRequest, answer: ReviewAnswer) -> None:
    words = [each.sentence for each in answer.changes]
    echo("\n".join([*words, "", answer.diff]) if answer.diff else f"Nothing differs from version {answer.base}.")
    for consequence in answer.consequences:
        echo(consequence.sentence)
    for each in answer.unknown:
        echo(f"{each.words}. It was already mapped; the other fields work.")
    if answer.changes:
        echo(f"Nothing is saved. Next: pipeline settings set {request.connector} FILE")


def show_saved(request: ConnectorRequest, answer: SavedAnswer) -> None:
    if not answer.changed:
        echo(f"Nothing differs from version {answer.version}, which stays in force.")
        return
    back = f", with the content of version {request.version}" if isinstance(request, RollBack) else ""
    echo(f"Version {answer.version} is in force{back}.")
    for each in answer.changes:
        echo(each.sentence)
    for run in answer.runs:
        echo(_following_run(request.connector, run))


def _following_run(connector: str, run: FollowingRunShape) -> str:
    what = f"{run.records:,} {Entity(run.entity).plural.capitalize()}"
    if run.state == "held":
        return f"That changes {what}, so nothing begins before: pipeline runs confirm {connector} {run.run_id}"
    if run.kind == "backfill":
        how = "get what is new from what is stored, for no tokens"
    else:
        how = f"are fetched again, for about {run.tokens:,} tokens: a field was added that Pipedrive gives on request only"
    return f"{what} {how}. Follow it: pipeline runs show {connector} {run.run_id}"


def show_tried(_request: ConnectorRequest, answer: MappingTriedAnswer) -> None:
    if answer.sample is not None:
        echo(f"On {answer.sample.entity} {answer.sample.pipedrive_id or answer.sample.hull_id}, {answer.sample.name}:")
    lines = []
    for each in answer.rows:
        found = each.conversion
        outcome = "; ".join(each.mistakes) or (found.words if found else "")
        field = each.words.field if each.words else ""
        lines.append((each.position, field, *((found.before, found.after) if found else ("", "")), outcome))
    table("", ("row", "field", "before", "after", "result"), lines, empty="Nothing is mapped.")


def show_schedule(_request: ConnectorRequest, answer: ScheduleTriedAnswer) -> None:
    echo(answer.words or "This schedule never comes due.")
    for each in answer.next_at:
        echo(f"  {each:%Y-%m-%d %H:%M} UTC")


def show_segments(_request: ConnectorRequest, answer: SegmentsAnswer) -> None:
    lines = [("users", each.id, each.name) for each in answer.users]
    lines += [("accounts", each.id, each.name) for each in answer.accounts]
    table("", ("of", "id", "name"), lines, empty=answer.trouble or "Hull has no segments.")


def show_suggestions(_request: ConnectorRequest, answer: SuggestionsAnswer) -> None:
    for name, offered in answer.suggestions.items():
        print_rows(
            offered,
            "hull service field type what_it_does",
            title=name,
            empty=f"{name}: nothing to suggest.",
            what_it_does=lambda each: each.does,
        )


def show_plans(request: ConnectorRequest, answer: PlansAnswer) -> None:
    print_rows(
        answer.plans,
        "id state created_at by changes would_write tokens",
        empty=f"No plan yet. Make one: {own_name()} settings plan {request.connector} FILE",
        by=lambda each: each.author,
        changes=lambda each: each.changed,
        would_write=lambda each: each.written,
    )


def show_plan(request: ConnectorRequest, answer: PlanAnswer) -> None:
    echo(f"Plan {answer.id}, on version {answer.base_version}: {answer.state}. {answer.sentence}")
    if answer.detail:
        echo(f"  {answer.detail}")
    for side in answer.sides:
        for reason in side.reasons:
            echo(f"  {reason.records:,} {side.kind} {WORDS[reason.act]}: {reason.code}. {reason.meaning}")
    if answer.state == "ready":
        if answer.looked_up:
            echo(f"  {answer.looked_up:,} records need a look-up in Pipedrive: they are matched or created.")
        echo(f"  {answer.tokens:,} tokens, about {duration(answer.takes_s)}.")
        echo(f"Records: {own_name()} settings plan-items {request.connector} {answer.id} incoming|outgoing ENTITY")
        echo(f"Next: {own_name()} settings apply {request.connector} {answer.id}")
    elif answer.state in ("computing", "paused"):
        echo(f"Next: {own_name()} settings show-plan {request.connector} {answer.id}")


def show_items(_request: ConnectorRequest, answer: PlanItemsAnswer) -> None:
    columns = ("record", "what", "field", "before", "after")
    table("", columns, [line for item in answer.items for line in _item_lines(item)], empty="Nothing to show.")
    if answer.next_after:
        echo(f"Next page: --after {answer.next_after}")


def _item_lines(item: PlanItemShape) -> list[tuple[str, str, str, str, str]]:
    record, act = item.record, WORDS[item.act]
    if not item.fields:
        return [(record, act, "", item.reason or "", item.detail or "")]
    return [
        (record, act, each["field"], _cut(each["before"]), each.get("problem") or _cut(each["after"]))
        for each in item.fields
    ]


def _cut(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= CUT else f"{text[:CUT]}…"


def show_applied(_request: ConnectorRequest, answer: AppliedAnswer) -> None:
    echo(f"Version {answer.settings_version} is in force; {answer.sent:,} records are being sent to Pipedrive.")
    if answer.follow_up is not None:
        echo(f"{answer.left_out:,} records had changed and were left out; plan {answer.follow_up} covers them.")


def show_held(request: ConnectorRequest, answer: HeldAnswer) -> None:
    for each in answer.runs:
        echo(f"{each.sentence} Next: {own_name()} runs confirm {request.connector} {each.run_id}")
    if not answer.runs:
        echo("No run needs approval.")


def ask_number_of_plan(caller: Caller, given: dict[str, Any]) -> None:
    """Prompt for the number of records that a plan touches, if it needs approval."""
    if "number" in given:
        return
    plan = caller.call(plans.show_plan, RowRequest(connector=given["connector"], id=given["id"]))
    if plan.state == "ready" and plan.asks:
        sentence = f"Plan {plan.id} changes {plan.touched:,} of the known records"
        given["number"] = plan.touched if is_confirmed() else typed_number(sentence, plan.touched)


def ask_number_of_run(caller: Caller, given: dict[str, Any]) -> None:
    """Prompt for the number of records that a run touches."""
    if "number" in given:
        return
    held = caller.call(plans.list_held_runs, ConnectorRequest(connector=given["connector"]))
    run = next((each for each in held.runs if each.run_id == given["id"]), None)
    if run is not None:
        given["number"] = run.touched if is_confirmed() else typed_number(run.sentence.rstrip("."), run.touched)


def wait_until_computed(caller: Caller, request: ConnectorRequest, answer: PlanAnswer, *, wait: bool) -> PlanAnswer:
    """With `wait`, return the plan once it is computed: by this process, or by the workers of a remote installation."""
    if not wait:
        return answer
    row = RowRequest(connector=request.connector, id=answer.id)
    if isinstance(caller, LocalCaller):
        compute.compute_now(answer.id, float("inf"))
        return caller.call(plans.show_plan, row)
    while answer.state == "computing":
        time.sleep(PAUSE_S)
        answer = caller.call(plans.show_plan, row)
    return answer


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation | Show]] = {
    fields.list_fields: rows(
        "fields",
        "code name type custom writable",
        empty="No fields were read yet.",
        custom=lambda each: each.is_custom,
        writable=lambda each: each.is_writable,
    ),
    fields.list_segments: show_segments,
    fields.suggest_mappings: show_suggestions,
    settings.compare_settings: show_difference,
    settings.list_settings: rows(
        "versions", "version created_at by changed", empty="No version yet.", by=lambda each: each.author
    ),
    settings.put_settings: Presentation(show=show_saved, ask=add_base_version, asks=BASE),
    settings.rebase_settings: show_document,
    settings.review_settings: Presentation(show=show_review, ask=add_base_version, asks=BASE),
    settings.roll_back_settings: show_saved,
    settings.show_settings: Presentation(show=show_document, ask=add_defaults),
    settings_preview.show_mapping: show_tried,
    settings_preview.try_mapping: show_tried,
    settings_preview.try_schedule: show_schedule,
    plans.apply_plan: Presentation(show=show_applied, ask=ask_number_of_plan, yes=YES),
    plans.confirm_run: Presentation(
        show=lines("Run {request.id} was approved and starts."), ask=ask_number_of_run, yes=YES
    ),
    plans.discard_plan: lines("Plan {request.id} is discarded."),
    plans.list_held_runs: show_held,
    plans.list_plan_items: show_items,
    plans.list_plans: show_plans,
    plans.make_plan: Presentation(show=show_plan, follow=wait_until_computed),
    plans.plan_again: Presentation(show=show_plan, follow=wait_until_computed),
    plans.show_plan: show_plan,
}
