"""Staged data is unpacked as it was packed, whatever it contains."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.domain.records import FieldProblem, IncomingRecord
from pipeline.sync.staging import LeftOut, pack_page, pack_transformed, unpack_bodies, unpack_page, unpack_transformed

JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=20,
)


@given(some.lists(JSON), some.none() | some.integers(0, 2**62), some.none() | some.integers(0, 2**62))
def test_a_page_is_unpacked_as_it_was_packed(data: list[Any], above: int | None, below: int | None) -> None:
    body = json.dumps({"success": True, "data": data}).encode()

    assert unpack_page(pack_page(body, above=above, below=below)) == (data, above, below)


@pytest.mark.parametrize("text", ["\ud800", "a\nb", "\x00", "[1,2]\n", "\u2028"])
def test_odd_text_is_unpacked_as_it_was_packed(text: str) -> None:
    body = json.dumps({"data": [{"name": text}]}).encode()

    assert unpack_page(pack_page(body))[0] == [{"name": text}]


def test_a_page_takes_less_room_than_it_came_in() -> None:
    body = json.dumps({"data": [{"id": number, "name": "Ada Lovelace"} for number in range(500)]}).encode()

    assert len(pack_page(body)) < len(body) / 4


def staged_bodies(data: str) -> dict[int, bytes]:
    return unpack_bodies(pack_page(b'{"success": true, "data": %b}' % data.encode()))


def test_every_record_of_a_page_is_found_as_it_stood_there() -> None:
    assert staged_bodies('[{"id": 1, "name":  "Zo\u00eb"}, {"id":2}]') == {
        1: '{"id": 1, "name":  "Zo\u00eb"}'.encode(),
        2: b'{"id":2}',
    }


def test_of_two_records_with_one_id_the_later_is_the_newer() -> None:
    assert staged_bodies('[{"id":1,"name":"old"},{"id":1,"name":"new"}]') == {1: b'{"id":1,"name":"new"}'}


@pytest.mark.parametrize(
    "odd", ["true", "null", "[1]", '{"name":"no id"}', '{"id":true}', '{"id":"x"}', '{"id":1.5}', '{"id":[]}']
)
def test_what_has_no_id_does_not_hide_its_neighbours(odd: str) -> None:
    assert staged_bodies(f'[{odd},{{"id":7}}]') == {7: b'{"id":7}'}


def test_an_id_that_came_as_text_is_an_id() -> None:
    assert staged_bodies('[{"id":"7","name":"Ada"}]') == {7: b'{"id":"7","name":"Ada"}'}


def test_records_and_troubles_come_out_as_dicts() -> None:
    record = IncomingRecord(
        pipedrive_id=1,
        version=2,
        claims={"email": "a@example.com"},
        attributes={"name": "Ada", "phone": None},
        organization_id=3,
        digest="d",
        problems=(FieldProblem(field="x", reason="wrong_type", detail="no"),),
    )
    trouble = LeftOut(
        pipedrive_id=None, outcome="error", reason="no_id", detail="", field=None, payload='{"a": "\\ud800"}'
    )

    out = unpack_transformed(pack_transformed([record], [trouble], 7))

    assert out.settings_version == 7
    assert out.records[0]["problems"] == [{"field": "x", "reason": "wrong_type", "detail": "no"}]
    assert out.records[0]["attributes"] == {"name": "Ada", "phone": None}
    assert LeftOut(**out.troubles[0]) == trouble
