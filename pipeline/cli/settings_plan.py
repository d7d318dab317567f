"""`pipeline settings plan|plans|apply|discard`: what new settings would do, before they do it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from db.session import transaction
from pipeline.cli.audited import audited
from pipeline.cli.opening import open_database
from pipeline.cli.settings import group, read_document, refused
from pipeline.cli.showing import (
    Failed,
    connector_argument,
    duration,
    find_connector,
    json_option,
    own_name,
    say,
    show,
    table,
    typed_number,
)
from pipeline.domain.settings import SettingsRefused
from pipeline.insight import plan as plans
from pipeline.insight.plan_views import WORDS, ItemView, PlanView
from pipeline.jobs.plans.apply import Applied, PlanRefused
from pipeline.sync.runs.approval import AskFirst

WHO = "command line"
CUT = 60
"""Characters of one value in the table of records."""


@group.command(name="plan")
@connector_argument
@click.argument("file", required=False)
@click.option("--again", type=int, metavar="PLAN", help="Plan the settings of this plan anew, instead of FILE.")
@click.option("--wait", is_flag=True, help="Compute it here and now, to its end.")
@click.option("--show", "shown", default=0, metavar="N", help="Also show the first N records of each side.")
@click.option("--force", is_flag=True, help="Take over field codes that Pipedrive does not know (yet).")
@json_option
@audited("settings.plan")
def plan(connector: str, file: str | None, again: int | None, wait: bool, shown: int, force: bool) -> None:
    """Say what the settings of FILE (JSON; - is standard input) would do to every known record. Costs no token.

    \b
    Example:
      pipeline settings plan acme settings.json --wait --show 10
      pipeline settings plan acme --again 12
    """
    if (file is None) == (again is None):
        raise click.UsageError("give FILE or --again PLAN")
    document = read_document(file) if file is not None else None
    open_database()
    key = _key(connector)
    try:
        plan_id = _again(key, again or 0) if document is None else plans.make(key, document, who=WHO, force=force)
    except SettingsRefused as error:
        raise refused(error) from None
    if wait:
        plans.finish(plan_id)
    _show(connector, _read(key, plan_id), shown)


@group.command(name="plans")
@connector_argument
@click.option("--id", "plan_id", type=int, help="This plan as a whole.")
@click.option("--show", "shown", default=0, metavar="N", help="With --id: the first N records of each side.")
@click.option("--act", type=click.Choice(list(WORDS)), help="With --show: only records of which this would become.")
@click.option("--field", metavar="CODE", help="With --show: only records on which this field would change.")
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@json_option
def list_plans(connector: str, plan_id: int | None, shown: int, act: str | None, field: str | None, limit: int) -> None:
    """List the plans that were made, newest first, or show one.

    \b
    Example:
      pipeline settings plans acme --id 12 --show 10
      pipeline settings plans acme --id 12 --show 50 --act error --field name
    """
    open_database()
    key = _key(connector)
    if plan_id is not None:
        _show(connector, _read(key, plan_id), shown, act=act, field=field)
        return
    found = plans.latest(key, limit=limit)
    columns = ("plan", "state", "made (UTC)", "by", "changes", "would write", "tokens")
    rows = [(p.id, p.state, p.created_at, p.author, ", ".join(p.changed), p.written, p.tokens) for p in found]
    empty = f"No plan yet. Make one: {own_name()} settings plan {connector} FILE"
    show([described(each) for each in found], lambda: table("", columns, rows, empty=empty))


@group.command()
@connector_argument
@click.argument("plan_id", metavar="PLAN", type=int)
@click.option("--yes", is_flag=True, help="Do not ask, however many records it touches.")
@json_option
@audited("settings.apply")
def apply(connector: str, plan_id: int, yes: bool) -> None:
    """Put the settings of a plan in force and do just what it says.

    Records that moved since are left out and planned anew. It is refused when settings, Pipedrive's fields or more than 5 % of
    the records moved. When it touches more than `change_stop_share` of the known records, their number must be typed.

    \b
    Example:
      pipeline settings apply acme 12
    """
    open_database()
    key = _key(connector)
    try:
        applied = _apply(key, plan_id, -1 if yes else None)
    except PlanRefused as error:
        raise Failed(str(error), f"see: {own_name()} settings plans {connector}") from None

    def human() -> None:
        say(f"Version {applied.settings_version} is in force; {applied.sent:,} records are on their way to Pipedrive.")
        if applied.follow_up is not None:
            say(
                f"{applied.left_out:,} had moved and were left out; plan {applied.follow_up} sees to what was left out."
            )

    show(applied, human)


@group.command()
@connector_argument
@click.argument("plan_id", metavar="PLAN", type=int)
@json_option
@audited("settings.discard")
def discard(connector: str, plan_id: int) -> None:
    """Forget a plan that nobody is going to apply.

    \b
    Example:
      pipeline settings discard acme 12
    """
    open_database()
    if not plans.discard(_key(connector), plan_id, who=WHO):
        raise Failed(f"there is no open plan {plan_id}", f"see: {own_name()} settings plans {connector}", exit_code=2)
    show({"id": plan_id, "state": "discarded"}, lambda: say(f"Plan {plan_id} is discarded."))


COMMANDS: tuple[click.Command, ...] = (group,)
"""The group is that of `pipeline settings`, which these belong to."""


def described(view: PlanView) -> dict[str, Any]:
    """A plan as JSON, with its sentence."""
    sides = [{**asdict(side), "sentence": side.sentence} for side in view.sides]
    return {
        **asdict(view),
        "sides": sides,
        "sentence": view.sentence,
        "written": view.written,
        "looked_up": view.looked_up,
    }


def _key(connector: str) -> int:
    with transaction() as session:
        return find_connector(session, connector).key


def _read(key: int, plan_id: int) -> PlanView:
    found = plans.read(key, plan_id)
    if found is None:
        raise Failed(f"there is no plan {plan_id}", "see: pipeline settings plans CONNECTOR", exit_code=2)
    return found


def _again(key: int, plan_id: int) -> int:
    made = plans.again(key, plan_id, who=WHO)
    return made if made is not None else _read(key, plan_id).id


def _apply(key: int, plan_id: int, confirmed: int | None) -> Applied:
    try:
        return plans.apply(key, plan_id, who=WHO, confirmed=confirmed)
    except AskFirst as asked:
        return plans.apply(key, plan_id, who=WHO, confirmed=typed_number(asked))


def _show(connector: str, view: PlanView, shown: int, *, act: str | None = None, field: str | None = None) -> None:
    found = {
        f"{side.direction}.{side.entity}": plans.items(
            view.id, side.direction, side.entity, act=act, field=field, limit=shown
        ).items
        for side in view.sides
        if shown
    }
    show({**described(view), **({"items": found} if shown else {})}, lambda: _print(connector, view, found))


def _print(connector: str, view: PlanView, found: dict[str, tuple[ItemView, ...]]) -> None:
    say(f"Plan {view.id}, on version {view.base_version}: {view.state}. {view.sentence}")
    if view.detail:
        say(f"  {view.detail}")
    for side in view.sides:
        for reason in side.reasons:
            say(f"  {reason.records:,} {side.kind} {WORDS[reason.act]}: {reason.code}. {reason.meaning}")
    if view.state == "ready":
        if view.looked_up:
            say(f"  {view.looked_up:,} records need a look-up in Pipedrive: created or matched.")
        say(f"  {view.tokens:,} tokens, about {duration(view.takes_s)}.")
        say(f"Next: {own_name()} settings apply {connector} {view.id}")
    elif view.state == "computing":
        say(f"Next: {own_name()} settings plans {connector} --id {view.id}")
    for name, items in found.items():
        labels = next(side.labels for side in view.sides if name == f"{side.direction}.{side.entity}")
        columns = ("record", "what", "field", "before", "after")
        table(
            name, columns, [line for item in items for line in _lines(item, labels)], empty=f"{name}: nothing to show."
        )


def _lines(item: ItemView, labels: dict[str, str]) -> list[tuple[str, str, str, str, str]]:
    if not item.fields:
        return [(item.record, WORDS[item.act], "", item.reason or "", item.detail or "")]
    return [
        (
            item.record,
            WORDS[item.act],
            labels.get(each["field"], each["field"]),
            _short(each["before"]),
            each.get("problem") or _short(each["after"]),
        )
        for each in item.fields
    ]


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= CUT else f"{text[:CUT]}…"
