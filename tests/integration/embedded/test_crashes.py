"""Every process killed, every leftover found: the embedded servers come back with their data."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from pipeline import embedded
from pipeline.embedded import folders
from pipeline.settings import Settings
from tests.integration.embedded.users import BOTH, assert_both_hold, kill, query, wait_stopped, write_both

pytestmark = pytest.mark.slow


def test_data_outlives_a_stop(shared: Settings) -> None:
    write_both(embedded.ensure(shared), "stopped")

    embedded.stop(shared)

    assert_both_hold(embedded.ensure(shared), "stopped")


@pytest.mark.parametrize("name", sorted(BOTH))
def test_a_killed_server_comes_back_with_its_data(shared: Settings, name: str) -> None:
    write_both(embedded.ensure(shared), f"killed-{name}")
    before = embedded.status(shared)[name]
    assert before.server_pid

    kill(before.server_pid)

    assert_both_hold(embedded.ensure(shared), f"killed-{name}")
    assert embedded.status(shared)[name].keeper_pid == before.keeper_pid


@pytest.mark.parametrize("name", sorted(BOTH))
def test_no_server_outlives_its_keeper(shared: Settings, name: str) -> None:
    embedded.ensure(shared)

    kill(embedded.status(shared)[name].keeper_pid)

    wait_stopped(shared, name)


def test_killed_keepers_are_replaced_by_the_next_process(shared: Settings) -> None:
    write_both(embedded.ensure(shared), "keepers")

    for state in embedded.status(shared).values():
        kill(state.keeper_pid)

    assert_both_hold(embedded.ensure(shared), "keepers")


def test_everything_killed_at_once_starts_again_with_its_data(shared: Settings) -> None:
    write_both(embedded.ensure(shared), "everything")
    pids = [pid for state in embedded.status(shared).values() for pid in (state.keeper_pid, state.server_pid) if pid]

    kill(*pids)

    assert_both_hold(embedded.ensure(shared), "everything")


def test_leftovers_that_name_a_stranger_are_not_believed(shared: Settings) -> None:
    embedded.ensure(shared)
    embedded.stop(shared)
    found = folders.find(shared.data_dir)
    assert found
    stale = f"{os.getpid()}\n{found.servers / 'postgres'}\n0\n5432\n{found.sockets}\n\n0 0\nready\n"
    (found.servers / "postgres" / "postmaster.pid").write_text(stale)
    Path(f"{found.postgres_socket}.lock").write_text(stale)
    for path in (found.postgres_socket, found.valkey_socket):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))

    assert query(embedded.ensure(shared), "SELECT 1") == [(1,)]


def test_a_lost_folder_of_sockets_is_made_again(shared: Settings) -> None:
    embedded.ensure(shared)
    embedded.stop(shared)
    found = folders.find(shared.data_dir)
    assert found
    shutil.rmtree(found.sockets)

    assert query(embedded.ensure(shared), "SELECT 1") == [(1,)]
