"""The guard that every test runs under: no HTTP call starts inside a transaction."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from db.session import transaction
from pipeline import connections
from tests.open_transactions import none_during_http
from tests.system import SyncSystem

URL = "http://pipedrive.test/api/v1/users/me"


def test_a_call_inside_a_transaction_is_noticed(system: SyncSystem) -> None:
    def call() -> None:
        with none_during_http(), transaction() as session:
            session.execute(text("SELECT 1"))
            connections.http_session().get(URL)

    with pytest.raises(AssertionError, match="GET /api/v1/users/me"):
        call()


def test_a_call_after_a_transaction_is_none_of_its_business(system: SyncSystem) -> None:
    with none_during_http():
        with transaction() as session:
            session.execute(text("SELECT 1"))
        connections.http_session().get(URL)
