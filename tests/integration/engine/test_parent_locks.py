"""A row that others refer to is locked in a way that lets them refer to it: a foreign key check must not wait for it.

Where it waits, two transactions can end in a deadlock: an authorisation held the connector and wanted its schedules, while
the tick held the schedules and wanted to insert a run of that connector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from db import connector as connectors
from db import plan as plans
from db import replay as replays
from db import run as runs
from db.session import engine, transaction
from tests.system import SyncSystem

PARENTS = {
    "runs": "INSERT INTO runs (connector_key, entity, kind, cause, settings_version)"
    " VALUES (:key, 'person', 'full', 'test', 1) RETURNING id",
    "slices": "INSERT INTO slices (run_id, walk) SELECT id, 'ascending' FROM runs RETURNING id",
    "plans": "INSERT INTO plans (connector_key, base_version, document, definitions, author)"
    " VALUES (:key, 1, '{}', '{}', 'test') RETURNING id",
    "replays": "INSERT INTO replays (connector_key, requested_by, why, chosen, per_second)"
    " VALUES (:key, 'test', '', '{}', 1) RETURNING id",
}
LOCKS: dict[str, tuple[str, Callable[[Session, int, int], Any]]] = {
    "lock_connector": ("connectors", lambda session, key, _: connectors.lock_connector(session, key)),
    "add_settings": ("connectors", lambda session, key, _: connectors.add_settings(session, key, {}, author="test")),
    "lock_run": ("runs", lambda session, _, row: runs.lock_run(session, row)),
    "lock_walk": ("runs", lambda session, _, row: runs.lock_walk(session, row, row)),
    "lock_plan": ("plans", lambda session, _, row: plans.lock_plan(session, row)),
    "lock_replay": ("replays", lambda session, _, row: replays.lock_replay(session, row)),
}


@pytest.mark.parametrize("name", LOCKS)
def test_rows_can_refer_to_a_locked_parent(system: SyncSystem, name: str) -> None:
    table, lock = LOCKS[name]
    with transaction() as session:
        ids = {each: session.scalar(text(insert), {"key": system.connector_key}) for each, insert in PARENTS.items()}

    with transaction() as session, engine().connect() as other:
        lock(session, system.connector_key, ids.get(table) or 0)
        other.execute(text(f"TABLE {table} FOR KEY SHARE NOWAIT"))  # what a foreign key check does
        with pytest.raises(OperationalError, match="could not obtain lock"):
            other.execute(text(f"TABLE {table} FOR NO KEY UPDATE NOWAIT"))
