"""Alembic's entrance: one transaction a migration, short lock timeouts, no other time-out, one migrator at a time.

Run through `pipeline migrate`, which hands the connection over in `config.attributes`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from alembic import context
from sqlalchemy import text

import db
from db import base

MIGRATION_LOCK = 0x68756C6C
LOCK_TIMEOUT_MS = 5_000

for _module in iter_modules(db.__path__):
    import_module(f"db.{_module.name}")  # its tables then stand in the metadata


def is_ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:
    """Daily partitions come and go without migrations."""
    return not (kind == "table" and name is not None and name.startswith("sync_events_"))


def migrate() -> None:
    connection = context.config.attributes["connection"]
    connection.execute(text("SET statement_timeout = 0"))  # of a large table: one that is cut off would never end
    connection.execute(text("SET lock_timeout = 0"))  # another migrator may need minutes
    connection.execute(text(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
    connection.execute(text(f"SET lock_timeout = {LOCK_TIMEOUT_MS}"))
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=base.Base.metadata,
            include_object=is_ours,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.execute(text(f"SELECT pg_advisory_unlock({MIGRATION_LOCK})"))
        connection.execute(text("RESET lock_timeout"))
        connection.execute(text("RESET statement_timeout"))  # the connection goes back to its pool
        connection.commit()


migrate()
