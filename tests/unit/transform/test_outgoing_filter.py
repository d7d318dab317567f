"""Who is sent to Pipedrive and who is not: every row of the table that the connector being replaced was held to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.transform.hull_reports import segment_ids
from pipeline.transform.outgoing_filter import FilterDecision, filter_message, in_segments, no_change_reason
from tests.unit.transform.test_properties import anything, often

NOT_IN_SEGMENT = {
    "user": "User is not present in any of the defined segments to send to service.  Please either add a new synchronized "
    "segment which the user is present in the settings page, or add the user to an existing synchronized segment",
    "account": "Account is not present in any of the defined segments to send to service.  Please either add a new "
    "synchronized segment which the account is present in the settings page, or add the account to an existing "
    "synchronized segment",
}
NO_MAPPING = {
    "user": "There are no outgoing attributes to synchronize for users.  Please go to the settings page and add outgoing "
    "user attributes to synchronize",
    "account": "There are no outgoing attributes to synchronize for account.  Please go to the settings page and add "
    "outgoing account attributes to synchronize",
}
NOTHING_RELEVANT = {
    "user": "No changes on any of the synchronized attributes for this user.  If you think this is a mistake, please check "
    "the settings page for the synchronized user attributes to ensure that the attribute which changed is in the "
    "synchronized outgoing attributes",
    "account": "No changes on any of the synchronized attributes for this account.  If you think this is a mistake, please "
    "check the settings page for the synchronized account attributes to ensure that the attribute which changed is in the "
    "synchronized outgoing attributes",
}
NOTHING = {
    "user": "No changes on any of the attributes for this user.",
    "account": "No changes on any of the attributes for this account.",
}
DELETED = {"user": "User has been deleted", "account": "Account has been deleted"}
SENTENCES = {
    "not_in_segment": NOT_IN_SEGMENT,
    "no_outgoing_mapping": NO_MAPPING,
    "deleted_in_pipedrive": DELETED,
}
MAPPED = ({"hull": "traits_plan", "service": "name"}, {"hull": "account.industry", "service": "label"})
both = pytest.mark.parametrize("entity", list(Entity))


def settings(entity: Entity, *, segments: Any = ("s1",), mapped: Any = MAPPED, **more: Any) -> ConnectorSettings:
    return read_settings(
        {f"synchronized_{entity.hull}_segments": segments, f"outgoing_{entity.hull}_attributes": mapped, **more}
    )


def message(
    entity: Entity, *, segments: Any = ("s1",), entered: Any = (), report: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """A message about one record, with the segments it is in and has entered by their ids."""
    name = "segments" if entity is Entity.PERSON else "account_segments"
    moves = {"entered": [{"id": each} for each in entered], "left": []}
    return {
        entity.hull: {"id": "a1", **(report or {})},
        name: [{"id": each, "name": each} for each in segments],
        "changes": {"is_new": False, "user": {}, "account": {}, name: moves, **changes},
    }


def decide(
    given: dict[str, Any], chosen: ConnectorSettings, entity: Entity, *, known: bool = True, deleted: bool = False
) -> FilterDecision:
    return filter_message(given, chosen, entity, is_known=known, is_deleted=deleted)


@both
@pytest.mark.parametrize(
    ("chosen", "given", "known", "expected"),
    [
        ({}, {"segments": ["s2"]}, True, "not_in_segment"),
        ({}, {"segments": []}, True, "not_in_segment"),
        ({}, {"segments": ["ALL"]}, True, "not_in_segment"),
        ({"segments": []}, {}, True, "not_in_segment"),
        ({"segments": []}, {}, False, "not_in_segment"),
        ({"segments": []}, {"entered": ["s1"]}, True, "not_in_segment"),
        ({"segments": ["ALL"]}, {"segments": []}, True, "in_segment"),
        ({"segments": ["all_segments"]}, {"segments": []}, True, "in_segment"),
        ({"segments": ["s0", "s1"]}, {"segments": ["s1", "s2"]}, True, "in_segment"),
        ({"mapped": []}, {"entered": ["s1"]}, False, "entered_segment"),
        ({"mapped": []}, {"entered": ["s1"]}, True, "entered_segment"),
        ({}, {"entered": ["s2"]}, True, "in_segment"),
        ({"segments": ["ALL"], "mapped": []}, {"entered": ["s2"]}, False, "entered_segment"),
        ({"segments": ["ALL"], "mapped": []}, {"entered": []}, False, "no_outgoing_mapping"),
        ({"mapped": []}, {}, False, "no_outgoing_mapping"),
        ({"mapped": []}, {}, True, "no_outgoing_mapping"),
        ({"mapped": []}, {"user": {"plan": [1, 2]}, "account": {"plan": [1, 2]}}, True, "no_outgoing_mapping"),
        ({}, {}, False, "never_synced"),
        ({}, {"is_new": True}, False, "never_synced"),
        ({}, {"is_new": True}, True, "in_segment"),
        ({}, {}, True, "in_segment"),
    ],
)
def test_the_table(entity: Entity, chosen: Any, given: Any, known: bool, expected: str) -> None:
    decision = decide(message(entity, **given), settings(entity, **chosen), entity, known=known)

    assert expected in (decision.reason, decision.trigger)
    assert decision.sends == (decision.trigger is not None)
    assert decision.detail == (SENTENCES[expected][entity.hull] if expected in SENTENCES else "")


@both
@pytest.mark.parametrize("segments", [[], ["s9"]])
@pytest.mark.parametrize("deleted", [False, True])
def test_sent_by_hand_passes_every_filter(entity: Entity, segments: list[str], deleted: bool) -> None:
    given = {**message(entity, segments=segments, report={"pipedrive/deleted_at": 1}), "is_export": True}
    del given["changes"]
    decision = decide(given, settings(entity, mapped=[]), entity, known=False, deleted=deleted)

    assert decision == FilterDecision(reason=None, trigger="export", detail="")


@both
@pytest.mark.parametrize("is_export", [None, False, "true", 1, {}])
def test_only_a_true_mark_is_an_export(entity: Entity, is_export: Any) -> None:
    given = {**message(entity, segments=[]), "is_export": is_export}

    assert decide(given, settings(entity), entity).reason == "not_in_segment"
    assert not in_segments(given, settings(entity), entity)


@both
@pytest.mark.parametrize(
    ("deleted", "deleted_at", "is_deleted"),
    [
        (True, None, True),
        (False, 1_700_000_000, True),
        (False, "2026-01-01", True),
        (False, None, False),
        (False, "", False),
    ],
)
def test_the_deleted_stay_away_unless_the_settings_want_them_back(
    entity: Entity, deleted: bool, deleted_at: Any, is_deleted: bool
) -> None:
    given = message(entity, entered=["s1"], report={"pipedrive/deleted_at": deleted_at})
    ignoring = settings(entity, **{f"ignore_deleted_{entity.hull}s": True})
    wanting = settings(entity, **{f"ignore_deleted_{entity.hull}s": False})

    left = decide(given, ignoring, entity, known=False, deleted=deleted)
    assert (left.reason, left.detail) == (("deleted_in_pipedrive", DELETED[entity.hull]) if is_deleted else (None, ""))
    assert decide(given, wanting, entity, known=False, deleted=deleted).trigger == "entered_segment"


@both
def test_no_segment_is_reported_before_a_deletion(entity: Entity) -> None:
    given = message(entity, segments=[], report={"pipedrive/deleted_at": 1})

    assert decide(given, settings(entity), entity, deleted=True).reason == "not_in_segment"


@pytest.mark.parametrize(
    ("account", "links"),
    [
        ({"id": [None, "b1"]}, True),
        ({"id": ["b0", "b1"]}, True),
        ({"pipedrive/id": [None, 44]}, True),
        ({"traits_pipedrive/id": [None, 44]}, True),
        ({"id": []}, False),
        ({"id": None}, False),
        ({"id": 7}, False),
        ({"name": ["A", "B"]}, False),
        ([["id", "b1"]], False),
        ({}, False),
    ],
)
def test_a_user_that_got_an_account_is_sent_even_without_a_mapping(account: Any, links: bool) -> None:
    given = message(Entity.PERSON, account=account)
    linking = settings(Entity.PERSON, mapped=[], link_users_in_service=True)

    assert decide(given, linking, Entity.PERSON).trigger == ("account_linked" if links else None)
    assert decide(given, settings(Entity.PERSON, mapped=[]), Entity.PERSON).reason == "no_outgoing_mapping"


def test_an_account_is_not_sent_for_a_link() -> None:
    given = message(Entity.ORGANIZATION, account={"id": [None, "b1"]})
    chosen = settings(Entity.ORGANIZATION, mapped=[], link_users_in_service=True)

    assert decide(given, chosen, Entity.ORGANIZATION).reason == "no_outgoing_mapping"


@pytest.mark.parametrize("entity", list(Entity))
def test_segments_of_the_other_kind_do_not_count(entity: Entity) -> None:
    other = Entity.ORGANIZATION if entity is Entity.PERSON else Entity.PERSON
    given = {**message(other, entered=["s1"]), entity.hull: {"id": "a1"}}

    assert decide(given, settings(entity), entity).reason == "not_in_segment"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"segments": [{"id": "s1"}], "segment_ids": ["s2"]}, {"s1"}),
        ({"segments": [], "segment_ids": ["s2"]}, set()),
        ({"segment_ids": ["s2", "s3"]}, {"s2", "s3"}),
        ({"segments": None, "segment_ids": ["s2"]}, {"s2"}),
        ({"segments": {"id": "s1"}}, set()),
        ({"segments": ["s1", None, 7, {"id": ["s2"]}, {"id": ""}, {}]}, {"s1"}),
        ({}, set()),
    ],
)
def test_the_list_of_segments_counts_and_else_that_of_ids(given: dict[str, Any], expected: set[str]) -> None:
    of_account = {f"account_{name}": value for name, value in given.items()}

    assert segment_ids(given, Entity.PERSON) == expected
    assert segment_ids(of_account, Entity.ORGANIZATION) == expected
    assert segment_ids(of_account, Entity.PERSON) == set()


@both
@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"plan": ["free", "pro"]}, "unchanged"),
        ({"traits_plan": ["free", "pro"]}, "unchanged"),
        ({"plan[0]": ["free", "pro"]}, "unchanged"),
        ({"traits_plan[12]": ["free", "pro"], "other": [1, 2]}, "unchanged"),
        ({"planet": [1, 2]}, "no_relevant_change"),
        ({"plan[x]": [1, 2]}, "no_relevant_change"),
        ({"segment_ids": [[], ["s1"]]}, "no_relevant_change"),
        ({}, "no_change"),
    ],
)
def test_a_known_record_without_a_difference_has_one_of_three_reasons(
    entity: Entity, changed: dict[str, Any], code: str
) -> None:
    given = message(entity, **{entity.hull: changed}, is_new=True)
    words = {
        "unchanged": REASONS["unchanged"].meaning,
        "no_relevant_change": NOTHING_RELEVANT[entity.hull],
        "no_change": NOTHING[entity.hull],
    }

    assert no_change_reason(given, settings(entity), entity) == (code, words[code])


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"industry": ["a", "b"]}, "unchanged"),
        ({"traits_industry[0]": ["a", "b"]}, "unchanged"),
        ({"plan": ["a", "b"]}, "no_relevant_change"),
    ],
)
def test_of_a_user_the_attributes_of_its_account_count_too(changed: dict[str, Any], code: str) -> None:
    assert no_change_reason(message(Entity.PERSON, account=changed), settings(Entity.PERSON), Entity.PERSON)[0] == code


def test_of_an_account_those_of_its_users_do_not() -> None:
    given = message(Entity.ORGANIZATION, user={"plan": ["a", "b"]})

    assert no_change_reason(given, settings(Entity.ORGANIZATION), Entity.ORGANIZATION)[0] == "no_change"


@both
@pytest.mark.parametrize("changes", [None, [], "x", 7, {"user": None, "account": []}, {"user": [["plan", 1, 2]]}])
def test_changes_that_make_no_sense_name_none(entity: Entity, changes: Any) -> None:
    given = {**message(entity), "changes": changes}

    assert decide(given, settings(entity), entity).trigger == "in_segment"
    assert no_change_reason(given, settings(entity), entity)[0] == "no_change"
    del given["changes"]
    assert no_change_reason(given, settings(entity), entity)[0] == "no_change"


@both
@pytest.mark.parametrize(
    "moves", [None, [], {}, {"entered": None}, {"entered": {"id": "s1"}}, {"entered": [None, 7, [], {"id": {}}]}]
)
def test_entries_that_make_no_sense_are_none(entity: Entity, moves: Any) -> None:
    name = "segments" if entity is Entity.PERSON else "account_segments"
    given = {**message(entity), "changes": {name: moves}}

    assert decide(given, settings(entity, segments=["ALL"]), entity).trigger == "in_segment"


parts = st.sampled_from(["id", "user", "account", "segments", "account_segments", "entered", "plan", "pipedrive/id"])
messages = st.dictionaries(
    st.sampled_from(["user", "account", "segments", "segment_ids", "account_segments", "changes", "is_export"]),
    anything | st.dictionaries(parts, anything | st.dictionaries(parts, anything)),
)


@both
@often
@given(messages, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_no_message_is_too_strange_for_the_filter(
    entity: Entity, given: Any, known: bool, deleted: bool, links: bool, maps: bool
) -> None:
    chosen = settings(entity, mapped=MAPPED if maps else [], segments=["ALL"], link_users_in_service=links)
    for segments in (chosen, settings(entity)):
        decision = decide(given, segments, entity, known=known, deleted=deleted)
        code, words = no_change_reason(given, segments, entity)

        assert (decision.reason is None) != (decision.trigger is None)
        assert decision.sends != bool(decision.detail)
        assert decision.reason is None or decision.reason in REASONS
        assert code in REASONS
        assert words
