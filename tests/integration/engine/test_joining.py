"""One worker matches a Hull id while another one stores a create intent for it."""

from __future__ import annotations

import threading
import time

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import joining
from db.joining import Join
from db.session import engine, transaction
from tests.system import SyncSystem

ANN = "a" * 24
PATIENCE_S = 30.0
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO id_mappings AS m%'"


def test_a_match_replaces_an_intent_of_the_same_moment(system: SyncSystem) -> None:
    lost: list[list[Join] | Exception] = []

    def join() -> None:
        try:
            with transaction() as session:
                found = Join(hull_id=ANN, pipedrive_id=7, matched_by="email")
                lost.append(joining.join(session, system.connector_key, "person", [found]))
        except Exception as error:  # noqa: BLE001 - the test tells
            lost.append(error)

    with Session(engine()) as other:
        assert joining.write_intents(other, system.connector_key, "person", [ANN])[ANN].is_new
        worker = threading.Thread(target=join)
        worker.start()
        until = time.monotonic() + PATIENCE_S
        with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as looking:
            while not looking.scalar(text(WAITS)):
                assert worker.is_alive(), lost
                assert time.monotonic() < until
        other.commit()
    worker.join(PATIENCE_S)

    assert lost == [[]]
    rows = system.rows("SELECT hull_id, pipedrive_id, state FROM id_mappings")
    assert [tuple(row) for row in rows] == [(ANN, 7, "full")]
