"""Apply a plan: put its settings in force and start its changes, in one transaction; or refuse it completely.

A backfill makes the changes in Hull and skips records that changed since. Outgoing changes, each with Hull's last report, make
those in Pipedrive. Both decide again by the same rules and from the same state, so the result is the planned one. Records that
changed since are left out, and a follow-up plan covers them.
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
from pipeline.jobs.plans.create import PlanScope, digests_of_fields, scope_of, store_plan
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
"""Reasons of unknown Users and Accounts: their record is found, and perhaps changed, when the plan is applied."""


class PlanRefused(Exception):
    """The plan was not applied, and nothing was done. The text is the reason and the next step.

    is_over  it can never be applied
    """

    def __init__(self, reason: str, message: str, *, is_over: bool = True) -> None:
        self.reason, self.is_over = reason, is_over
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """settings_version  in force now
    sent              Users and Accounts being sent to Pipedrive, without those that fail
    left_out          records that changed since the plan was computed
    follow_up         the plan for these and for new records, if any
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
    return found if any(backfill.needs_approval(session, plan.connector_key, each, share) for each in found) else []


def apply(session: Session, plan_id: int, *, author: str, confirmed: int | None = None) -> Applied:
    """Put the plan's settings in force and start its changes.

    confirmed  the number of records the operator confirmed; -1 confirms any number
    Raises: PlanRefused; AskFirst if it touches so many records that it needs approval.
    """
    plan = plans.lock_plan(session, plan_id)
    if plan is None or plan.state != "ready":
        state = plan.state if plan else "deleted"
        message = f"only a plan that is ready can be applied; this one is {state}"
        raise PlanRefused("plan_not_ready", message, is_over=False)
    connectors.lock_connector(session, plan.connector_key)
    _require_unchanged_basis(session, plan)
    asked = to_confirm(session, plan)
    if asked and confirmed not in (-1, sum(each.number for each in asked)):
        raise backfill.AskFirst(asked)
    moved, planned = plans.mark_moved(session, plan), plans.count_items(session, plan.id)
    if moved > MOVED_SHARE * planned:
        message = (
            f"{moved:,} of the {planned:,} planned records have changed since, more than {MOVED_SHARE:.0%}; plan again"
        )
        raise PlanRefused("records_moved", message)
    scope = scope_of(session, plan)
    version = put_in_force(session, plan.connector_key, plan.document, author=author, force=True, plan_id=plan.id)
    enqueue_settings_sync(session, plan.connector_key)
    if plan.parent_id is not None:  # its settings are already in force, so no run was started
        for entity in scope.runs:
            backfill.begin(
                session,
                plan.connector_key,
                entity,
                "backfill",
                resend=scope.needs_relink,
                reindexes=scope.changes_identifiers(entity),
                plan_id=plan.id,
            )
    sent = _send(session, plan)
    plan.state, plan.settings_version, plan.ended_by, plan.ended_at = "applied", version.version, author, func.now()
    session.flush()
    follow_up = None
    if _leaves_any_out(session, scope):
        follow_up = store_plan(session, plan.connector_key, plan.document, author, parent_id=plan.id).id
    return Applied(settings_version=version.version, sent=sent, left_out=moved, follow_up=follow_up)


def _require_unchanged_basis(session: Session, plan: SettingsPlan) -> None:
    version = connectors.settings_in_force(session, plan.connector_key)
    if version.version != plan.base_version:
        raise PlanRefused(
            "settings_moved",
            f"the plan is based on version {plan.base_version} of the settings, but version {version.version}, "
            f"saved by {version.author}, is in force now; plan again",
        )
    now = digests_of_fields(session, plan.connector_key)
    changed = [Entity(each).value.capitalize() for each in Entity if now.get(each) != plan.definitions.get(each)]
    if changed:
        raise PlanRefused(
            "fields_moved", f"Pipedrive's {' and '.join(changed)} fields changed since the plan was made; plan again"
        )


def _send(session: Session, plan: SettingsPlan) -> int:
    """Write the outgoing changes of the plan, also of Accounts that only messages of Users contain; return how many succeed."""
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
    """Return whether records are left out. A new full fetch leaves none out."""
    incoming = [entity for entity, kind in scope.runs.items() if kind == "backfill"]
    return plans.leaves_any_out(session, scope.plan, incoming, list(scope.sends))


def refuse(session: Session, plan_id: int, refused: PlanRefused, *, author: str) -> None:
    """Store why the plan can never be applied."""
    plan = plans.lock_plan(session, plan_id)
    if plan is not None and plan.state == "ready" and refused.is_over:
        plan.state, plan.reason, plan.detail = "refused", refused.reason, str(refused)
        plan.ended_by, plan.ended_at = author, func.now()
