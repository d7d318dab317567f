"""Every process killed, every leftover found: the embedded servers come back with their data."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extras import wait_select
from sqlalchemy.engine import make_url

from pipeline.local import folders, servers
from pipeline.local.children import until
from pipeline.settings import Settings
from tests.integration.local.processes import (
    BOTH,
    PATIENCE_S,
    assert_both_hold,
    kill,
    process,
    query,
    server_pids,
    write_both,
)

pytestmark = pytest.mark.slow


def test_data_outlives_a_stop(shared: Settings) -> None:
    with servers.serve(shared, name="a test") as found:
        write_both(found, "stopped")

    with servers.serve(shared, name="a test") as found:
        assert_both_hold(found, "stopped")


@pytest.mark.parametrize("name", sorted(BOTH))
def test_a_killed_server_comes_back_with_its_data(shared: Settings, name: str) -> None:
    lines: list[str] = []
    with servers.serve(shared, name="a test", write_line=lambda _, line: lines.append(line)) as found:
        write_both(found, f"killed-{name}")
        (before, *_) = server_pids(shared, name)

        kill(before)

        assert any(
            (status := servers.status(shared)) and name in status.ready and status.pids[name] != before
            for _ in until(PATIENCE_S)
        )
        assert_both_hold(found, f"killed-{name}")
    assert f"{name} died (signal SIGKILL)" in lines[0]


def test_everything_killed_together_starts_again_with_its_data(shared: Settings) -> None:
    with process("serve", shared) as holder:
        holder.urls()
        write_both(servers.complete(shared), "everything")

        kill(holder.pid, *(pid for name in BOTH for pid in server_pids(shared, name)))

    with servers.serve(shared, name="a test") as found:
        assert_both_hold(found, "everything")


def test_a_backend_that_outlives_its_server_is_ended(shared: Settings) -> None:
    with process("serve", shared) as holder:
        holder.urls()
        url = servers.complete(shared)
        backend = busy_backend(url)
        kill(holder.pid, server_pids(shared, "postgres")[0])

    with servers.serve(shared, name="a test") as found:
        assert query(found, "SELECT 1") == [(1,)]
        assert backend not in server_pids(shared, "postgres")


def busy_backend(found: Settings) -> int:
    """Leave a backend at work that does not look whether its server lives; return its process id."""
    url = make_url(found.database_url or "")
    connection = psycopg2.connect(dbname=url.database, user=url.username, host=url.query["host"], async_=True)
    wait_select(connection)
    connection.cursor().execute("SELECT count(*) FROM generate_series(1, 1000000000000)")
    _connections.append(connection)
    return int(connection.info.backend_pid)


_connections: list[Any] = []
"""Kept open while their backends work."""


def test_leftovers_that_name_a_stranger_are_not_believed(shared: Settings) -> None:
    with servers.serve(shared, name="a test"):
        found = folders.find(shared.data_dir)
    assert found
    stale = f"{os.getpid()}\n{found.servers / 'postgres'}\n0\n5432\n{found.sockets}\n\n0 0\nready\n"
    (found.servers / "postgres" / "postmaster.pid").write_text(stale)
    Path(f"{found.postgres_socket}.lock").write_text(stale)
    (shared.data_dir / servers.LOCK).write_text(
        f'{{"pid": {os.getpid()}, "name": "a stranger", "shares": true, "servers": ["postgres", "valkey"]}}'
    )
    for path in (found.postgres_socket, found.valkey_socket):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))

    assert servers.status(shared) is None
    with servers.serve(shared, name="a test") as settings:
        assert query(settings, "SELECT 1") == [(1,)]


def test_a_lost_folder_of_sockets_is_made_again(shared: Settings) -> None:
    with servers.serve(shared, name="a test"):
        found = folders.find(shared.data_dir)
    assert found
    shutil.rmtree(found.sockets)

    with servers.serve(shared, name="a test") as settings:
        assert query(settings, "SELECT 1") == [(1,)]
