"""The values that scripts may send, and values of records in answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.domain.times import read_moment
from pipeline.operations.models import Moment, Value, find_unusable

NOW = datetime(2026, 11, 3, 14, tzinfo=UTC)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [None, 1, "ä<b>\u202e", {"a": [1, None, 2.5]}, nested(99)])
def test_a_value_is_unchanged(value: Any) -> None:
    assert TypeAdapter(Value).validate_python(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("\ud800 half", "\\ud800 half"),
        ({"\udfff": ["\ud800"]}, {"\\udfff": ["\\ud800"]}),
        (10**30, 10**30),
        (nested(400), "nested more than 100 levels deep"),
        (nested(20_000), "nested more than 100 levels deep"),
    ],
)
def test_values_that_json_cannot_carry_are_replaced(value: Any, expected: Any) -> None:
    adapter = TypeAdapter(Value)
    found = adapter.validate_python(value)

    assert found == expected
    assert adapter.dump_json(found)


@pytest.mark.parametrize("sent", [{"a": "\0"}, {"\0": 1}, ["\ud800"], {"a": [{"b": "x\udfff"}]}, nested(101)])
def test_unusable_values_are_found(sent: Any) -> None:
    assert find_unusable(sent)


def test_usable_values_are_accepted() -> None:
    assert find_unusable(orjson.loads('{"a": ["\\u202e", 1, null, {"b": "😀"}]}')) is None


@pytest.mark.parametrize(
    "given",
    ["yesterday", "999999d", "1999-01-01", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+14:00", "", 10**20, None],
)
def test_a_time_out_of_this_world_is_a_mistake(given: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python(given)


@pytest.mark.parametrize("given", ["2h", "3d", "2026-08-31", "2026-08-31T12:00+02:00"])
def test_a_time_is_taken_in_utc(given: str) -> None:
    assert TypeAdapter(Moment).validate_python(given).tzinfo is UTC


def test_so_long_ago_that_there_was_no_calendar() -> None:
    with pytest.raises(ValueError, match="is not a valid time"):
        read_moment("999999d", NOW)
