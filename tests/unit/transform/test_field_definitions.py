from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.domain.fields import FieldCatalog, read_field_definitions
from pipeline.domain.kinds import Entity
from pipeline.transform.incoming import compile_incoming
from tests.data import PERSON_FIELDS
from tests.unit.transform.company import settings

HASH = "946947d1b02fd3ef20798d6112ec5d895a686a21"

V2_ENUM = {
    "field_code": HASH,
    "field_name": "Lead source",
    "field_type": "enum",
    "options": [{"id": 1, "label": "Inbound", "color": None}, {"id": 2, "label": "Outbound"}],
    "subfields": None,
    "is_custom_field": True,
    "is_optional_response_field": False,
}
V1_MONEY = {"id": 1, "key": HASH, "name": "Budget", "field_type": "monetary", "active_flag": True}
V1_CURRENCY = {"id": 2, "key": f"{HASH}_currency", "name": "Currency of Budget", "field_type": "varchar"}


def test_a_row_of_version_two_is_read() -> None:
    (field,) = read_field_definitions([V2_ENUM])

    assert (field.code, field.name, field.type, field.is_custom) == (HASH, "Lead source", "enum", True)
    assert dict(field.options) == {1: "Inbound", 2: "Outbound"}


def test_a_row_of_version_one_is_read() -> None:
    (field,) = read_field_definitions([V1_MONEY])

    assert (field.code, field.name, field.type, field.is_custom) == (HASH, "Budget", "monetary", True)


@pytest.mark.parametrize("rows", [[V1_MONEY, V1_CURRENCY], [V1_CURRENCY, V1_MONEY]])
def test_the_row_of_a_part_is_no_field(rows: list[object]) -> None:
    assert [field.code for field in read_field_definitions(rows)] == [HASH]


def test_a_row_marked_as_a_part_is_no_field() -> None:
    assert read_field_definitions([{**V1_CURRENCY, "is_subfield": True}]) == []


def test_a_deleted_field_is_no_field() -> None:
    assert read_field_definitions([{**V1_MONEY, "active_flag": False}]) == []


def test_options_may_have_words_as_ids() -> None:
    row = {
        "field_code": "status",
        "field_name": "S",
        "field_type": "status",
        "options": [{"id": "open", "label": "Open"}],
    }

    assert dict(read_field_definitions([row])[0].options) == {"open": "Open"}


@pytest.mark.parametrize("row", [None, 5, [], {}, {"field_code": HASH}, {"field_code": 5, "field_type": "int"}])
def test_what_cannot_be_read_is_left_out(row: object) -> None:
    assert [field.code for field in read_field_definitions([row, V2_ENUM])] == [HASH]


@pytest.mark.parametrize("options", [None, "x", [None], [{"id": 1}], [{"id": [1], "label": "x"}], [{"label": "x"}]])
def test_what_is_no_option_is_left_out(options: object) -> None:
    assert dict(read_field_definitions([{**V2_ENUM, "options": options}])[0].options) == {}


class TestTheRecordedFieldsOfARealCompany:
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(PERSON_FIELDS.read_text())["data"]
        return rows

    def test_are_all_read(self) -> None:
        fields = read_field_definitions(list(self.rows()))

        assert [field.code for field in fields] == [row["key"] for row in self.rows()]
        assert [field.name for field in fields if field.is_custom] == ["Description"]
        (label,) = (field for field in fields if field.code == "label")
        assert dict(label.options) == {1: "Customer", 2: "Hot lead", 3: "Warm lead", 4: "Cold lead"}

    def test_can_all_be_mapped(self) -> None:
        catalog = FieldCatalog.of(Entity.PERSON, read_field_definitions(list(self.rows())))
        rows = settings(*((f"pipedrive/{row['key']}", row["key"]) for row in self.rows()))

        transform = compile_incoming(Entity.PERSON, rows, catalog)

        record = {"id": 1, "update_time": "2026-02-01T09:30:00Z", "label_ids": [2], "custom_fields": {}}
        read = transform.read(record)
        assert transform.problems == ()
        assert read.attributes["pipedrive/label"] == ["Hot lead"]
