"""The web app over a real PostgreSQL, without Redis and a broker."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.connector import Connector, add_settings, keep_credential
from db.delivery import Delivery
from db.session import transaction, use_database
from pipeline import connections, settings
from pipeline.settings import Settings
from pipeline.vault import Vault
from pipeline.web.app import create_app
from tests.conftest import empty_database

if TYPE_CHECKING:
    from tests.integration.web.hull_notifications import Hull, KeyServer

ACME = "5f00000000000000000000ac"
GLOBEX = "5f00000000000000000000b0"
SECRETS = {
    "hull_secret": "canary-hull-secret",
    "pipedrive_api_token": "canary-pipedrive-token",
    "webhook_path": "canary-path-token",
    "webhook_user": "canary-user",
    "webhook_password": "canary-pässword",
}
ORGANIZATION = "acme.hullapp.test"


@dataclass
class RunningWeb:
    """The app, a client, and what the app asked of the workers."""

    app: Flask
    client: FlaskClient
    acme: int
    woken: list[str] = field(default_factory=list)

    def deliveries(self) -> list[Delivery]:
        with transaction() as session:
            return list(session.scalars(select(Delivery).order_by(Delivery.id)))

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Ask the database."""
        with transaction() as session:
            return list(session.execute(text(query), values).all())

    def change_rows(self, statement: str, **values: Any) -> None:
        """Change the database behind everybody's back."""
        with transaction() as session:
            session.execute(text(statement), values)

    def run_jobs(self) -> list[str]:
        """Run due jobs like workers do; return the errors that Celery receives."""
        from pipeline.jobs.runtime import run_job  # noqa: PLC0415 - Celery reads its settings when imported
        from pipeline.sync.stage import StageFailed  # noqa: PLC0415

        errors = []
        for row in self.rows("SELECT id FROM jobs WHERE state = 'due' AND due_at <= now() ORDER BY id"):
            try:
                run_job(row.id, "test")
            except StageFailed as failed:
                errors.append(str(failed).partition(":")[0])
        return errors


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> Iterator[Settings]:
    chosen = Settings(
        data_dir=tmp_path,
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        broker_url="redis://127.0.0.1:1/0",  # nobody listens on port 1
        secret_keys=(Fernet.generate_key().decode(),),
        public_url="http://connector.test",
        internal_networks=("127.0.0.0/8",),
        pipedrive_api_url="https://acme.pipedrive.test",
        pipedrive_burst_limit=0,
        hull_key_hosts=("keys.hullapp.test",),
        log_level="debug",
    )
    settings.use(chosen)
    use_database(database_url)
    yield chosen
    use_database(database_url)  # the test may have named another one
    empty_database()
    settings.use(None)
    use_database("")


@pytest.fixture
def running(environment: Settings) -> RunningWeb:
    """Return an app with one connector, Acme, and all its secrets; messages to workers are only counted."""
    with transaction() as session:
        acme = add_connector(session, environment, ACME, "acme", SECRETS)
    woken: list[str] = []
    app = create_app(wake=lambda: woken.append("dispatch"), has_console=False)
    return RunningWeb(app=app, client=app.test_client(), acme=acme, woken=woken)


@pytest.fixture(scope="session")
def private() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def keys(private: RSAPrivateKey) -> Iterator[KeyServer]:
    from tests.integration.web.hull_notifications import KeyServer  # noqa: PLC0415 - it needs what stands here

    server = KeyServer(private)
    connections.use_http(lambda: server.session)
    yield server
    connections.use_http(None)


@pytest.fixture
def hull(keys: KeyServer, running: RunningWeb, private: RSAPrivateKey) -> Hull:
    from tests.integration.web.hull_notifications import Hull  # noqa: PLC0415

    return Hull(running, private)


def add_connector(session: Session, environment: Settings, id_: str, name: str, secrets: dict[str, str]) -> int:
    connector = Connector(id=id_, name=name, hull_organization=ORGANIZATION)
    session.add(connector)
    session.flush()
    vault = Vault(environment.secret_keys)
    for secret_name, secret in secrets.items():
        keep_credential(session, connector.key, secret_name, vault.seal(connector.key, secret_name, secret))
    add_settings(session, connector.key, {}, author="test")
    return connector.key


def basic(user: str = SECRETS["webhook_user"], password: str = SECRETS["webhook_password"]) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def webhook(event_id: str = "7c812ffd-8f50-45ea-a597-b8fcba2da9c0", **data: Any) -> dict[str, Any]:
    """Shape: https://pipedrive.readme.io/docs/webhooks-v2-migration-guide"""
    return {
        "meta": {
            "action": "change",
            "entity": "person",
            "entity_id": "8",
            "id": event_id,
            "timestamp": "2026-02-01T09:30:00.616Z",
            "version": "2.0",
            "attempt": 1,
        },
        "data": {"id": 8, "name": "canary Ada Lovelace", "update_time": "2026-02-01T09:30:00Z", **data},
        "previous": {"name": "canary A. Lovelace"},
    }
