"""The entry point of Alembic: one transaction for each migration, short lock time-outs, no other time-out, one migrator at a time.

`pipeline migrate` runs it, with the connection in `config.attributes`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from alembic import context
from sqlalchemy import text

import db
from db import base
from db.migrate import is_ours

MIGRATION_LOCK = 0x68756C6C
LOCK_TIMEOUT_MS = 5_000

for _module in iter_modules(db.__path__):
    import_module(f"db.{_module.name}")  # adds its tables to the metadata


def migrate() -> None:
    connection = context.config.attributes["connection"]
    connection.execute(
        text("SET statement_timeout = 0")
    )  # a migration of a large table that is cut off would never end
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
