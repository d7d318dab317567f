"""Which Accounts are sent because a User links to them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.transform.outgoing_filter import account_to_send
from tests.unit.transform.test_properties import anything, often

ACCOUNT = {"id": "a1", "name": "Acme", "domain": "acme.test"}
BIG = {"id": "big", "name": "Big ones"}
INSIDE = {"user": {"id": "u1"}, "segments": [{"id": "s1"}], "account": ACCOUNT, "account_segments": [BIG]}


def settings(**more: Any) -> ConnectorSettings:
    chosen = {
        "synchronized_user_segments": ["s1"],
        "synchronized_account_segments": ["big"],
        "link_users_in_service": True,
    }
    return read_settings(chosen | more)


def test_the_account_is_sent_with_its_segments() -> None:
    assert account_to_send(INSIDE, settings()) == {
        "account": ACCOUNT,
        "account_segments": [BIG],
        "account_segment_ids": ["big"],
        "changes": {},
        "is_export": False,
    }


def test_ids_of_segments_do_where_there_is_no_list() -> None:
    given = {**INSIDE, "account_segment_ids": ["small", "big"]}
    del given["account_segments"]

    found = account_to_send(given, settings())

    assert found is not None
    assert found["account_segments"] == [{"id": "big"}, {"id": "small"}]
    assert found["account_segment_ids"] == ["big", "small"]


@pytest.mark.parametrize(
    ("given", "chosen", "is_sent"),
    [
        ({}, {}, True),
        ({}, {"link_users_in_service": False}, False),
        ({"account": {}}, {}, False),
        ({"account": None}, {}, False),
        ({"account": [ACCOUNT]}, {}, False),
        ({"account": {**ACCOUNT, "pipedrive/id": 44}}, {}, True),
        ({"account": {**ACCOUNT, "traits_pipedrive/id": "44"}}, {}, True),
        ({"account": {**ACCOUNT, "pipedrive/id": None}}, {}, True),
        ({"account": {**ACCOUNT, "pipedrive/id": ""}}, {}, True),
        ({"segments": [{"id": "s2"}]}, {}, False),
        ({"segments": [{"id": "s2"}]}, {"synchronized_user_segments": ["ALL"]}, True),
        ({"account_segments": []}, {}, False),
        ({"account_segments": []}, {"synchronized_account_segments": ["ALL"]}, True),
        ({"account_segments": None}, {}, False),
        ({"account_segments": [{"id": "small"}]}, {}, False),
        ({"account_segments": [{"id": "small"}], "segments": [], "is_export": True}, {}, False),
        ({"account_segments": [], "is_export": True}, {}, False),
        ({"segments": [], "is_export": True}, {}, True),
    ],
)
def test_only_one_that_both_filters_let_through(given: Any, chosen: Any, is_sent: bool) -> None:
    found = account_to_send({**INSIDE, **given}, settings(**chosen))

    assert (found is not None) == is_sent
    assert found is None or found["is_export"] is False


@pytest.mark.parametrize("segments", [[], ["other"]])
def test_an_export_that_is_silent_about_segments_takes_the_account_along(segments: list[str]) -> None:
    export = {"user": {"id": "u1"}, "segments": [], "account": ACCOUNT, "is_export": True}

    found = account_to_send(export, settings(synchronized_account_segments=segments))

    assert found is not None
    assert (found["is_export"], found["account_segments"]) == (True, [])


@often
@given(st.dictionaries(st.sampled_from([*INSIDE, "account_segment_ids", "is_export"]), anything))
def test_nothing_is_too_strange(given: dict[str, Any]) -> None:
    found = account_to_send({**INSIDE, **given}, settings())

    assert found is None or isinstance(found["account"], dict)
