"""What counts as the same value in Pipedrive and in Hull, and how a record's three sides are judged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.drift import Drift, HullRecord, MappedRecord
from pipeline.domain.records import IncomingRecord
from pipeline.transform.comparison import (
    canonical,
    differences,
    digest,
    drift_of_absent,
    find_drift,
    holders,
    read_hull_record,
    sides_agree,
)


@pytest.mark.parametrize(
    ("name", "here", "there"),
    [
        ("size", 12, "12"),
        ("size", 12.0, 12),
        ("is_ours", True, "true"),
        ("note", "", None),
        ("labels", [], None),
        ("labels", ["a", None, "b"], ["a", "b"]),
        ("won_at", "2026-02-01T10:00:00+01:00", "2026-02-01T09:00:00Z"),
        ("won_at", 1_769_936_400, "2026-02-01T09:00:00Z"),
        ("won_at", 1_769_936_400_000.0, "2026-02-01T09:00:00Z"),
        ("birth_date", "2026-02-01", "2026-02-01T00:00:00Z"),
        ("email", "Ada@Example.com ", "ada@example.com"),
        ("domain", "https://www.acme.com/about", "acme.com"),
        ("place", {"b": 1, "a": 2}, {"a": 2.0, "b": "1"}),
    ],
)
def test_hull_may_spell_a_value_its_own_way(name: str, here: Any, there: Any) -> None:
    assert canonical(name, here) == canonical(name, there)


@pytest.mark.parametrize(
    ("name", "here", "there"),
    [
        ("size", 12, 13),
        ("size", 1, True),
        ("note", "a", "A"),
        ("note", "2026-02-01", "2026-02-01T00:00:00Z"),
        ("labels", ["a", "b"], ["b", "a"]),
        ("won_at", "2026-02-01T09:00:00Z", "2026-02-01T09:00:01Z"),
        ("won_at", "soon", "later"),
        ("size", 0, None),
        ("is_ours", False, None),
    ],
)
def test_other_values_differ(name: str, here: Any, there: Any) -> None:
    assert canonical(name, here) != canonical(name, there)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_every_value_has_one_form(value: Any) -> None:
    for name in ("any", "any_at", "email", "domain"):
        assert canonical(name, value) == canonical(name, value)
        digest([canonical(name, value)])


def record(**members: Any) -> IncomingRecord:
    given_members = {"pipedrive_id": 7, "version": 1, "claims": {}, "organization_id": None, "digest": "d"}
    attributes = members.pop("attributes", {"name": "Ada", "pipedrive/id": 7})
    return IncomingRecord(**given_members | members, attributes=attributes)


def held(**members: Any) -> HullRecord:
    report = {"id": "h7", "anonymous_ids": ["pipedrive:7"], "pipedrive/id": 7, "name": "Ada", "account": {}}
    return read_hull_record(report | members, ["name", "phone", "pipedrive/id"])


def mapped(**members: Any) -> MappedRecord:
    row = {"pipedrive_id": 7, "hull_id": "h7", "state": "full", "digest": "d", "is_fresh": False}
    return MappedRecord(**row | {"delivered": frozenset({"name"})} | members)


def kinds(*sides: Any, link: bool = True) -> list[Drift]:
    return [finding.kind for finding in find_drift(*sides, link=link)]


def test_a_record_in_step_has_nothing_wrong() -> None:
    assert kinds(record(), held(), mapped()) == []
    assert sides_agree({7: record()}, {7: held()}, {7: mapped()}, link=True)


@pytest.mark.parametrize(
    ("sides", "found"),
    [
        ((record(), None, mapped()), [Drift.MISSING]),
        ((record(), None, None), [Drift.MISSING]),
        ((record(), held(name="Eve"), mapped()), [Drift.DIFFERENT]),
        ((record(organization_id=3), held(), mapped()), [Drift.UNLINKED]),
        ((record(organization_id=3), held(account={"pipedrive/id": 4}), mapped()), [Drift.UNLINKED]),
        ((record(organization_id=3), held(account={"anonymous_ids": ["pipedrive:3"]}), mapped()), []),
        ((record(), held(), None), [Drift.UNMAPPED]),
        ((record(), held(), mapped(state="gone")), [Drift.UNMAPPED]),
        ((record(), held(), mapped(hull_id="h8")), [Drift.MISMAPPED]),
        ((record(), held(), mapped(hull_id=None)), []),
        ((record(organization_id=3), held(name="Eve"), None), [Drift.DIFFERENT, Drift.UNLINKED, Drift.UNMAPPED]),
    ],
)
def test_what_is_wrong_is_named(sides: Any, found: list[Drift]) -> None:
    assert kinds(*sides) == found
    there, row = {7: sides[1]} if sides[1] else {}, {7: sides[2]} if sides[2] else {}
    assert not (found and sides_agree({7: sides[0]}, there, row, link=True)), "a digest must not hide what is wrong"


def test_a_null_counts_only_where_a_value_was_delivered() -> None:
    empty = record(attributes={"phone": None, "pipedrive/id": 7})

    assert list(differences(empty, held(phone="1"), frozenset())) == []
    assert [each.attribute for each in differences(empty, held(phone="1"), frozenset({"phone"}))] == ["phone"]


def test_a_name_that_hull_makes_itself_is_not_ours_to_judge() -> None:
    assert kinds(record(), held(first_name="Ada", last_name="Berg", name="Ada Berg"), mapped()) == []
    assert kinds(record(), held(first_name="Ada", last_name="Berg", name="Eve"), mapped()) == [Drift.DIFFERENT]


@pytest.mark.parametrize(
    ("there", "row", "extra"),
    [
        (held(), mapped(), True),
        (held(), None, True),
        (None, mapped(), True),
        (None, None, False),
        (held(), mapped(state="deleted"), False),
        (held(), mapped(state="shell"), False),
        (held(**{"pipedrive/deleted_at": "2026-02-01T00:00:00Z"}), mapped(), False),
    ],
)
def test_an_id_that_pipedrive_does_not_have(there: HullRecord | None, row: MappedRecord | None, extra: bool) -> None:
    assert (drift_of_absent(7, there, row) is not None) is extra


def test_another_record_with_our_id_is_distinguished_from_our_own() -> None:
    stranger = held(id="h9", anonymous_ids=[])

    for order in ([held(), stranger], [stranger, held()]):
        chosen, doubles = holders(order, {7})
        assert chosen[7].hull_id == "h7"
        assert [(key, each.hull_id) for key, each in doubles] == [(7, "h9")]
    foreign = drift_of_absent(7, stranger, None)
    assert foreign is not None
    assert not foreign.is_ours


def test_digests_do_not_depend_on_the_order() -> None:
    assert digest([1, "a"]) == digest(["a", 1])
    assert digest([1]) != digest([1, 1])
