"""What the incoming stages would do with a record, without a call: the one incoming preview of plans and replays.

It uses the transform and the page plan of the stages. It does not know which claims another record holds: load finds out when
it takes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from db.id_mapping import Known
from pipeline.domain.kinds import Entity
from pipeline.domain.records import FieldProblem, IncomingRecord
from pipeline.errors import Rejected, Skip
from pipeline.load.incoming import CHANGED, LINKED, NEW, PageDiff, held_after, plan_page
from pipeline.sync.compiled import CompiledSettings


class IncomingEffect(StrEnum):
    """What becomes of one record."""

    CREATE = "create"
    """Hull receives it for the first time: a new User or Account, unless Hull knows it by its claims."""
    UPDATE = "update"
    """Attributes change in Hull."""
    RESEND = "resend"
    """Hull receives it again without changed attributes: its claims, link or mapping changed, or Hull's values are uncertain."""
    LINK = "link"
    """Only its link to an Account is sent."""
    SAME = "same"
    OLDER = "older"
    """A newer state of the record was delivered."""
    SKIP = "skip"
    FAIL = "error"


class AttributeChange(NamedTuple):
    """One attribute in Hull, as we deliver it; None if Hull has no value of ours."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingPreview:
    """effect    what becomes of the record
    record    as transform reads it; None if it cannot be read
    changes   attributes that change in Hull, in the order of the message
    problems  fields that are left out
    in_doubt  Hull's values are uncertain, so everything is sent
    reason, detail  why it fails or is skipped, as in the event
    """

    effect: IncomingEffect
    record: IncomingRecord | None = None
    changes: tuple[AttributeChange, ...] = ()
    problems: tuple[FieldProblem, ...] = ()
    in_doubt: bool = False
    reason: str | None = None
    detail: str | None = None


def incoming_preview(
    body: Any, plan: CompiledSettings, entity: Entity, known: Known | None, *, relink: bool = False
) -> IncomingPreview:
    """Return what the stages would do with a record.

    body    the record as Pipedrive returned it, decoded
    known   its state in the id map; None if it is unknown
    relink  links are sent again, as in a backfill
    """
    try:
        record = plan.incoming.read(body)
    except Skip as skip:
        return IncomingPreview(effect=IncomingEffect.SKIP, reason=skip.reason, detail=skip.detail)
    except Rejected as refused:
        return IncomingPreview(effect=IncomingEffect.FAIL, reason=refused.reason, detail=refused.detail)
    found = {record.pipedrive_id: known} if known is not None else {}
    page = plan_page(entity, [_staged(record)], found, resend=False, relink=relink, shared=plan.shared)
    return replace(_planned(page), record=record, problems=record.problems)


def _staged(record: IncomingRecord) -> dict[str, Any]:
    """Return the record as load reads it: through JSON."""
    staged: dict[str, Any] = orjson.loads(orjson.dumps(record))
    return staged


def _planned(page: PageDiff) -> IncomingPreview:
    if not page.sendings:
        return IncomingPreview(effect=IncomingEffect.OLDER if page.stale else IncomingEffect.SAME)
    (sending,) = page.sendings
    if sending.effect == LINKED:
        return IncomingPreview(effect=IncomingEffect.LINK)
    before = dict(sending.before or {})
    after, names = held_after(sending.record["attributes"], before)
    changes = tuple(AttributeChange(name, before.get(name), after.get(name)) for name in names)
    if sending.effect == NEW:
        return IncomingPreview(effect=IncomingEffect.CREATE, changes=changes)
    effect = IncomingEffect.UPDATE if changes and sending.effect == CHANGED else IncomingEffect.RESEND
    return IncomingPreview(effect=effect, changes=changes, in_doubt=sending.in_doubt)
