"""Field by field, the winning value depends on the changes since both sides agreed, and on the field's owner."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.json_text import read_lenient, write_lenient
from pipeline.domain.kinds import Entity
from pipeline.domain.records import RULES, Delivered, Memory, OutgoingWrite
from pipeline.domain.settings import AttributeMapping, Owner
from pipeline.transform.conflicts import (
    LATE_S,
    ROUND_S,
    ConflictResolution,
    digest_of,
    find_overwritten_edits,
    find_reported,
    is_stale,
    is_update_loop,
    remember,
    resolve_conflicts,
    values_held_by_hull,
    with_report,
)
from pipeline.transform.hull_reports import combine_messages
from pipeline.transform.outgoing import OutgoingTransform, compile_outgoing
from tests.unit.transform.company import CODES, PERSON_FIELDS, ada_with, settings

NOW_S = 1_772_442_000
KINDS = ("varchar", "double", "enum")
OWNERS: tuple[Owner, ...] = get_args(Owner)
VALUES: dict[str, list[Any]] = {"varchar": ["a", "b", "c"], "double": [1, 2, 3], "enum": [1, 2, 3]}
"""Kind of field → the values that Pipedrive may hold. Hull has the label of an option."""
LABELS = {1: "Red", 2: "Green", 3: "Blue"}


def reported_value(kind: str, value: Any) -> Any:
    return LABELS[value] if kind == "enum" else value


def transform(owner: Owner = "hull", *, maps_back: bool = True) -> OutgoingTransform:
    """Three custom fields under attributes of the names of their kinds."""
    rows = tuple(AttributeMapping(hull=kind, service=CODES[kind], owner=owner) for kind in KINDS)
    back = tuple(AttributeMapping(hull=kind, service=CODES[kind]) for kind in KINDS) if maps_back else ()
    return compile_outgoing(Entity.PERSON, settings(*back, outgoing=rows), PERSON_FIELDS)


def record(values: dict[str, Any]) -> dict[str, Any]:
    """A Person that holds these values in the three fields, by kind."""
    return ada_with({kind: values[kind] for kind in KINDS})


def write_of(plan: OutgoingTransform, hull: dict[str, Any], pipedrive: dict[str, Any]) -> OutgoingWrite:
    return plan.write({kind: reported_value(kind, value) for kind, value in hull.items()}, record(pipedrive))


def agreed_on(plan: OutgoingTransform, values: dict[str, Any]) -> Memory:
    return remember(write_of(plan, values, values), Memory(), record(values), NOW_S - 3600)


def written(resolved: ConflictResolution) -> dict[str, Any]:
    """Kind → the value that is written."""
    custom = resolved.write.fields.get("custom_fields", {})
    return {kind: custom[CODES[kind]] for kind in KINDS if CODES[kind] in custom}


def test_a_value_of_a_faulty_rule_is_written_again_unless_it_was_changed() -> None:
    row = AttributeMapping(hull="day", service=CODES["date"])
    plan = compile_outgoing(Entity.PERSON, settings(outgoing=(row,)), PERSON_FIELDS)
    report = {"day": "2026-05-01T00:30:00+02:00"}
    wrong = plan.write(report, ada_with({"date": "2026-04-30"}))
    agreed = {CODES["date"]: (wrong.sides[CODES["date"]][0], digest_of("date", "2026-04-30"))}

    def written_by(rules: int, held: str) -> dict[str, Any]:
        write, memory = plan.write(report, ada_with({"date": held})), Memory(agreed=agreed, rules=rules)
        return resolve_conflicts(write, memory, {CODES["date"]: "hull"}, hull_is_newer=True, now_s=NOW_S).write.fields

    assert written_by(RULES - 1, "2026-04-30") == {"custom_fields": {CODES["date"]: "2026-05-01"}}
    assert written_by(RULES, "2026-04-30") == {}
    assert written_by(RULES - 1, "2026-06-30") == {}
    assert Memory.of(read_lenient(write_lenient(remember(wrong, Memory(), ada_with({}), NOW_S)))).rules == RULES


HULL_WRITES, LEFT_SILENTLY = "written", "left"


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("hull_is_newer", [True, False])
@pytest.mark.parametrize(
    ("hull", "pipedrive", "expected"),
    [
        ("b", "a", HULL_WRITES),
        ("a", "b", "changed_in_pipedrive"),
        ("a", "a", LEFT_SILENTLY),
        ("b", "b", LEFT_SILENTLY),
        ("b", "c", "by owner"),
    ],
    ids=["Hull's alone", "Pipedrive's alone", "neither", "both to the same", "both"],
)
def test_who_changed_it_decides_and_then_the_owner(
    owner: Owner, hull_is_newer: bool, hull: str, pipedrive: str, expected: str
) -> None:
    plan = transform(owner)
    agreement = {"varchar": "a", "double": 1, "enum": 1}
    write = write_of(plan, agreement | {"varchar": hull}, agreement | {"varchar": pipedrive})

    resolved = resolve_conflicts(
        write, agreed_on(plan, agreement), plan.owners, hull_is_newer=hull_is_newer, now_s=NOW_S
    )

    if expected == "by owner":
        hull_wins = owner == "hull" or (owner == "latest" and hull_is_newer)
        expected = HULL_WRITES if hull_wins else "owned_by_pipedrive"
    assert written(resolved) == ({"varchar": hull} if expected == HULL_WRITES else {})
    assert [problem.reason for problem in resolved.left] == (
        [] if expected in (HULL_WRITES, LEFT_SILENTLY) else [expected]
    )


@pytest.mark.parametrize("owner", OWNERS)
def test_where_nothing_was_agreed_both_have_changed(owner: Owner) -> None:
    plan = transform(owner)
    write = write_of(plan, {kind: VALUES[kind][0] for kind in KINDS}, {kind: VALUES[kind][1] for kind in KINDS})

    resolved = resolve_conflicts(write, Memory(), plan.owners, hull_is_newer=False, now_s=NOW_S)

    assert set(written(resolved)) == (set(KINDS) if owner == "hull" else set())


@pytest.mark.parametrize("owner", OWNERS)
def test_what_is_empty_on_both_sides_is_agreed_on(owner: Owner) -> None:
    plan = transform(owner)
    nothing: dict[str, Any] = dict.fromkeys(KINDS)
    memory = remember(plan.write({}, record(nothing)), Memory(), record(nothing), NOW_S - 60)

    resolved = resolve_conflicts(
        plan.write({"varchar": "a"}, record(nothing)), memory, plan.owners, hull_is_newer=False, now_s=NOW_S
    )

    assert written(resolved) == {"varchar": "a"}


def test_another_spelling_of_pipedrive_s_is_not_written_again() -> None:
    plan = transform()
    agreement = {"varchar": "a", "double": 1, "enum": 1}
    write = write_of(plan, agreement | {"varchar": "lowercase"}, agreement)
    memory = remember(write, agreed_on(plan, agreement), record(agreement | {"varchar": "LOWERCASE"}), NOW_S - 1)

    again = write_of(plan, agreement | {"varchar": "lowercase"}, agreement | {"varchar": "LOWERCASE"})
    resolved = resolve_conflicts(again, memory, plan.owners, hull_is_newer=True, now_s=NOW_S)

    assert resolved.write.is_empty
    assert resolved.left == ()


triples = st.fixed_dictionaries({kind: st.sampled_from(VALUES[kind]) for kind in KINDS})
owners = st.sampled_from(OWNERS)


@given(owner=owners, agreement=triples, hull=triples, pipedrive=triples, newer=st.booleans())
def test_a_resolved_and_remembered_field_needs_no_second_write(
    owner: Owner, agreement: dict[str, Any], hull: dict[str, Any], pipedrive: dict[str, Any], newer: bool
) -> None:
    plan = transform(owner)
    memory = agreed_on(plan, agreement)
    write = write_of(plan, hull, pipedrive)
    resolved = resolve_conflicts(write, memory, plan.owners, hull_is_newer=newer, now_s=NOW_S)
    holds = pipedrive | written(resolved)
    memory = remember(resolved.write, memory, record(holds), NOW_S)

    again = resolve_conflicts(write_of(plan, hull, holds), memory, plan.owners, hull_is_newer=newer, now_s=NOW_S)

    assert again.write.is_empty
    assert again.left == resolved.left
    assert again.loops == ()


@given(owner=owners, agreement=triples, hull=triples, pipedrive=triples)
def test_a_change_on_one_side_is_never_lost_with_any_owner(
    owner: Owner, agreement: dict[str, Any], hull: dict[str, Any], pipedrive: dict[str, Any]
) -> None:
    plan = transform(owner)
    resolved = resolve_conflicts(
        write_of(plan, hull, pipedrive), agreed_on(plan, agreement), plan.owners, hull_is_newer=False, now_s=NOW_S
    )

    for kind in KINDS:
        if pipedrive[kind] == agreement[kind] != hull[kind]:
            assert written(resolved)[kind] == hull[kind]
        if hull[kind] == agreement[kind]:
            assert kind not in written(resolved)


@given(owner=owners, agreement=triples, hull=triples, pipedrive=triples, newer=st.booleans())
def test_fields_are_decided_one_by_one(
    owner: Owner, agreement: dict[str, Any], hull: dict[str, Any], pipedrive: dict[str, Any], newer: bool
) -> None:
    """What becomes of a field depends neither on the other fields nor on their order."""
    plan = transform(owner)
    memory = agreed_on(plan, agreement)
    together = resolve_conflicts(write_of(plan, hull, pipedrive), memory, plan.owners, hull_is_newer=newer, now_s=NOW_S)

    alone: dict[str, Any] = {}
    for kind in reversed(KINDS):
        one = write_of(plan, pipedrive | {kind: hull[kind]}, pipedrive)
        alone |= written(resolve_conflicts(one, memory, plan.owners, hull_is_newer=newer, now_s=NOW_S))

    assert alone == written(together)


@given(owner=owners, agreement=triples, hull=triples, pipedrive=triples)
def test_a_field_that_is_not_mapped_back_is_always_written(
    owner: Owner, agreement: dict[str, Any], hull: dict[str, Any], pipedrive: dict[str, Any]
) -> None:
    """Without a mapping to Hull, the two would differ forever."""
    plan = transform(owner, maps_back=False)
    resolved = resolve_conflicts(
        write_of(plan, hull, pipedrive), agreed_on(plan, agreement), plan.owners, hull_is_newer=False, now_s=NOW_S
    )

    unlike = {kind: hull[kind] for kind in KINDS if hull[kind] != pipedrive[kind]}
    assert written(resolved) == {
        kind: value for kind, value in unlike.items() if _changed(kind, agreement, hull, pipedrive)
    }


def _changed(kind: str, agreement: dict[str, Any], hull: dict[str, Any], pipedrive: dict[str, Any]) -> bool:
    return bool(agreement[kind] != hull[kind] or agreement[kind] != pipedrive[kind])


def play(values: list[str], *, every_s: int, answers: str = "") -> list[str]:
    """Let Hull report one value after the other, and Pipedrive store it or `answers`; return the written values."""
    plan = transform()
    holds: dict[str, Any] = {"varchar": "first", "double": 1, "enum": 1}
    memory, sent = agreed_on(plan, holds), []
    for turn, value in enumerate(values):
        now_s = NOW_S + turn * every_s
        resolved = resolve_conflicts(
            write_of(plan, holds | {"varchar": value}, holds), memory, plan.owners, hull_is_newer=True, now_s=now_s
        )
        sent += written(resolved).values()
        answer = record(holds | written(resolved))
        memory = remember(resolved.write, memory, answer, now_s)
        holds |= written(resolved)
        if answers:
            holds |= {"varchar": answers}
    return sent


def test_values_that_come_back_are_written_twice_and_no_more() -> None:
    assert play(["X", "Y"] * 5, every_s=10) == ["X", "Y", "X", "Y"]
    assert play(["X", "x"] * 5, every_s=10, answers="x") == ["X", "X"]


def test_values_that_come_back_slowly_are_a_change_of_mind() -> None:
    assert play(["X", "Y"] * 3, every_s=ROUND_S) == ["X", "Y"] * 3
    assert play(["X", "Y", "Z"], every_s=10) == ["X", "Y", "Z"]


def test_an_update_loop_is_remembered_for_a_while() -> None:
    memory = Memory(recent=(("name", "d1", NOW_S - 20), ("name", "d1", NOW_S - 10)))

    assert is_update_loop(memory, NOW_S)
    assert not is_update_loop(memory, NOW_S + ROUND_S)


def iso(second: int) -> str:
    return f"2026-03-02T09:{second // 60:02d}:{second % 60:02d}Z"


AT = 1_772_442_000.0
"""The moment of `iso(0)`."""


def report(value: Any, second: int, before: Any = None) -> dict[str, Any]:
    """A message of Hull that its text attribute became another."""
    return {"user": {"varchar": value, "updated_at": iso(second)}, "changes": {"user": {"varchar": [before, value]}}}


def delivered(*words: tuple[str, int]) -> tuple[Delivered, ...]:
    return tuple(Delivered(at=AT + second, values={"varchar": value}) for value, second in words)


def listen(memory: Memory, message: dict[str, Any], words: tuple[Delivered, ...]) -> tuple[bool, Memory]:
    """Whether the report of the text is an echo, and the memory after it."""
    plan = transform()
    reported = find_reported(plan.targets, message, message["user"], memory, words)
    return reported.get(CODES["varchar"], (0.0, False))[1], with_report(memory, message["user"], reported)


def test_a_delivered_value_is_an_echo_until_hull_reports_another_one() -> None:
    words = delivered(("p", 10), ("q", 20))
    echoes, memory = [], Memory()
    for value, second in (("p", 10), ("p", 15), ("q", 20), ("q", 22), ("p", 30), ("h", 40), ("q", 50)):
        is_echo, memory = listen(memory, report(value, second), words)
        echoes.append((value, is_echo))

    assert echoes == [("p", True), ("p", True), ("q", True), ("q", True), ("p", False), ("h", False), ("q", False)]


def test_a_value_is_no_echo_long_after_the_delivery_of_another_one() -> None:
    words = delivered(("p", 10), ("q", 20))

    assert listen(Memory(), report("p", 20 + LATE_S - 1), words)[0]
    assert not listen(Memory(), report("p", 20 + LATE_S), words)[0]
    assert listen(Memory(), report("q", 20 + LATE_S), words)[0]


def test_an_overwritten_edit_is_found_in_the_combined_message() -> None:
    combined = combine_messages(report("h", 5, "a"), report("p", 10, "h"))
    words = delivered(("p", 10))
    edits = find_overwritten_edits(transform().targets, combined, words, Memory())

    assert {key: (edit.value, edit.at) for key, edit in edits.items()} == {CODES["varchar"]: ("h", int(AT + 5) * 1000)}
    assert listen(Memory(), combined, words)[0]


def test_an_edit_of_a_delivered_value_is_an_edit() -> None:
    combined = combine_messages(report("p", 10, "a"), report("h", 12, "p"))

    assert not listen(Memory(), combined, delivered(("p", 10)))[0]


def test_a_value_set_back_after_hull_reported_a_later_one_is_an_edit() -> None:
    combined = combine_messages(report("q", 20, "p"), report("p", 25, "q"))

    assert not listen(Memory(), combined, delivered(("p", 10), ("q", 20)))[0]


def test_hull_has_its_reported_value_unless_a_delivery_is_not_reported_yet() -> None:
    plan, user = transform(), report("h", 30)["user"]
    reported = Memory(reported={CODES["varchar"]: (AT + 20, False)})

    assert values_held_by_hull(plan.targets, user, delivered(("p", 10), ("q", 20)), reported)["varchar"] == "h"
    assert "varchar" not in values_held_by_hull(plan.targets, user, delivered(("p", 10), ("q", 25)), reported)


@pytest.mark.parametrize(("second", "is_old"), [(9, True), (10, False), (11, False)])
def test_a_report_is_stale_after_a_newer_processed_one(second: int, is_old: bool) -> None:
    _, memory = listen(Memory(), report("h", 10), ())

    assert is_stale(report("h", second)["user"], memory) is is_old
    assert not is_stale({}, memory)
    assert not is_stale(report("h", second)["user"], Memory())
