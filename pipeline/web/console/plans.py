"""Plans: what new settings would do to every known record, and the buttons that do it or forget it."""

from __future__ import annotations

import json
from typing import Final

from flask import request
from werkzeug.wrappers import Response

from db.connector import Connector
from pipeline.domain.kinds import Direction, Entity, Role
from pipeline.operations import plans
from pipeline.operations.cached_answers import Shared
from pipeline.operations.errors import OperationError
from pipeline.operations.plan_answers import ACTS, WORDS, PlanAnswer, PlanShape, SideShape
from pipeline.operations.settings import show_settings
from pipeline.operations.settings_differences import TITLES
from pipeline.sync.outgoing.event_log import HARMLESS
from pipeline.sync.runs.backfill import AskFirst
from pipeline.web import auth
from pipeline.web.console.layout import before_id, connector_path, done, page, split_page
from pipeline.web.console.pages import Pages, perform, refusal_of, sentence_of
from pipeline.web.console.settings_forms import SECTIONS, NotSettings, parse_document

PER_PAGE: Final = 50
SETTINGS: Final = "settings"
"""The tab to which plans belong."""


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
    """Show the last plans, runs that need approval, and a form for a new plan."""
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
    """Return an invalid document as typed, with every mistake."""
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
    """The records behind a number, before and after."""
    plan = _find(connector, plan_id)
    side = next((each for each in plan.sides if (each.direction, each.entity) == (direction, entity)), None)
    if side is None or direction not in list(Direction) or entity not in list(Entity):
        raise auth.missing("The plan says nothing of these.", "Go back to the plan.")
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
        acts=ACTS,
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
            sentence = f"{asked}. Type {asked.number:,} to say yes to that; nothing was done."
            return show_plan(connector, plan_id, sentence[:1].upper() + sentence[1:], 400)
        return show_plan(connector, plan_id, refused.message, refused.status)
    notice = f"Version {applied.settings_version} is in force; what the plan says is being done."
    if applied.follow_up is None:
        return done(_path(connector, plan_id), notice)
    left = (
        f" Records that changed since, or are new, were left out ({applied.left_out:,} moved): this plan covers them."
    )
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
            return show_plans(connector, (f"{asked}; type {asked.number:,} to say yes to that",), status=400)
        if refused.code == "not_found":
            raise auth.missing(f"Run {run_id} does not need approval.", "See the runs.") from None
        return show_plans(connector, (sentence_of(refused),), status=refused.status)
    return done(_path(connector), f"Run {run_id} begins.")


def _find(connector: Connector, plan_id: int) -> PlanAnswer:
    """A plan that is being computed is polled every two seconds by every viewer."""
    found = _shared((connector.key, plan_id))
    if found is None or found.state != "computing":
        found = plans.find_plan(connector.key, plan_id)
    if found is None:
        raise auth.missing(f"There is no plan {plan_id}.", "Choose one from the list of plans.")
    return found


def _read(key: tuple[int, int]) -> PlanAnswer | None:
    return plans.find_plan(*key)


_shared = Shared(_read)


def _typed() -> int | None:
    """The number that was typed, thousands apart or not; -1, which means any, cannot be typed."""
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
        return f"Plan {ready[0].id} is ready to be applied: {ready[0].written:,} records would be written."
    return "No plan waits to be applied." if found else "No plan was made yet."


def _which(side: SideShape, act: str | None, field: str | None) -> str:
    if field:
        changed = sum(each.records for each in side.fields if each.name == field)
        left = sum(each.records for each in side.problems if each.name == field)
        refused = f"; of {left:,} it would be left as it is" if left else ""
        return f"{side.label(field)} would change on {changed:,} {side.kind}{refused}."
    if act:
        return f"{side.acts.get(act, 0):,} {side.kind} would be {WORDS.get(act, act)}."
    return f"{side.sentence}."
