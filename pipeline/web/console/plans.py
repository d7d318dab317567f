"""Plans: what new settings would do to every known record. Make, apply and discard plans."""

from __future__ import annotations

import json
from typing import Final

from flask import request
from werkzeug.wrappers import Response

from db.connector import Connector
from pipeline.domain.kinds import Direction, Entity, Role
from pipeline.domain.setting_texts import TITLES
from pipeline.operations import plans
from pipeline.operations.cached_answers import Shared
from pipeline.operations.errors import OperationError
from pipeline.operations.plan_answers import WORDS, PlanAnswer, PlanShape, SideShape
from pipeline.operations.settings import show_settings
from pipeline.sync.outgoing.event_log import HARMLESS
from pipeline.sync.runs.backfill import AskFirst
from pipeline.web import auth
from pipeline.web.console.layout import before_id, connector_path, done, page, plural, split_page
from pipeline.web.console.pages import Pages, perform, refusal_of, sentence_of
from pipeline.web.console.settings_forms import SECTIONS, NotSettings, parse_document

PER_PAGE: Final = 50
SETTINGS: Final = "settings"
"""The tab of plans."""


def add(pages: Pages) -> None:
    pages.page("/c/<name>/plans", show_plans)
    pages.action("/c/<name>/plans", make_plan)
    pages.page("/c/<name>/plans/<int:plan_id>", show_plan)
    pages.page("/c/<name>/plans/<int:plan_id>/<direction>/<entity>", show_items)
    pages.action("/c/<name>/plans/<int:plan_id>/apply", apply_plan, needs=Role.ADMIN)
    pages.action("/c/<name>/plans/<int:plan_id>/discard", discard_plan)
    pages.action("/c/<name>/plans/<int:plan_id>/again", plan_again)
    pages.action("/c/<name>/plans/runs/<int:run_id>/confirm", confirm_run, needs=Role.ADMIN)


def show_plans(
    connector: Connector, mistakes: tuple[str, ...] = (), document: str | None = None, status: int = 200
) -> Response:
    """Show plans, runs that need approval, and a form for a new plan."""
    before = before_id()
    found = perform(plans.list_plans, before=before, limit=PER_PAGE + 1).plans
    shown, more = split_page(found, PER_PAGE)
    return page(
        "plans.html",
        connector=connector,
        tab=SETTINGS,
        status=status,
        plans=shown,
        more=more,
        titles=TITLES,
        sections=SECTIONS,
        held=perform(plans.list_held_runs).runs,
        sentence=_sentence(found, before),
        mistakes=mistakes,
        document=_in_force() if document is None else document,
    )


def make_plan(connector: Connector) -> Response:
    """Make a plan, or show an invalid document again with every mistake."""
    typed = request.form.get("document", "")
    try:
        made = perform(plans.make_plan, document=parse_document(typed))
    except OperationError as refused:
        return show_plans(connector, tuple(refused.mistakes) or (sentence_of(refused),), typed, refused.status)
    except NotSettings as unreadable:
        return show_plans(connector, (str(unreadable),), typed, 400)
    return done(_path(connector, made.id))


def show_plan(connector: Connector, plan_id: int, mistake: str = "", status: int = 200) -> Response:
    return page(
        "plan.html",
        connector=connector,
        tab=SETTINGS,
        status=status,
        plan=_find(connector, plan_id),
        words=WORDS,
        mistake=mistake,
    )


def show_items(connector: Connector, plan_id: int, direction: str, entity: str) -> Response:
    """Show the records behind a number, with their values before and after."""
    plan = _find(connector, plan_id)
    side = next((each for each in plan.sides if (each.direction, each.entity) == (direction, entity)), None)
    if side is None or direction not in list(Direction) or entity not in list(Entity):
        raise auth.missing("The plan has no such records.", "Go back to the plan.")
    act, field = request.args.get("act") or None, request.args.get("field") or None
    chosen = {"direction": direction, "entity": entity, "act": act, "field": field}
    after = request.args.get("after", "")
    found = perform(plans.list_plan_items, id=plan_id, **chosen, after=after, limit=PER_PAGE)
    return page(
        "plan_items.html",
        connector=connector,
        tab=SETTINGS,
        plan=plan,
        side=side,
        act=act,
        field=field,
        words=WORDS,
        harmless=HARMLESS,
        found=found,
        sentence=_which(side, act, field),
    )


def apply_plan(connector: Connector, plan_id: int) -> Response:
    _find(connector, plan_id)
    try:
        applied = perform(plans.apply_plan, id=plan_id, number=_typed())
    except OperationError as refused:
        if isinstance(asked := refused.__cause__, AskFirst):
            return show_plan(connector, plan_id, _approval(asked), 400)
        return show_plan(connector, plan_id, refused.message, refused.status)
    notice = f"Version {applied.settings_version} is in force, and the planned changes have started."
    if applied.follow_up is None:
        return done(_path(connector, plan_id), notice)
    left = f" This plan covers new records and the {applied.left_out:,} that changed since: they were left out."
    return done(_path(connector, applied.follow_up), notice + left)


def discard_plan(connector: Connector, plan_id: int) -> Response:
    _find(connector, plan_id)
    refusal = refusal_of(plans.discard_plan, id=plan_id)
    return done(_path(connector), refusal or f"Plan {plan_id} is discarded.")


def plan_again(connector: Connector, plan_id: int) -> Response:
    _find(connector, plan_id)
    try:
        made = perform(plans.plan_again, id=plan_id)
    except OperationError as refused:
        return show_plan(connector, plan_id, " ".join(refused.mistakes) or sentence_of(refused), refused.status)
    return done(_path(connector, made.id))


def confirm_run(connector: Connector, run_id: int) -> Response:
    try:
        perform(plans.confirm_run, id=run_id, number=_typed())
    except OperationError as refused:
        if isinstance(asked := refused.__cause__, AskFirst):
            return show_plans(connector, (_approval(asked),), status=400)
        if refused.code == "not_found":
            raise auth.missing(f"Run {run_id} does not need approval.", "See the runs.") from None
        return show_plans(connector, (sentence_of(refused),), status=refused.status)
    return done(_path(connector), f"Run {run_id} was approved and starts.")


def _find(connector: Connector, plan_id: int) -> PlanAnswer:
    """Return a plan. While it is computed, all viewers share one answer per second."""
    try:
        found = _shared((connector.key, plan_id))
        return found if found.state == "computing" else perform(plans.show_plan, id=plan_id)
    except OperationError:
        raise auth.missing(f"There is no plan {plan_id}.", "Choose one from the list of plans.") from None


_shared = Shared[tuple[int, int], PlanAnswer](lambda key: perform(plans.show_plan, id=key[1]))
"""(Key of the connector, id) → the plan."""


def _approval(asked: AskFirst) -> str:
    """Return the request to confirm the number of records."""
    reason = f"{asked}"
    return f"{reason[:1].upper()}{reason[1:]}. Nothing was done. Type {asked.number:,} to approve it."


def _typed() -> int | None:
    """Return the typed number, with or without thousands separators; None for any other text."""
    given = request.form.get("number", "").replace(",", "").replace(" ", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) <= 9 else None


def _path(connector: Connector, plan_id: int | None = None) -> str:
    return connector_path(connector, "plans" if plan_id is None else f"plans/{plan_id}")


def _in_force() -> str:
    return json.dumps(perform(show_settings).document, indent=2, ensure_ascii=False)


def _sentence(found: list[PlanShape], before: int | None) -> str:
    ready = [each for each in found if each.state == "ready"]
    if before is not None:
        return "Earlier plans."
    if ready:
        return f"Plan {ready[0].id} is ready to be applied: it would write {plural(ready[0].written, 'record')}."
    return "No plan is ready to be applied." if found else "There are no plans yet."


def _which(side: SideShape, act: str | None, field: str | None) -> str:
    if field:
        changed = sum(each.records for each in side.fields if each.name == field)
        left = sum(each.records for each in side.problems if each.name == field)
        rejected = f"; on {left:,} it would not change because of a problem" if left else ""
        return f"{side.label(field)} would change on {changed:,} {side.kind}{rejected}."
    if act:
        return f"{side.acts.get(act, 0):,} {side.kind} would be {WORDS.get(act, act)}."
    return f"{side.sentence}."
