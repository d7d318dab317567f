"""What a webhook says of a record's end, and what Hull is told of one that went."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.deletions import DELETED_AT, Deletion, DeletionEffect, DeletionNotice
from pipeline.domain.kinds import Outcome
from pipeline.transform.incoming import effect_of_deletion
from pipeline.transform.webhooks import deletion_notice

AT_MS = 1_770_000_000_616
ISO = "2026-02-02T02:40:00Z"
HELD = {"pipedrive/id": 7, "pipedrive/name": "Ada"}


def webhook(action: str = "delete", entity_id: str = "7", **meta: Any) -> dict[str, Any]:
    head = {"entity": "person", "action": action, "entity_id": entity_id, "timestamp": "2026-02-02T02:40:00.616Z"}
    return {"meta": {**head, "id": "e1", **meta}, "data": None, "previous": {}}


TELLING: list[tuple[str, dict[str, Any], DeletionNotice | None]] = [
    ("a delete", webhook(), DeletionNotice(at_ms=AT_MS, merged_into=None)),
    ("a merge, by the one that went", webhook(merged_to_id="9"), DeletionNotice(at_ms=AT_MS, merged_into=9)),
    (
        "a merge, by the other one",
        webhook("change", "9", merged_from_id="7"),
        DeletionNotice(at_ms=AT_MS, merged_into=9),
    ),
    ("a merge into itself", webhook(merged_to_id="7"), DeletionNotice(at_ms=AT_MS, merged_into=None)),
    ("a change from itself", webhook("change", "7", merged_from_id="7"), None),
    ("a change", webhook("change"), None),
    ("somebody else's delete", webhook(entity_id="8"), None),
    ("somebody else's merge", webhook("change", "9", merged_from_id="8"), None),
    ("a deal", webhook(entity="deal"), None),
    ("nonsense", {"meta": 1}, None),
]


@pytest.mark.parametrize(("name", "payload", "told"), TELLING, ids=[name for name, _, _ in TELLING])
def test_a_webhook_tells_of_an_end_or_of_none(name: str, payload: Any, told: DeletionNotice | None) -> None:
    assert deletion_notice(payload, 7) == told


def farewell(
    state: str = "deleted", *, was: str = "full", merged_into: int | None = None, **known: Any
) -> DeletionEffect:
    facts: dict[str, Any] = {"held": HELD, "in_hull": True, "supported": True, "joinable": True}
    departure = Deletion(pipedrive_id=7, state=state, at_ms=AT_MS, merged_into=merged_into)
    return effect_of_deletion(departure, state=was, **(facts | known))


def said(told: DeletionEffect) -> tuple[Outcome | None, str, dict[str, Any], bool]:
    return told.outcome, told.reason, told.attributes, told.joins


MARK = {"pipedrive/id": None, DELETED_AT: ISO}
MARKED = {"pipedrive/name": "Ada", DELETED_AT: ISO}


@pytest.mark.parametrize("state", ["deleted", "gone"])
def test_hull_is_told_when_it_went_and_forgets_the_id(state: str) -> None:
    told = farewell(state)

    assert said(told) == (Outcome.SUCCESS, state, MARK, False)
    assert (told.before, told.delivered) == (HELD, MARKED)


def test_a_mark_that_stands_is_not_said_again() -> None:
    assert said(farewell(was="deleted", held=MARKED)) == (None, "deleted", {}, False)


def test_a_mark_that_a_late_page_wiped_out_is_said_again_without_a_second_event() -> None:
    assert said(farewell(was="deleted", held=HELD | {DELETED_AT: ISO})) == (None, "deleted", MARK, False)


def test_without_support_hull_keeps_what_it_holds() -> None:
    told = farewell(supported=False)

    assert said(told) == (Outcome.SKIP, "deletion_not_supported", {}, False)
    assert told.delivered == HELD


def test_what_hull_never_heard_of_is_not_made_there_to_be_marked() -> None:
    told = farewell(in_hull=False, was="shell", held={})

    assert said(told) == (Outcome.SKIP, "deleted", {}, False)
    assert told.delivered is None


def test_a_user_that_another_record_shares_is_not_marked() -> None:
    assert said(farewell(was="conflict")) == (Outcome.SKIP, "deleted", {}, False)


@pytest.mark.parametrize("supported", [True, False])
def test_a_merged_record_is_joined_whatever_the_settings_say_of_deletions(supported: bool) -> None:
    told = farewell("merged", merged_into=9, supported=supported)

    assert said(told) == (Outcome.SUCCESS, "merged", {}, True)
    assert told.delivered is None


def test_a_join_that_was_asked_for_is_not_asked_for_again() -> None:
    assert said(farewell("merged", was="merged", merged_into=9, held={})) == (None, "merged", {}, False)


def test_a_join_that_a_late_page_wrote_into_is_asked_for_again() -> None:
    assert said(farewell("merged", was="merged", merged_into=9)) == (None, "merged", {}, True)


def test_two_that_hull_keeps_apart_are_one_marked_and_one_that_lives() -> None:
    told = farewell("merged", merged_into=9, joinable=False)

    assert said(told) == (Outcome.SUCCESS, "merge_not_applied", MARK, False)
    assert said(farewell("merged", merged_into=9, joinable=False, supported=False))[:3] == (
        Outcome.SKIP,
        "merge_not_applied",
        {},
    )


def test_two_that_were_kept_apart_stay_so_when_the_merge_is_told_again() -> None:
    """By then the one that went holds no external id any more that would say so."""
    assert said(farewell("merged", was="merged", merged_into=9, held=MARKED)) == (None, "merge_not_applied", {}, False)
