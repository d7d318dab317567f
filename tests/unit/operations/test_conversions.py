"""Descriptions of mapping rows, and their effect on a real record."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.fields import FieldCatalog, FieldDefinition
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import AttributeMapping
from pipeline.operations.conversions import CHANGES, NOTHING, PROBLEM, SAME, convert, describe_row, row_words
from pipeline.operations.fields import choices_of

TIER, LIMIT, HOME = "a" * 40, "b" * 40, "c" * 40
CATALOG = FieldCatalog.of(
    Entity.PERSON,
    [
        FieldDefinition(code="name", name="Name", type="varchar"),
        FieldDefinition(code="email", name="Email", type="varchar"),
        FieldDefinition(code="add_time", name="Created", type="date"),
        FieldDefinition(code=TIER, name="Tier", type="enum", is_custom=True, options={1: "Gold", 2: "Silver"}),
        FieldDefinition(code=LIMIT, name="Credit limit", type="monetary", is_custom=True),
        FieldDefinition(code=HOME, name="Home", type="address", is_custom=True),
    ],
)
ADA: dict[str, Any] = {
    "id": 7,
    "name": "Ada Lovelace",
    "update_time": "2026-11-03T10:00:00Z",
    "emails": [{"value": "ada@acme.test", "primary": True}, {"value": "a@home.test", "primary": False}],
    "custom_fields": {TIER: 1, LIMIT: {"value": 500, "currency": "EUR"}, HOME: None},
}


def row(hull: str, service: str, **rules: Any) -> AttributeMapping:
    return AttributeMapping(hull=hull, service=service, **rules)


WORDS = [
    (row("tier", TIER), Direction.INCOMING, ("Tier", "enum", "string", "the option's label")),
    (row("tier", TIER, form="id"), Direction.INCOMING, ("Tier", "enum", "string", "the option's id")),
    (row("mail", "email"), Direction.INCOMING, ("Email", "emails", "string", "the address marked as primary")),
    (row("mails", "email", form="list"), Direction.INCOMING, ("Email", "emails", "list", "the whole list")),
    (
        row("limit", LIMIT),
        Direction.INCOMING,
        ("Credit limit", "money", "number", "the amount as a number, and the currency as limit_currency"),
    ),
    (
        row("home", HOME, parts=("locality",)),
        Direction.INCOMING,
        ("Home", "address", "string", "the address as one text, and home_locality as separate attributes"),
    ),
    (
        row("cur", f"{LIMIT}_currency"),
        Direction.INCOMING,
        ("Credit limit: currency", "currency", "string", "only its currency"),
    ),
]


@pytest.mark.parametrize(("mapping", "direction", "expected"), WORDS)
def test_a_row_is_described(mapping: AttributeMapping, direction: Direction, expected: tuple[str, ...]) -> None:
    described = describe_row(mapping, direction, CATALOG)

    assert (described.field, described.type, described.hull_type, described.does) == expected
    assert described.mistake == ""


def test_a_row_without_an_effect_is_a_mistake() -> None:
    assert "no Person field 'nmae'" in describe_row(row("a", "nmae"), Direction.INCOMING, CATALOG).mistake
    assert "Created cannot be written" in describe_row(row("a", "add_time"), Direction.OUTGOING, CATALOG).mistake
    assert row_words(row("traits_plan", TIER), Direction.OUTGOING, CATALOG) == "plan → Tier"


def test_a_value_is_shown_before_and_after_on_its_way_in() -> None:
    tier = convert(row("tier", TIER), Direction.INCOMING, CATALOG, record=ADA, report=None)
    mail = convert(row("mail", "email"), Direction.INCOMING, CATALOG, record=ADA, report=None)
    limit = convert(row("limit", LIMIT), Direction.INCOMING, CATALOG, record=ADA, report=None)

    assert (tier.state, tier.before, tier.after) == (CHANGES, 1, "Gold")
    assert (mail.before, mail.after) == ("ada@acme.test, a@home.test", "ada@acme.test")
    assert (limit.before, limit.after, limit.beside) == ("500 EUR", 500, {"limit_currency": "EUR"})


def test_empty_values_are_described() -> None:
    cleared = convert(row("home", HOME), Direction.INCOMING, CATALOG, record=ADA, report=None)
    left = convert(row("home", HOME, on_null="ignore"), Direction.INCOMING, CATALOG, record=ADA, report=None)

    assert (cleared.state, left.state) == (NOTHING, NOTHING)
    assert ("cleared in Hull" in cleared.words, "keeps" in left.words) == (True, True)


def test_an_option_that_is_none_is_a_problem_with_a_name() -> None:
    report = {"id": "u1", "plan": "platinum"}

    found = convert(row("plan", TIER), Direction.OUTGOING, CATALOG, record=ADA, report=report)

    assert (found.state, found.before, found.words, found.reason) == (
        PROBLEM,
        "platinum",
        "no such option",
        "option_unknown",
    )


def test_a_value_is_shown_before_and_after_on_its_way_out() -> None:
    changes = convert(row("plan", TIER), Direction.OUTGOING, CATALOG, record=ADA, report={"traits_plan": "silver"})
    same = convert(row("plan", TIER), Direction.OUTGOING, CATALOG, record=ADA, report={"plan": "Gold"})
    absent = convert(row("plan", TIER), Direction.OUTGOING, CATALOG, record=ADA, report={})
    clears = convert(row("plan", TIER), Direction.OUTGOING, CATALOG, record=ADA, report={"plan": None})
    ignored = convert(row("plan", TIER, on_null="ignore"), Direction.OUTGOING, CATALOG, record=ADA, report={})

    assert (changes.state, changes.before, changes.after) == (CHANGES, "silver", "Silver")
    assert (same.state, same.after) == (SAME, "Gold")
    assert (ignored.state, ignored.words) == (NOTHING, "Hull has no value: not changed")
    for one in (absent, clears):
        assert (one.state, one.words) == (
            NOTHING,
            "Hull has no value: cleared if Hull filled it before, otherwise not changed",
        )


@pytest.mark.parametrize("record", [{}, {"id": "x"}, {"id": 7}, {"id": 7, "is_deleted": True, "update_time": 1}])
def test_a_record_that_cannot_be_read_is_a_problem_not_a_crash(record: dict[str, Any]) -> None:
    assert convert(row("tier", TIER), Direction.INCOMING, CATALOG, record=record, report=None).state == PROBLEM


def test_without_a_record_nothing_is_shown() -> None:
    for direction in Direction:
        assert convert(row("tier", TIER), direction, CATALOG, record=None, report=None).state == NOTHING


def test_fields_are_offered_by_name_and_whether_they_take_a_value() -> None:
    offered = {each.name: each for each in choices_of(CATALOG)}

    assert list(offered) == ["Name", "Email", "Created", "Tier", "Credit limit", "Home"]
    assert (offered["Created"].is_writable, offered["Tier"].is_writable) == (False, True)
    assert (offered["Tier"].options, offered["Tier"].is_custom) == (["Gold", "Silver"], True)
