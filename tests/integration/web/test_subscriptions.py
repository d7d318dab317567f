"""Pipedrive is asked for webhooks once, of the right things, and what belongs to others is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete

from db.connector import Credential, credentials_of
from db.session import transaction
from pipeline import connections, wiring
from pipeline.errors import Rejected
from pipeline.settings import Settings
from pipeline.sync.connectors.webhooks import SECRET_NAMES, ensure_webhooks
from sandbox.company import Company
from sandbox.pipedrive.app import PipedriveApp, create_app
from tests.integration.web.conftest import ACME, SECRETS, RunningWeb
from tests.wsgi_adapter import session_for

OURS = f"http://connector.test/webhooks/pipedrive/{ACME}/"


@pytest.fixture
def pipedrive(running: RunningWeb) -> Iterator[PipedriveApp]:
    """Return a company that sends webhooks to our app, and has an API that our app calls."""
    app = create_app(
        Company(seed=7, persons=3, organizations=2),
        api_token=SECRETS["pipedrive_api_token"],
        webhook_session=session_for({"http://connector.test": running.app}),
    )
    connections.use_http(lambda: session_for({"https://acme.pipedrive.test": app}))
    yield app
    app.delivery.drain()
    connections.use_http(None)


def subscriptions(pipedrive: PipedriveApp) -> list[dict[str, Any]]:
    return list(pipedrive.subscriptions.by_id.values())


def add(pipedrive: PipedriveApp, **changed: Any) -> int:
    body = {"subscription_url": "https://other.test/x", "event_action": "*", "event_object": "person", "name": "n"}
    answer = pipedrive.test_client().post(
        "/api/v1/webhooks", json=body | changed, headers={"x-api-token": SECRETS["pipedrive_api_token"]}
    )
    assert answer.json is not None
    return int(answer.json["data"]["id"])


@pytest.mark.guide("Incoming Users", "Webhooks are not filtered either.")
@pytest.mark.defect(17, "Webhooks were of the old version, and carried Hull's secret in their address.")
def test_persons_and_organizations_are_subscribed_once(running: RunningWeb, pipedrive: PipedriveApp) -> None:
    assert ensure_webhooks(running.acme) == ["person", "organization"]
    assert ensure_webhooks(running.acme) == []

    rows = subscriptions(pipedrive)
    assert [row["event_object"] for row in rows] == ["person", "organization"]
    for row in rows:
        assert (row["event_action"], row["version"]) == ("*", "2.0")
        assert row["subscription_url"] == OURS + SECRETS["webhook_path"]
        assert (row["http_auth_user"], row["http_auth_password"]) == (
            SECRETS["webhook_user"],
            SECRETS["webhook_password"],
        )


def test_missing_secrets_are_made_unguessable_and_sealed(
    running: RunningWeb, pipedrive: PipedriveApp, environment: Settings
) -> None:
    with transaction() as session:
        session.execute(delete(Credential).where(Credential.name.in_(SECRET_NAMES[1:])))

    ensure_webhooks(running.acme)

    with transaction() as session:
        sealed = credentials_of(session, running.acme)
        known = wiring.open_secrets(session, running.acme)
    made = [known[name] for name in SECRET_NAMES]
    assert len(set(made)) == 3
    assert all(len(secret) >= 32 and secret not in SECRETS.values() for secret in made)  # 6 bits to a character
    assert not any(known[name].encode() in sealed[name] for name in SECRET_NAMES)
    assert {row["subscription_url"] for row in subscriptions(pipedrive)} == {OURS + made[0]}


@pytest.mark.defect(17, "Webhooks whose address held the organization's name were deleted, whosesoever they were.")
def test_webhooks_of_others_are_left_alone(running: RunningWeb, pipedrive: PipedriveApp) -> None:
    foreign = [
        add(pipedrive),
        add(pipedrive, subscription_url="http://connector.test/webhooks/pipedrive/5f00000000000000000000b0/x"),
        add(pipedrive, subscription_url=f"https://staging.test/webhooks/pipedrive/{ACME}/its-own-token"),
        add(pipedrive, subscription_url=f"http://connector.test.evil.test/webhooks/pipedrive/{ACME}/x"),
    ]

    ensure_webhooks(running.acme)

    assert set(foreign) < set(pipedrive.subscriptions.by_id)
    assert len(subscriptions(pipedrive)) == len(foreign) + 2


@pytest.mark.parametrize(
    "stale",
    [
        {"subscription_url": OURS + "an-older-token"},
        {"subscription_url": f"https://moved.test/webhooks/pipedrive/{ACME}/{SECRETS['webhook_path']}"},
        {"subscription_url": OURS + SECRETS["webhook_path"], "event_action": "create"},
        {"subscription_url": OURS + SECRETS["webhook_path"], "version": "1.0"},
        {"subscription_url": OURS + SECRETS["webhook_path"], "http_auth_user": "u", "http_auth_password": "p"},
    ],
    ids=["older path", "moved", "other action", "old version", "other credentials"],
)
def test_ours_that_do_not_serve_are_replaced(
    running: RunningWeb, pipedrive: PipedriveApp, stale: dict[str, str]
) -> None:
    old = add(pipedrive, **stale)

    assert ensure_webhooks(running.acme) == ["person", "organization"]

    assert old not in pipedrive.subscriptions.by_id
    assert len(subscriptions(pipedrive)) == 2


def test_a_missing_one_of_two_is_made_again(running: RunningWeb, pipedrive: PipedriveApp) -> None:
    ensure_webhooks(running.acme)
    person = subscriptions(pipedrive)[0]["id"]
    del pipedrive.subscriptions.by_id[person]

    assert ensure_webhooks(running.acme) == ["person"]


def test_a_full_list_is_reported_to_the_caller(running: RunningWeb, pipedrive: PipedriveApp) -> None:
    for number in range(40):
        add(pipedrive, name=f"n{number}")

    with pytest.raises(Rejected):
        ensure_webhooks(running.acme)


def test_a_change_in_pipedrive_arrives_as_a_webhook(running: RunningWeb, pipedrive: PipedriveApp) -> None:
    with transaction() as session:
        session.execute(delete(Credential).where(Credential.name.in_(SECRET_NAMES)))
    ensure_webhooks(running.acme)

    answer = pipedrive.test_client().post(
        "/api/v2/persons", json={"name": "Ada"}, headers={"x-api-token": SECRETS["pipedrive_api_token"]}
    )
    pipedrive.delivery.drain()

    assert answer.status_code in (200, 201)
    [delivery] = running.deliveries()
    assert (delivery.source, delivery.connector_key) == ("pipedrive", running.acme)
