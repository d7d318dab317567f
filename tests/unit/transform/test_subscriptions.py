"""Our subscriptions and their state, decided only from Pipedrive's list."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from pipeline.transform.subscriptions import (
    Address,
    SubscriptionState,
    find_subscription,
    is_ours,
    strays,
    subscription,
)

ADDRESS = Address(
    connector_id="acme", base="https://here.test/webhooks/pipedrive/acme/", path_token="path", user="us", password="pw"
)


def row(number: int = 1, **changed: Any) -> dict[str, Any]:
    """A sound subscription to Persons, as Pipedrive lists it."""
    listed = {"id": number, "is_active": 1, "last_http_status": 200, **subscription(Entity.PERSON, ADDRESS)}
    return listed | changed


def found(*rows: dict[str, Any]) -> SubscriptionState:
    return find_subscription(rows, Entity.PERSON, ADDRESS)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"last_http_status": None},
        {"last_http_status": "204"},
        {"http_auth_user": None},
        {"http_auth_password": "********"},
        {"version": 2.0},
    ],
)
def test_is_sound(changed: dict[str, Any]) -> None:
    assert (found(row(**changed)).state, found(row(**changed)).stale) == ("active", ())


def test_a_missing_status_is_ignored() -> None:
    bare = {key: value for key, value in row().items() if key not in ("is_active", "last_http_status")}

    assert found(bare) == SubscriptionState(state="active", webhook_id=1, last_status=None, stale=())


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"is_active": 0}, "paused"),
        ({"is_active": False, "last_http_status": 503}, "paused"),
        ({"last_http_status": 503}, "failing"),
        ({"last_http_status": 302}, "failing"),
        ({"subscription_url": "https://elsewhere.test/path"}, "moved"),
        ({"subscription_url": ADDRESS.base + "older"}, "moved"),
        ({"event_action": "create"}, "moved"),
        ({"version": "1.0"}, "moved"),
        ({"http_auth_user": "older"}, "moved"),
    ],
)
def test_is_taken_away_when_it_does_not_serve(changed: dict[str, Any], state: str) -> None:
    finding = found(row(7, **changed))

    assert (finding.state, finding.webhook_id, finding.stale) == (state, 7, (7,))


def test_is_missing_among_those_of_others() -> None:
    others = [
        row(1, event_object="organization"),
        row(2, subscription_url="https://here.test/webhooks/pipedrive/globex/path2"),
        row(3, subscription_url="https://staging.test/webhooks/pipedrive/acme/its-own"),
        {"id": 4},
    ]

    assert found(*others) == SubscriptionState(state="missing", webhook_id=None, last_status=None, stale=())
    assert [is_ours(each, ADDRESS) for each in others] == [True, False, False, False]


def test_a_healthy_one_is_kept_and_our_others_are_deleted() -> None:
    rows = [row(1, is_active=0), row(2), row(3), row(4, version="1.0"), row(5, subscription_url="https://other.test/x")]

    finding = found(*rows)

    assert (finding.state, finding.webhook_id, finding.stale) == ("active", 2, (1, 3, 4))


def test_what_we_would_never_ask_for_is_astray() -> None:
    rows = [
        row(1),
        row(2, event_object="deal"),
        row(3, event_object="*"),
        row(4, event_object="*", subscription_url="x"),
    ]

    assert strays(rows, ADDRESS) == (2, 3)


def test_secrets_do_not_show() -> None:
    assert not {"path", "us", "pw"} & set(repr(ADDRESS).replace("'", " ").split())
