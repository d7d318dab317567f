"""Every rule of attribute writing, as a table: what was stored, what is sent, what is stored then."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.hull.sender import Hull, account_message, user_message

ADA = {"email": "ada@acme.com"}


def op(operation: str, value: object) -> dict[str, Any]:
    return {"operation": operation, "value": value}


@pytest.mark.parametrize(
    ("before", "sent", "after"),
    [
        pytest.param({}, {"pipedrive/id": 12}, {"pipedrive/id": 12}, id="a bare value is set"),
        pytest.param({"x": 1}, {"x": op("set", 2)}, {"x": 2}, id="set"),
        pytest.param({"x": 1}, {"x": None}, {}, id="null removes"),
        pytest.param({"x": 1}, {"x": op("set", None)}, {}, id="set null removes"),
        pytest.param({}, {"x": None}, {}, id="null on nothing does nothing"),
        pytest.param({"x": 1}, {"x": op("setIfNull", 2)}, {"x": 1}, id="setIfNull leaves a value"),
        pytest.param({}, {"x": op("setIfNull", 2)}, {"x": 2}, id="setIfNull fills"),
        pytest.param({"x": False}, {"x": op("setIfNull", value=True)}, {"x": False}, id="false is a value"),
        pytest.param({"x": 1}, {"x": op("inc", 2)}, {"x": 3}, id="inc"),
        pytest.param({}, {"x": op("inc", 2)}, {"x": 2}, id="inc counts from 0"),
        pytest.param({"x": 1}, {"x": op("dec", 2)}, {"x": -1}, id="dec"),
        pytest.param({}, {"x": op("dec", 2)}, {"x": -2}, id="dec counts from 0"),
        pytest.param({"x": 1}, {"x": op("increment", 2)}, {"x": 3}, id="increment is inc"),
        pytest.param({"x": 1}, {"x": op("decrement", 2)}, {"x": -1}, id="decrement is dec"),
        pytest.param({"y": 1}, {"x": 2}, {"y": 1, "x": 2}, id="what is not named stays"),
        pytest.param({"plan": "a"}, {"traits_plan": "b"}, {"plan": "b"}, id="traits_ means nothing"),
        pytest.param({}, {"traits_a/b": 1}, {"a/b": 1}, id="nor before a group"),
        pytest.param({}, {"a/traits_b": 1}, {"a/traits_b": 1}, id="inside a name it stays"),
        pytest.param({}, {"x": {"value": 3, "name": "Acme"}}, {"x": {"value": 3, "name": "Acme"}}, id="an object is a value"),
        pytest.param({}, {"x": ["a", "b"]}, {"x": ["a", "b"]}, id="a list is a value"),
        pytest.param({}, {"seen_at": 1_700_000_000}, {"seen_at": "2023-11-14T22:13:20Z"}, id="_at in seconds"),
        pytest.param({}, {"seen_at": 1_700_000_000_123}, {"seen_at": "2023-11-14T22:13:20Z"}, id="_at in milliseconds"),
        pytest.param({}, {"seen_at": "1700000000"}, {"seen_at": "2023-11-14T22:13:20Z"}, id="_at in text seconds"),
        pytest.param({}, {"a/won_at": "2024-01-02T03:04:05+02:00"}, {"a/won_at": "2024-01-02T01:04:05Z"}, id="_at with a zone"),
        pytest.param({}, {"a/won_at": "2024-01-02 03:04:05"}, {"a/won_at": "2024-01-02T03:04:05Z"}, id="_at without one"),
        pytest.param({}, {"birth_date": "2024-02-29"}, {"birth_date": "2024-02-29T00:00:00Z"}, id="_date"),
        pytest.param({"n": 1}, {"n": "2.5"}, {"n": 2.5}, id="a number stays a number"),
        pytest.param({"t": "a"}, {"t": 5}, {"t": "5"}, id="text stays text"),
        pytest.param({"t": "a"}, {"t": True}, {"t": "true"}, id="text of a boolean"),
        pytest.param({"b": True}, {"b": "false"}, {"b": False}, id="a boolean stays a boolean"),
        pytest.param({"l": ["a"]}, {"l": [1, None]}, {"l": ["1"]}, id="a list has the type of its items"),
        pytest.param(
            {}, {"first_name": "Ada", "last_name": "Berg"},
            {"first_name": "Ada", "last_name": "Berg", "name": "Ada Berg"}, id="name is made of its parts",
        ),
        pytest.param({"name": "A"}, {"name": "Ada"}, {"name": "Ada"}, id="or written when there are none"),
        pytest.param({}, {"domain": "https://www.acme.co.uk/x"}, {"domain": "acme.co.uk"}, id="a user's domain is normalised"),
    ],
)  # fmt: skip
def test_a_write(hull: Hull, before: dict[str, Any], sent: dict[str, Any], after: dict[str, Any]) -> None:
    hull.send(user_message(ADA, before), user_message(ADA, sent))

    assert hull.user(**ADA).attributes == after
    assert hull.reasons() == []


@pytest.mark.parametrize(
    ("before", "refused", "reason"),
    [
        ({}, {"x": op("multiply", 2)}, "x: unknown operation 'multiply'"),
        ({}, {"x": op("inc", "two")}, "x: inc needs numbers, not 0 and 'two'"),
        ({"x": "a"}, {"x": op("inc", 1)}, "x: inc needs numbers, not 'a' and 1"),
        ({"x": 1}, {"x": "many"}, "x: 'many' is not a number"),
        ({"x": 1}, {"x": True}, "x: True is not a number"),
        ({"x": True}, {"x": "perhaps"}, "x: 'perhaps' is not a boolean"),
        ({"x": "a"}, {"x": {"k": 1}}, "x: {'k': 1} is not a string"),
        ({}, {"seen_at": "soon"}, "seen_at: 'soon' is not a date"),
        ({}, {"x": "é" * 1_100}, "x: longer than 2048 bytes"),
        ({}, {"segment_ids": ["s"]}, "segment_ids: computed by Hull, ['s'] is not written"),
        ({}, {"domain": "Acme"}, "domain: 'Acme' is not a domain"),
    ],
)
def test_a_refused_value_is_logged_and_the_others_are_written(
    hull: Hull, before: dict[str, Any], refused: dict[str, Any], reason: str
) -> None:
    hull.send(user_message(ADA, before), user_message(ADA, {**refused, "other": "y"}))

    assert hull.user(**ADA).attributes == {**before, "other": "y"}
    assert hull.reasons() == [reason]
    assert hull.state.log[0]["event"] == "incoming.user.error"


def test_a_type_is_fixed_for_the_whole_organization_but_not_across_kinds(hull: Hull) -> None:
    hull.send(user_message({"email": "bo@acme.com"}, {"x": 1}), user_message(ADA, {"x": "text"}))
    hull.send(account_message({"domain": "acme.com"}, {"x": "text"}))

    assert hull.user(**ADA).attributes == {}
    assert hull.account(domain="acme.com").attributes == {"x": "text"}


def test_a_record_holds_2000_attributes(hull: Hull) -> None:
    hull.send(user_message(ADA, {f"a/{number}": number for number in range(2_001)}), user_message(ADA, {"a/5": 6}))

    attributes = hull.user(**ADA).attributes
    assert len(attributes) == 2_000
    assert attributes["a/5"] == 6
    assert hull.reasons() == ["a/2000: a record holds no more than 2000 attributes"]


def test_the_same_value_again_is_no_change(hull: Hull) -> None:
    hull.send(user_message(ADA, {"x": 1}))
    hull.state.clock = lambda: 2_000_000_000

    hull.send(user_message(ADA, {"x": 1}))

    assert hull.user(**ADA).updated_at < 2_000_000_000


def test_an_account_has_no_composed_name(hull: Hull) -> None:
    hull.send(account_message({"domain": "acme.com"}, {"first_name": "A", "last_name": "B"}))

    assert "name" not in hull.account(domain="acme.com").attributes


@pytest.mark.parametrize(
    "sent", [{"email": " New@Acme.com "}, {"email": op("set", "new@acme.com")}, {"traits_email": "new@acme.com"}]
)
def test_an_email_among_the_attributes_is_the_identity(hull: Hull, sent: dict[str, Any]) -> None:
    hull.send(user_message({"anonymous_id": "pipedrive:1"}, sent))

    assert hull.user(anonymous_id="pipedrive:1").natural == "new@acme.com"
    assert hull.user(email="new@acme.com").attributes == {}


def test_a_null_email_is_removed_and_an_external_id_is_not(hull: Hull) -> None:
    hull.send(
        user_message({**ADA, "external_id": "e1"}, {}),
        user_message({"external_id": "e1"}, {"email": None, "external_id": "e2"}),
    )

    ada = hull.user(external_id="e1")
    assert ada.natural is None
    assert ada.external_id == "e1"
    assert hull.reasons() == ["external_id: cannot be changed, nor belong to two records"]
