"""Prepare a command: read the environment, connect to the servers, check the database schema."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from db import audit
from db.migrate import current_revision, is_newer, migrate, newest_revision
from db.session import engine
from pipeline import environment, telemetry
from pipeline.cli.output import Failed
from pipeline.local import programs, servers
from pipeline.local.children import WriteLine
from pipeline.settings import Settings, settings, use


def begin() -> Settings:
    """Read the environment and connect to the servers, also embedded ones; keep log lines out of a command's output."""
    return _quietly(environment.begin())


@contextmanager
def begin_serving(name: str, write_line: WriteLine) -> Iterator[Settings]:
    """Like `begin`, and run the embedded servers for all processes of DATA_DIR while the block lasts.

    Raises: EmbeddedError if another command runs them already.
    """
    with servers.serve(settings(), name=name, write_line=write_line) as chosen:
        yield _quietly(environment.begin_with(chosen))


def _quietly(chosen: Settings) -> Settings:
    if chosen.log_level == "info":  # log lines would be noise between the command's own lines
        telemetry.configure("warning", chosen.log_format)
    return chosen


def open_database() -> Settings:
    """Like `begin`, and check the schema: migrate an embedded database, but never an external one.

    The schema of a later version is accepted, as after an upgrade that was rolled back.
    While `pipeline up` runs with its sandbox, a command uses the same sandbox as the workers.
    Raises: Failed if `pipeline migrate` must be run first.
    """
    audit.begin(f"command line on {socket.gethostname()}")
    is_embedded = settings().database_url is None
    chosen = _beside_the_workers(begin())
    at, newest = current_revision(engine()), newest_revision()
    if at == newest or is_newer(at):
        return chosen
    if is_embedded:
        migrate(engine())
    elif at is None:
        raise Failed("the database has no tables yet", "run: pipeline migrate")
    else:
        raise Failed(f"the database is at revision {at}, this version needs {newest}", "run: pipeline migrate")
    return chosen


def _beside_the_workers(chosen: Settings) -> Settings:
    sandbox = programs.running_sandbox(chosen.data_dir) if chosen.faces_sandbox else None
    if sandbox is None:
        return chosen
    facing = programs.facing_sandbox(chosen, sandbox)
    use(facing)
    return facing
