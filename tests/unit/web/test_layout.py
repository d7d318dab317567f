"""Functions of the layout."""

from __future__ import annotations

import pytest
from flask import Flask

from pipeline.web.console.layout import _with_hidden_shown, query_with


@pytest.mark.parametrize(
    ("asked", "changes", "expected"),
    [
        ("/failures?id=1&id=2&id=3", {}, "/failures?id=1&id=2&id=3"),
        ("/failures?id=1&id=2&state=open", {"state": "all"}, "/failures?id=1&id=2&state=all"),
        ("/failures?id=1&id=2&after=9", {"after": None}, "/failures?id=1&id=2"),
        ("/failures?id=1&id=2", {"id": 7}, "/failures?id=7"),
        ("/failures?after=9", {"after": None}, "/failures"),
    ],
)
def test_a_page_refreshes_itself_with_every_parameter_it_was_given(
    asked: str, changes: dict[str, object], expected: str
) -> None:
    with Flask(__name__).test_request_context(asked):
        assert query_with(**changes) == expected


def test_invisible_characters_are_shown_except_in_form_fields() -> None:
    page = (
        '<p title="a\u200bb">c\u200bd</p><textarea name="x">e\u200b<b>f\u200b</b></textarea>g\u200b'
        "<option>h\u200b</option><options>i\u200b</options>"
    )

    assert _with_hidden_shown(page) == (
        '<p title="a\u200bb">c\\u200bd</p><textarea name="x">e\u200b<b>f\u200b</b></textarea>g\\u200b'
        "<option>h\u200b</option><options>i\\u200b</options>"
    )
