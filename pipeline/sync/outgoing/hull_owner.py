"""Ask Hull for the id of a record before a User or Account is mapped to one without a known Hull id.

An unresolved record is not free: it was sent to Hull with its own claims, and identifiers that name it together with
another User would merge the two, which cannot be undone.
"""

from __future__ import annotations

from collections.abc import Mapping

from db import batch as batches
from db.batch import ClaimedBatch
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.outgoing import MatchStatus
from pipeline.sync.changes.hull_ids import ask_hull, learn
from pipeline.sync.outgoing.resolve import Resolution, part_rivals
from pipeline.wiring import Wired


def in_doubt(found: Mapping[str, Resolution]) -> list[int]:
    """Return records with a Hull id that only Hull knows: unresolved ones, and those that two Hull ids claim."""
    doubted = (each for each in found.values() if _is_asked(each))
    return sorted({pipedrive_id for each in doubted for pipedrive_id in each.others})


def settle_with_hull(batch: ClaimedBatch, wired: Wired, found: dict[str, Resolution]) -> None:
    """Ask Hull, store the answers, and resolve the doubtful ones; a record that Hull does not show yet stays unresolved.

    Raises: the client's errors.
    """
    asked, entity = in_doubt(found), Entity(batch.entity)
    if not asked:
        return
    answers = ask_hull(wired, entity, asked)
    with transaction() as session:
        batches.hold(session, batch)
        learn(session, batch.connector_key, entity, answers)
    for hull_id, each in found.items():
        if _is_asked(each):
            _settle(hull_id, each, answers)
    part_rivals(found)


def _is_asked(each: Resolution) -> bool:
    return each.standing is MatchStatus.UNRESOLVED or (
        each.standing is MatchStatus.TAKEN and each.matched_by == "report"
    )


def _settle(hull_id: str, each: Resolution, answers: Mapping[int, str]) -> None:
    (pipedrive_id,) = each.others
    holder = answers.get(pipedrive_id)
    if holder == hull_id or (holder is None and each.standing is MatchStatus.UNRESOLVED and each.is_old):
        each.standing, each.pipedrive_id, each.others = MatchStatus.KNOWN, pipedrive_id, ()
    elif holder is not None:
        each.standing, each.pipedrive_id = MatchStatus.TAKEN, None
