"""Several messages about one record become one without losing data."""

from __future__ import annotations

import copy
from functools import reduce
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.kinds import Entity
from pipeline.transform.hull_reports import (
    account_linked,
    changed_attributes,
    combine_messages,
    entered_ids,
    segment_ids,
)
from tests.unit.transform.test_properties import anything, often

S1, S2 = {"id": "s1", "name": "One"}, {"id": "s2", "name": "Two"}


def user(name: str, **more: Any) -> dict[str, Any]:
    return {"user": {"id": "u1", "name": name, **more}, "segments": [S1], "changes": {}}


def changing(**changes: Any) -> dict[str, Any]:
    return {"user": {"id": "u1"}, "changes": changes}


def combined_changes(*messages: dict[str, Any]) -> Any:
    return reduce(combine_messages, messages)["changes"]


@pytest.mark.parametrize(
    ("first", "second", "newest"),
    [
        ({}, {}, "second"),
        ({"indexed_at": "2026-01-02T00:00:00Z"}, {"indexed_at": "2026-01-01T00:00:00Z"}, "first"),
        ({"indexed_at": "2026-01-01T00:00:00Z"}, {"indexed_at": "2026-01-02T00:00:00Z"}, "second"),
        ({"indexed_at": "2026-01-02T01:00:00+02:00"}, {"indexed_at": "2026-01-01T23:30:00Z"}, "second"),
        ({"indexed_at": "2026-01-01T10:00:00.900Z"}, {"indexed_at": "2026-01-01T10:00:00.100Z"}, "first"),
        ({"indexed_at": 1_767_225_600}, {"indexed_at": "2025-12-31T00:00:00Z"}, "first"),
        ({"traits_indexed_at": "2026-01-02T00:00:00Z"}, {"indexed_at": "2026-01-01T00:00:00Z"}, "first"),
        ({"indexed_at": "2026-01-01T00:00:00Z"}, {"indexed_at": "2026-01-01T00:00:00Z"}, "second"),
        ({"updated_at": "2026-01-02T00:00:00Z"}, {"updated_at": "2026-01-01T00:00:00Z"}, "first"),
        (
            {"indexed_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-09T00:00:00Z"},
            {"indexed_at": "2026-01-02T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"},
            "second",
        ),
        ({"indexed_at": "2026-01-09T00:00:00Z"}, {"updated_at": "2026-01-01T00:00:00Z"}, "second"),
        (
            {"indexed_at": "soon", "updated_at": "2026-01-02T00:00:00Z"},
            {"indexed_at": "2026-01-05T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"},
            "first",
        ),
        ({"indexed_at": {"a": 1}, "updated_at": []}, {"indexed_at": True, "updated_at": None}, "second"),
    ],
)
def test_the_newest_report_counts(first: Any, second: Any, newest: str) -> None:
    combined = combine_messages(user("first", **first), {**user("second", **second), "segments": [S2]})

    assert combined["user"]["name"] == newest
    assert segment_ids(combined, Entity.PERSON) == ({"s1"} if newest == "first" else {"s2"})


def test_an_account_has_a_report_of_its_own() -> None:
    new = {"account": {"id": "a1", "name": "New", "indexed_at": "2026-01-02T00:00:00Z"}, "account_segments": [S1]}
    old = {"account": {"id": "a1", "name": "Old", "indexed_at": "2026-01-01T00:00:00Z"}, "account_segments": [S2]}

    assert combine_messages(new, old) == {**new, "is_export": False}
    assert "user" not in combine_messages(old, new)


def test_an_account_that_the_newest_message_does_not_speak_of_is_kept() -> None:
    linked = {**user("old"), "account": {"id": "a1"}, "account_segments": [S1]}

    kept = combine_messages(linked, user("new"))
    assert (kept["user"]["name"], kept["account"], kept["account_segments"]) == ("new", {"id": "a1"}, [S1])
    gone = combine_messages(linked, {**user("new"), "account": {}})
    assert (gone["account"], "account_segments" in gone) == ({}, False)


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        ({"plan": ["free", "pro"]}, {"plan": ["pro", "max"]}, {"plan": ["free", "max"]}),
        ({"plan": ["free", "pro"]}, {"plan": ["pro", "free"]}, {}),
        ({"plan": [None, "pro"]}, {"plan": ["pro", None]}, {}),
        ({"tags": [["a"], ["b"]]}, {"tags": [["b"], ["a"]]}, {}),
        ({"age": [1, 2]}, {"age": [2, True]}, {"age": [1, True]}),
        ({"plan": ["free", "pro"]}, {"age": [1, 2]}, {"plan": ["free", "pro"], "age": [1, 2]}),
        ({"plan": ["free", "pro"]}, {}, {"plan": ["free", "pro"]}),
        ({"plan": "pro"}, {"plan": ["pro", "max"]}, {"plan": ["pro", "max"]}),
        ({"plan": ["free", "pro"]}, {"plan": "max"}, {"plan": ["free", "pro"]}),
        ({"plan": {"old": 1}}, {"plan": [1, 2, 3]}, {"plan": [1, 2, 3]}),
        ({"plan": ["free", "pro"]}, None, {"plan": ["free", "pro"]}),
        ([["plan", 1]], {"plan": ["free", "pro"]}, {"plan": ["free", "pro"]}),
    ],
)
@pytest.mark.parametrize("of", ["user", "account"])
def test_the_oldest_old_and_the_newest_new_value_remain(of: str, older: Any, newer: Any, expected: Any) -> None:
    assert combined_changes(changing(**{of: older}), changing(**{of: newer}))[of] == expected


def test_which_value_is_the_oldest_is_a_matter_of_the_reports_not_of_receipt() -> None:
    new = {**user("new", indexed_at="2026-01-02T00:00:00Z"), "changes": {"user": {"plan": ["pro", "max"]}}}
    old = {**user("old", indexed_at="2026-01-01T00:00:00Z"), "changes": {"user": {"plan": ["free", "pro"]}}}

    assert combined_changes(new, old) == {"user": {"plan": ["free", "max"]}}


def test_a_reported_link_stays_reported() -> None:
    linked, moved_back = (changing(account={"id": pair}) for pair in ([None, "a1"], ["a1", None]))

    assert combined_changes(linked, changing(user={"x": [1, 2]}))["account"] == {"id": [None, "a1"]}
    assert account_linked(combine_messages(linked, moved_back))


@pytest.mark.parametrize("name", ["segments", "account_segments"])
@pytest.mark.parametrize(
    ("moves", "entered", "left"),
    [
        ([{"entered": [S1]}, {"left": [S1]}], [], []),
        ([{"left": [S1]}, {"entered": [S1]}], [], []),
        ([{"entered": [S1]}, {"entered": [S2]}], [S1, S2], []),
        ([{"entered": [S1]}, {"left": [S2]}], [S1], [S2]),
        ([{"entered": [S1]}, {"left": [S1]}, {"entered": [S1]}], [S1], []),
        ([{"left": [S1]}, {"entered": [S1]}, {"left": [S1]}], [], [S1]),
        ([{"entered": [S1]}, {"entered": [S1]}], [S1], []),
        ([{"entered": [S1, S2]}, {"left": [S2], "entered": []}], [S1], []),
        ([{"entered": ["s1"]}, {"left": [S1]}], [], []),
        ([{"entered": [S1], "left": None}, {"entered": {}, "left": [None, 7, {"id": []}]}], [S1], []),
        ([{"entered": [S1]}, None], [S1], []),
        ([[], {"left": [S1]}], [], [S1]),
    ],
)
def test_entries_and_exits_are_netted(name: str, moves: list[Any], entered: Any, left: Any) -> None:
    combined = combined_changes(*[changing(**{name: each}) for each in moves])

    assert combined[name] == {"entered": entered, "left": left}


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(True, False, True), (False, True, True), (False, None, False), ("yes", 1, False)]
)
def test_what_asks_for_the_record_stays_asked_for(first: Any, second: Any, expected: bool) -> None:
    one, two = ({"user": {"id": "u1"}, "is_export": flag, "changes": {"is_new": flag}} for flag in (first, second))
    combined = combine_messages(one, two)

    assert combined["is_export"] is expected
    assert combined["changes"]["is_new"] is expected


def test_an_export_has_no_changes_and_removes_none() -> None:
    export = {"user": {"id": "u1"}, "is_export": True}

    assert "changes" not in combine_messages(export, export)
    assert combined_changes(changing(user={"plan": [1, 2]}), export) == {"user": {"plan": [1, 2]}}
    assert combined_changes(export, changing(user={"plan": [1, 2]})) == {"user": {"plan": [1, 2]}}


def test_the_combined_messages_themselves_do_not_change() -> None:
    one = changing(user={"a": [1, 2]}, segments={"entered": [S1]})
    two = changing(user={"a": [2, 1]}, segments={"left": [S1]})
    kept = copy.deepcopy((one, two))

    combine_messages(one, two)

    assert (one, two) == kept


states = st.fixed_dictionaries(
    {
        "attributes": st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), max_size=4),
        "segments": st.sets(st.sampled_from(["s1", "s2", "s3"])),
        "account": st.none() | st.sampled_from(["a1", "a2"]),
        "is_export": st.booleans(),
    }
)


def linked(before: dict[str, Any], now: dict[str, Any], number: int) -> dict[str, Any]:
    """Return Hull's message about a User that changed from one state to another."""
    names = {*before["attributes"], *now["attributes"]}
    pairs = {name: [before["attributes"].get(name), now["attributes"].get(name)] for name in names}
    link = {} if before["account"] == now["account"] else {"id": [before["account"], now["account"]]}
    return {
        "user": {"id": "u1", **now["attributes"], "indexed_at": f"2026-01-01T00:00:{number:02}Z"},
        "account": {"id": now["account"]} if now["account"] else {},
        "segments": [{"id": each} for each in sorted(now["segments"])],
        "changes": {
            "is_new": number == 1,
            "user": {name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
            "account": link,
            "segments": {
                "entered": [{"id": each} for each in sorted(now["segments"] - before["segments"])],
                "left": [{"id": each} for each in sorted(before["segments"] - now["segments"])],
            },
        },
        "is_export": now["is_export"],
    }


def history(passed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [linked(before, now, number) for number, (before, now) in enumerate(pairwise(passed), 1)]


def ordered(message: dict[str, Any]) -> dict[str, Any]:
    """The same message with its segments in one order: the order of a list of moves has no meaning."""
    found = copy.deepcopy(message)
    for way in found["changes"]["segments"].values():
        way.sort(key=lambda segment: segment["id"])
    return found


def in_groups(messages: list[dict[str, Any]], draw: Any) -> dict[str, Any]:
    """Fold neighbours in an order of the draw's own, until one message is left."""
    left = list(messages)
    while len(left) > 1:
        at = draw.draw(st.integers(0, len(left) - 2))
        left[at : at + 2] = [combine_messages(left[at], left[at + 1])]
    return left[0]


@often
@given(st.lists(states, min_size=3, max_size=9), st.data())
def test_a_history_combined_in_any_groups_is_the_same(passed: list[dict[str, Any]], draw: Any) -> None:
    messages = history(passed)

    assert ordered(in_groups(messages, draw)) == ordered(reduce(combine_messages, messages))


@often
@given(st.lists(states, min_size=3, max_size=9))
def test_a_history_has_the_changes_between_its_ends(passed: list[dict[str, Any]]) -> None:
    combined = reduce(combine_messages, history(passed))
    whole = linked(passed[0], passed[-1], 0)

    assert combined["changes"]["user"] == whole["changes"]["user"]
    assert entered_ids(combined, Entity.PERSON) == entered_ids(whole, Entity.PERSON)
    assert combined["is_export"] is any(state["is_export"] for state in passed[1:])
    assert account_linked(combined) is any(one["account"] != other["account"] for one, other in pairwise(passed))
    assert segment_ids(combined, Entity.PERSON) == passed[-1]["segments"]


@often
@given(st.lists(states, min_size=3, max_size=8), st.randoms(use_true_random=False))
def test_in_whatever_order_they_arrive_the_newest_report_is_left(passed: list[dict[str, Any]], random: Any) -> None:
    messages = history(passed)
    newest = messages[-1]
    random.shuffle(messages)
    combined = reduce(combine_messages, messages)

    assert {name: combined[name] for name in ("user", "account", "segments")} == {
        name: newest[name] for name in ("user", "account", "segments")
    }


junk = st.dictionaries(
    st.sampled_from(["user", "account", "segments", "account_segments", "changes", "is_export"]),
    anything
    | st.dictionaries(
        st.sampled_from(["id", "user", "account", "segments", "account_segments", "is_new", "indexed_at"]),
        anything
        | st.dictionaries(
            st.sampled_from(["entered", "left", "id", "plan"]), anything | st.lists(anything, max_size=2)
        ),
    ),
)


@often
@given(st.lists(junk, min_size=2, max_size=4), st.data())
def test_nothing_is_too_strange_to_be_combined(messages: list[dict[str, Any]], draw: Any) -> None:
    combined = in_groups(messages, draw)

    assert combined["is_export"] is any(each.get("is_export") is True for each in messages)
    for entity in Entity:
        changed_attributes(combined, entity)


def test_values_nested_too_deeply_to_be_compared_are_taken_for_a_change() -> None:
    deep: Any = []
    for _ in range(20_000):
        deep = [deep]

    combined = combined_changes(changing(user={"x": [deep, 1]}), changing(user={"x": [1, [deep]]}))

    assert list(combined["user"]) == ["x"]
