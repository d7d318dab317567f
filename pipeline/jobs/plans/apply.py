"""Apply a plan: put its settings in force and start its changes, in one transaction; or refuse it completely.

Changes in Hull are made by a backfill that skips records that differ from the plan; changes in Pipedrive by outgoing
changes, each with Hull's last report. Both decide again, by the same rules and from the same state, so they do what was
planned. Records that changed since are left out and planned again.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func
from sqlalchemy.orm import Session

from db import connector as connectors
from db import plan as plans
from db.plan import SettingsPlan
from db.session import after_commit
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import read_settings
from pipeline.jobs.plans import create
from pipeline.jobs.plans.create import PHASES, PlanScope, scope_of
from pipeline.sync.changes.outgoing_changes import read_message, write_messages
from pipeline.sync.connectors.settings_change import enqueue_settings_sync, put_in_force
from pipeline.sync.outgoing.preview import NO_SNAPSHOT
from pipeline.sync.runs import backfill
from pipeline.sync.runs.backfill import Reach
from pipeline.tasks import canvases

MOVED_SHARE: Final = 0.05
"""If a larger share of the records changed, the plan is refused."""
CAUSE: Final = "plan"
CHANGING: Final = ("update", "link", "resend")
"""Acts that change a record which exists already."""
FOUND_OUT: Final = (NO_SNAPSHOT, "hull_id_unknown")
"""Reasons of unmapped Users and Accounts with a record that is found, and perhaps changed, when the plan is applied."""


class PlanRefused(Exception):
    """The plan was not applied; nothing was done. The text says why, and what to do.

    is_over  it can never be applied; its state says so
    """

    def __init__(self, reason: str, words: str, *, is_over: bool = True) -> None:
        self.reason, self.is_over = reason, is_over
        super().__init__(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """settings_version  in force now
    sent              Users and Accounts being sent to Pipedrive, without those that fail
    left_out          records that changed since the plan was computed
    follow_up         the plan for these, and for unplanned ones; None if there are none
    """

    settings_version: int
    sent: int
    left_out: int
    follow_up: int | None


def reaches(plan: SettingsPlan) -> list[Reach]:
    """How many known records of each entity would be changed, on either side."""
    counts = Counter(plan.counts)
    found = [
        Reach(
            entity=entity,
            touched=sum(counts[f"{direction}.{entity}.act.{act}"] for direction in Direction for act in CHANGING),
            perhaps=counts[f"outgoing.{entity}.act.lookup"]
            + sum(counts[f"outgoing.{entity}.reason.unknown.{reason}"] for reason in FOUND_OUT),
            known=counts[f"known.{entity}"],
        )
        for entity in Entity
    ]
    return [each for each in found if each.number]


def to_confirm(session: Session, plan: SettingsPlan) -> list[Reach]:
    """Record counts the operator must confirm; empty if no confirmation is needed."""
    share = read_settings(connectors.get_settings(session, plan.connector_key, plan.base_version)).change_stop_share
    found = reaches(plan)
    return found if any(backfill.must_ask(session, plan.connector_key, each, share) for each in found) else []


def apply(session: Session, plan_id: int, *, author: str, confirmed: int | None = None) -> Applied:
    """Put the plan's settings in force and start its changes.

    confirmed  the number of records the operator confirmed; -1 confirms any number
    Raises: PlanRefused; AskFirst if it touches so many records that it needs approval.
    """
    plan = plans.lock_plan(session, plan_id)
    if plan is None or plan.state != "ready":
        state = plan.state if plan else "gone"
        raise PlanRefused(
            "plan_not_ready", f"a plan is applied once, when it is ready; this one is {state}", is_over=False
        )
    connectors.lock_connector(session, plan.connector_key)
    _require_same_grounds(session, plan)
    asked = to_confirm(session, plan)
    if asked and confirmed not in (-1, sum(each.number for each in asked)):
        raise backfill.AskFirst(asked)
    moved = plans.mark_moved(session, plan)
    _require_few_moved(session, plan, moved)
    scope = scope_of(session, plan)
    version = put_in_force(session, plan.connector_key, plan.document, author=author, force=True, plan_id=plan.id)
    enqueue_settings_sync(session, plan.connector_key)
    if plan.parent_id is not None:  # its settings are already in force, so no run was started
        _carry_over_left_out(session, scope)
    sent = _send(session, plan)
    plan.state, plan.settings_version, plan.ended_by, plan.ended_at = "applied", version.version, author, func.now()
    session.flush()
    follow_up = create.create_follow_up(session, plan, author=author) if _leaves_any_out(session, scope) else None
    return Applied(
        settings_version=version.version, sent=sent, left_out=moved, follow_up=follow_up.id if follow_up else None
    )


def _require_same_grounds(session: Session, plan: SettingsPlan) -> None:
    version = connectors.settings_in_force(session, plan.connector_key)
    if version.version != plan.base_version:
        raise PlanRefused(
            "settings_moved",
            f"version {version.version} of the settings, by {version.author}, came in force since version "
            f"{plan.base_version}, on which this plan is based; plan again",
        )
    now = create.digests_of_fields(session, plan.connector_key)
    changed = [Entity(each).value.capitalize() for each in Entity if now.get(each) != plan.definitions.get(each)]
    if changed:
        raise PlanRefused(
            "fields_moved",
            f"Pipedrive's {' and '.join(changed)} fields are not those of which this plan was made; plan again",
        )


def _require_few_moved(session: Session, plan: SettingsPlan, moved: int) -> None:
    looked_at = plans.count_items(session, plan.id)
    if moved > MOVED_SHARE * looked_at:
        raise PlanRefused(
            "records_moved",
            f"{moved:,} of the {looked_at:,} planned records have changed since, more than {MOVED_SHARE:.0%}; plan again",
        )


def _carry_over_left_out(session: Session, scope: PlanScope) -> None:
    for entity in scope.runs:
        backfill.begin(
            session,
            scope.plan.connector_key,
            entity,
            "backfill",
            resend=scope.needs_relink,
            reindexes=scope.changes_identifiers(entity),
            plan_id=scope.plan.id,
        )


def _send(session: Session, plan: SettingsPlan) -> int:
    """Synchronize everything that the plan decides about; Accounts that only their Users mention, with the Users' data."""
    rank = int(time.time() * 1000)
    bodies: list[tuple[str, str, dict[str, Any]]] = plans.messages_to_send(session, plan.id)
    write_messages(
        session,
        [read_message(plan.connector_key, Entity(entity), body, cause=CAUSE, rank=rank) for entity, _, body in bodies],
    )
    sent = plans.send_items(session, plan) + sum(1 for _, act, _ in bodies if act in plans.CARRIED)
    after_commit(session, lambda: canvases.wake_control("dispatch"))
    return sent


def _leaves_any_out(session: Session, scope: PlanScope) -> bool:
    """Of what is fetched again nothing is left out."""
    looked_at = {
        direction: [entity.value for way, entity in PHASES if way is direction and scope.looks_at(way, entity)]
        for direction in Direction
    }
    incoming = [name for name in looked_at[Direction.INCOMING] if scope.runs.get(Entity(name)) == "backfill"]
    return plans.leaves_any_out(session, scope.plan, incoming, looked_at[Direction.OUTGOING])


def refuse(session: Session, plan_id: int, refused: PlanRefused, *, author: str) -> None:
    """Write down why the plan can never be applied any more."""
    plan = plans.lock_plan(session, plan_id)
    if plan is not None and plan.state == "ready" and refused.is_over:
        plan.state, plan.reason, plan.detail = "refused", refused.reason, str(refused)
        plan.ended_by, plan.ended_at = author, func.now()
