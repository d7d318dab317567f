from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline.domain.fields import FieldCatalog, FieldDefinition
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import AttributeMapping
from pipeline.domain.texts import list_readings
from pipeline.transform.incoming import compile_incoming
from pipeline.transform.outgoing import compile_outgoing
from tests.unit.transform.company import ADDRESS, CODES, PERSON_FIELDS, ada, ada_with, code_of, settings

DEEP: Any = "x"
for _ in range(300):
    DEEP = [DEEP]


def read(kind: str, value: object, **row: Any) -> Any:
    """Read one custom value; for a value that was left out, the reason of its problem."""
    mapping = AttributeMapping(hull="x", service=CODES[kind], **row)
    record = compile_incoming(Entity.PERSON, settings(mapping), PERSON_FIELDS).read(ada_with({kind: value}))
    if record.problems:
        assert "x" not in record.attributes
        return f"problem: {record.problems[0].reason}"
    return {name: value for name, value in record.attributes.items() if name != "pipedrive/id"}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("varchar", "short", {"x": "short"}),
        ("varchar", "Žluťoučký 🐎", {"x": "Žluťoučký 🐎"}),
        ("varchar_auto", "completed", {"x": "completed"}),
        ("text", "line\nline", {"x": "line\nline"}),
        ("phone", "+372 555", {"x": "+372 555"}),
        ("double", 12.5, {"x": 12.5}),
        ("double", 12.0, {"x": 12}),
        ("double", "12.50", {"x": 12.5}),
        ("double", "", {"x": None}),
        ("monetary", {"value": 500, "currency": "EUR"}, {"x": 500, "x_currency": "EUR"}),
        ("monetary", {"value": None, "currency": None}, {"x": None, "x_currency": None}),
        ("monetary", 500, {"x": 500}),
        ("enum", 2, {"x": "Green"}),
        ("enum", "2", {"x": "Green"}),
        ("enum", {"id": 2, "label": "Green"}, {"x": "Green"}),
        ("enum", {"id": 2, "label": "An older label"}, {"x": "Green"}),
        ("enum", {"id": 99, "label": "Brand new"}, {"x": "Brand new"}),
        ("set", [3, 1], {"x": ["Red", "Blue"]}),
        ("set", [1, 3], {"x": ["Red", "Blue"]}),
        ("set", [{"id": 3, "label": "Blue"}], {"x": ["Blue"]}),
        ("set", "1,3", {"x": ["Red", "Blue"]}),
        ("set", [], {"x": None}),
        ("date", "2026-01-31", {"x": "2026-01-31"}),
        ("daterange", {"value": "2026-01-01", "until": "2026-02-01"}, {"x": "2026-01-01", "x_until": "2026-02-01"}),
        ("time", {"value": "09:00:00", "timezone_id": 318}, {"x": "09:00:00"}),
        ("time", "09:00", {"x": "09:00:00"}),
        ("timerange", {"value": "09:00:00", "until": "11:30:00"}, {"x": "09:00:00", "x_until": "11:30:00"}),
        ("daterange", "2026-01-01", {"x": "2026-01-01"}),
        ("daterange", {"value": "2026-01-01"}, {"x": "2026-01-01"}),
        ("daterange", {"value": None, "until": None}, {"x": None, "x_until": None}),
        ("address", ADDRESS, {"x": "Mustamae tee 3a, Tallinn"}),
        ("address", {"value": "", "formatted_address": "Tee 3"}, {"x": "Tee 3"}),
        ("address", "Tee 3", {"x": "Tee 3"}),
        ("user", 12415231, {"x": 12415231}),
        ("user", {"id": 7, "name": "Owner"}, {"x": 7}),
        ("people", {"value": 77, "name": "Bo"}, {"x": 77}),
        ("org", 88, {"x": 88}),
    ],
)
def test_every_type_of_field_becomes_what_hull_takes(kind: str, value: object, expected: object) -> None:
    assert read(kind, value) == expected


@pytest.mark.parametrize(
    "kind",
    ["varchar", "text", "double", "enum", "set", "date", "time", "address", "user", "people", "org", "phone"],
)
def test_an_empty_field_of_every_type_is_none(kind: str) -> None:
    assert read(kind, None) == {"x": None}


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("varchar", 5, "wrong_type"),
        ("varchar", ["a"], "wrong_type"),
        ("varchar", "a\0b", "unusable_text"),
        ("varchar", "half \ud83d pair", "unusable_text"),
        ("varchar", "x" * 2_001, "too_long"),
        ("varchar", "x" * 1_000_000, "too_long"),
        ("text", "ж" * 1_001, "too_long"),
        ("double", math.nan, "wrong_type"),
        ("double", math.inf, "wrong_type"),
        ("double", 2**64, "wrong_type"),
        ("double", "9" * 5_000, "wrong_type"),
        ("double", "1e999", "wrong_type"),
        ("double", "many", "wrong_type"),
        ("double", True, "wrong_type"),
        ("monetary", {"value": "x" * 50, "currency": "EUR"}, "wrong_type"),
        ("monetary", [1], "wrong_type"),
        ("enum", 99, "option_unknown"),
        ("enum", True, "wrong_type"),
        ("enum", [2], "wrong_type"),
        ("set", [1, 99], "option_unknown"),
        ("set", [[1]], "wrong_type"),
        ("set", 1.5, "wrong_type"),
        ("date", "31.01.2026", "wrong_type"),
        ("date", "0000-00-00", "wrong_type"),
        ("date", 20260131, "wrong_type"),
        ("daterange", {"value": "soon", "until": "2026-01-01"}, "wrong_type"),
        ("time", {"value": "25:00:00"}, "wrong_type"),
        ("address", {"value": 5}, "wrong_type"),
        ("address", {"value": "x" * 3_000}, "too_long"),
        ("user", [1], "wrong_type"),
        ("user", {"owner": {"id": 7}}, "wrong_type"),
        ("people", {"value": {"name": "Bo"}}, "wrong_type"),
        ("enum", {"label": "Green"}, "wrong_type"),
        ("monetary", {"amount": 5}, "wrong_type"),
        ("daterange", {"start": "2026-01-01", "end": "2026-02-01"}, "wrong_type"),
        ("time", {"at": "09:00"}, "wrong_type"),
        ("address", {"text": "Tee 3"}, "wrong_type"),
        ("user", 2**70, "wrong_type"),
    ],
)
def test_a_wrong_value_is_named_and_only_its_field_stays_behind(kind: str, value: object, reason: str) -> None:
    rows = settings(("x", CODES[kind]), ("pipedrive/name", "name"))

    record = compile_incoming(Entity.PERSON, rows, PERSON_FIELDS).read(ada_with({kind: value}))

    assert {(problem.field, problem.reason) for problem in record.problems} == {(CODES[kind], reason)}
    assert "x" not in record.attributes
    assert record.attributes["pipedrive/name"] == "Ada Lovelace"


def test_a_text_of_exactly_hulls_limit_passes() -> None:
    assert read("varchar", "x" * 2_000) == {"x": "x" * 2_000}


def test_problems_never_repeat_the_value() -> None:
    record = compile_incoming(Entity.PERSON, settings(("x", CODES["date"])), PERSON_FIELDS).read(
        ada_with({"date": "secret"})
    )

    assert "secret" not in record.problems[0].detail


@pytest.mark.parametrize(("value", "expected"), [(2, 2), ("2", 2), ({"id": 2, "label": "Green"}, 2), (99, 99)])
def test_an_option_is_its_id_on_request(value: object, expected: int) -> None:
    assert read("enum", value, form="id") == {"x": expected}


def test_a_set_is_its_ids_on_request() -> None:
    assert read("set", [3, {"id": 1}], form="id") == {"x": [1, 3]}


@pytest.mark.parametrize(
    ("emails", "primary", "every"),
    [
        ([], None, None),
        ([{"value": "", "primary": True}], None, None),
        ([{"value": "a@x.test"}, {"value": "b@x.test", "primary": True}], "b@x.test", ["a@x.test", "b@x.test"]),
        ([{"value": ""}, {"value": "b@x.test"}], "b@x.test", ["b@x.test"]),
        ([{"value": "a@x.test"}, {"value": "", "primary": True}], "a@x.test", ["a@x.test"]),
        ("a@x.test", "a@x.test", ["a@x.test"]),
        (["a@x.test", "b@x.test"], "a@x.test", ["a@x.test", "b@x.test"]),
    ],
)
def test_emails_are_the_primary_or_the_whole_list(emails: object, primary: object, every: object) -> None:
    rows = (AttributeMapping(hull="one", service="email"), AttributeMapping(hull="all", service="email", form="list"))

    record = compile_incoming(Entity.PERSON, settings(*rows), PERSON_FIELDS).read(ada(emails=emails))

    assert (record.attributes["one"], record.attributes["all"]) == (primary, every)


def test_emails_of_which_no_value_is_shown_empty_nothing() -> None:
    rows = (AttributeMapping(hull="one", service="email"), AttributeMapping(hull="all", service="email", form="list"))

    record = compile_incoming(Entity.PERSON, settings(*rows), PERSON_FIELDS).read(ada(emails=[{"address": "a@x.test"}]))

    assert (record.attributes.keys() & {"one", "all"}, record.problems[0].reason) == (set(), "wrong_type")


@pytest.mark.parametrize(
    ("value", "reason"), [(DEEP, "wrong_type"), (["x" * 3_000], "too_long"), (["\0"], "unusable_text")]
)
def test_a_field_of_an_unheard_of_type_passes_if_it_is_small_and_sound(value: object, reason: str) -> None:
    code = code_of("hologram")
    catalog = FieldCatalog.of(
        Entity.PERSON, [FieldDefinition(code=code, name="Hologram", type="hologram", is_custom=True)]
    )
    transform = compile_incoming(Entity.PERSON, settings(("x", code)), catalog)
    record = ada()

    record["custom_fields"][code] = {"a": [1]}
    assert transform.read(record).attributes["x"] == {"a": [1]}
    record["custom_fields"][code] = ["not a NUL: \\u0000"]
    assert transform.read(record).problems == ()
    record["custom_fields"][code] = value
    assert [problem.reason for problem in transform.read(record).problems] == [reason]


@pytest.mark.parametrize(
    ("value", "read_as", "reported", "written"),
    [
        (2, "Green", "Blue", 3),
        ("2", "Green", "Blue", 3),
        ({"id": 2, "label": "?"}, "Green", "Blue", 3),
        ([3, 1], ["Red", "Blue"], ["Green"], [2]),
        ([{"id": 1}], ["Red"], "Red,Blue", [1, 3]),
    ],
)
def test_a_field_of_an_unheard_of_type_is_read_and_written_by_its_options(
    value: Any, read_as: Any, reported: Any, written: Any
) -> None:
    code = code_of("hologram")
    options: dict[int | str, str] = {1: "Red", 2: "Green", 3: "Blue"}
    field = FieldDefinition(code=code, name="Hologram", type="hologram", is_custom=True, options=options)
    catalog, rows = FieldCatalog.of(Entity.PERSON, [field]), settings(("x", code), outgoing=(("x", code),))
    record = ada()
    record["custom_fields"][code] = value

    assert compile_incoming(Entity.PERSON, rows, catalog).read(record).attributes["x"] == read_as
    write = compile_outgoing(Entity.PERSON, rows, catalog).write
    assert write({"x": reported}, record).fields == {"custom_fields": {code: written}}
    assert write({"x": read_as}, record).is_empty


@pytest.mark.parametrize("value", [5, 5.5, True, "text", ["a", "b"]])
def test_a_field_of_an_unheard_of_type_without_options_takes_the_value_as_it_is(value: Any) -> None:
    code = code_of("hologram")
    field = FieldDefinition(code=code, name="Hologram", type="hologram", is_custom=True)
    rows = settings(outgoing=(("x", code),), claims=())
    write = compile_outgoing(Entity.PERSON, rows, FieldCatalog.of(Entity.PERSON, [field])).write

    assert write({"x": value}, ada()).fields == {"custom_fields": {code: value}}


def test_a_label_that_was_renamed_is_delivered_under_its_new_name() -> None:
    renamed = FieldDefinition(code=CODES["enum"], name="enum", type="enum", is_custom=True, options={2: "Emerald"})
    rows = settings(("x", CODES["enum"]))
    before = compile_incoming(Entity.PERSON, rows, PERSON_FIELDS)
    after = compile_incoming(Entity.PERSON, rows, FieldCatalog.of(Entity.PERSON, [renamed]))

    assert after.read(ada()).attributes["x"] == "Emerald"
    assert after.fingerprint != before.fingerprint
    assert after.read(ada()).digest != before.read(ada()).digest


def test_a_long_list_of_one_option_is_read_in_linear_time() -> None:
    """Twice as long a text took four times as long: a minute for what one attribute of Hull may hold."""
    assert list_readings("A,B," * 30_000, {"A": 1, "B": 2}.get, 0) == [[1, 2]]
