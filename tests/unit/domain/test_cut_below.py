"""What lies deeper than some level is cut off; everything else stays as it is, byte for byte."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.json_text import cut_below, is_nested_deeper

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text('[]{}"\\,:aü', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\a', max_size=3), inner, max_size=3),
    max_leaves=12,
)


def cut(value: object, levels: int) -> object:
    if isinstance(value, dict | list) and levels == 0:
        return None
    if isinstance(value, dict):
        return {name: cut(each, levels - 1) for name, each in value.items()}
    return [cut(each, levels - 1) for each in value] if isinstance(value, list) else value


@given(VALUES, st.integers(1, 4))
def test_no_more_levels_are_left_than_wanted(value: object, levels: int) -> None:
    body = orjson.dumps(value)

    left = cut_below(body, levels)

    assert orjson.loads(left) == cut(value, levels)
    assert not is_nested_deeper(orjson.loads(left), levels)
    if cut(value, levels) == value:
        assert left == body


@pytest.mark.parametrize("body", [b"", b"[[[", b"]]]", b'"[[[', b"{]}[", b"\xff[\x00"])
def test_what_is_no_json_breaks_nothing(body: bytes) -> None:
    assert isinstance(cut_below(body, 1), bytes)


def test_a_text_that_does_not_end_is_looked_at_once() -> None:
    """A search that begins again at each quote in it takes the square of its length: hours for one megabyte."""
    body = b'["' + b'\\"' * 500_000

    assert cut_below(body, 1) == body


def test_a_body_of_very_many_brackets_is_given_up() -> None:
    assert cut_below(b"[" * 100, 1, most=50) == b"[" * 100
