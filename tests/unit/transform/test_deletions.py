"""Deletion notices in webhooks, and what Hull receives about deleted records."""

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


@pytest.mark.parametrize(("name", "payload", "notice"), TELLING, ids=[name for name, _, _ in TELLING])
def test_a_webhook_has_a_deletion_notice_or_none(name: str, payload: Any, notice: DeletionNotice | None) -> None:
    assert deletion_notice(payload, 7) == notice


def effect(
    state: str = "deleted", *, was: str = "full", merged_into: int | None = None, **known: Any
) -> DeletionEffect:
    facts: dict[str, Any] = {"held": HELD, "in_hull": True, "supported": True, "joinable": True}
    deletion = Deletion(pipedrive_id=7, state=state, at_ms=AT_MS, merged_into=merged_into)
    return effect_of_deletion(deletion, state=was, **(facts | known))


def summary(notice: DeletionEffect) -> tuple[Outcome | None, str, dict[str, Any], bool]:
    return notice.outcome, notice.reason, notice.attributes, notice.joins


MARK = {"pipedrive/id": None, DELETED_AT: ISO}
MARKED = {"pipedrive/name": "Ada", DELETED_AT: ISO}


@pytest.mark.parametrize("state", ["deleted", "gone"])
def test_hull_receives_the_time_of_the_deletion_and_loses_the_id(state: str) -> None:
    notice = effect(state)

    assert summary(notice) == (Outcome.SUCCESS, state, MARK, False)
    assert (notice.before, notice.delivered) == (HELD, MARKED)


def test_an_existing_mark_is_not_sent_again() -> None:
    assert summary(effect(was="deleted", held=MARKED)) == (None, "deleted", {}, False)


def test_a_mark_that_a_late_page_removed_is_sent_again_without_a_second_event() -> None:
    assert summary(effect(was="deleted", held=HELD | {DELETED_AT: ISO})) == (None, "deleted", MARK, False)


def test_without_support_hull_keeps_what_it_holds() -> None:
    notice = effect(supported=False)

    assert summary(notice) == (Outcome.SKIP, "deletion_not_supported", {}, False)
    assert notice.delivered == HELD


def test_a_record_that_hull_never_received_is_not_created_to_be_marked() -> None:
    notice = effect(in_hull=False, was="shell", held={})

    assert summary(notice) == (Outcome.SKIP, "deleted", {}, False)
    assert notice.delivered is None


def test_a_user_that_another_record_shares_is_not_marked() -> None:
    assert summary(effect(was="conflict")) == (Outcome.SKIP, "deleted", {}, False)


@pytest.mark.parametrize("supported", [True, False])
def test_a_merged_record_is_merged_with_any_deletion_setting(supported: bool) -> None:
    notice = effect("merged", merged_into=9, supported=supported)

    assert summary(notice) == (Outcome.SUCCESS, "merged", {}, True)
    assert notice.delivered is None


def test_a_join_that_was_asked_for_is_not_asked_for_again() -> None:
    assert summary(effect("merged", was="merged", merged_into=9, held={})) == (None, "merged", {}, False)


def test_a_join_that_a_late_page_wrote_into_is_asked_for_again() -> None:
    assert summary(effect("merged", was="merged", merged_into=9)) == (None, "merged", {}, True)


def test_two_that_hull_keeps_apart_are_one_marked_and_one_that_lives() -> None:
    notice = effect("merged", merged_into=9, joinable=False)

    assert summary(notice) == (Outcome.SUCCESS, "merge_not_applied", MARK, False)
    assert summary(effect("merged", merged_into=9, joinable=False, supported=False))[:3] == (
        Outcome.SKIP,
        "merge_not_applied",
        {},
    )


def test_two_separate_records_stay_separate_when_the_merge_is_reported_again() -> None:
    """The deleted record has no external id any more that would show it."""
    assert summary(effect("merged", was="merged", merged_into=9, held=MARKED)) == (None, "merge_not_applied", {}, False)
