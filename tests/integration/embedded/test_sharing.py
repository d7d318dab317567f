"""Who starts the embedded servers, who shares them, and when they stop."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipeline import embedded
from pipeline.embedded import Servers, folders
from pipeline.settings import Settings
from tests.integration.embedded.users import BOTH, PATIENCE_S, kill, query, told_by, user_of, wait_stopped


def test_a_second_process_shares_the_servers(shared: Settings) -> None:
    servers, before = embedded.ensure(shared), embedded.status(shared)

    with user_of(shared) as user:
        _, seen = told_by(user)

    assert seen == servers
    assert embedded.status(shared) == before
    assert all(state.ready for state in before.values())


def test_processes_that_start_together_get_one_pair_of_servers(fresh: Settings) -> None:
    with user_of(fresh) as ada, user_of(fresh) as bo, user_of(fresh) as cyd:
        seen = {told_by(user)[1] for user in (ada, bo, cyd)}

        assert len(seen) == 1
        assert embedded.status(fresh).keys() == BOTH


def test_the_servers_stop_when_their_last_user_ends(shared: Settings) -> None:
    embedded.ensure(shared)
    with user_of(shared) as user:
        told_by(user)
        embedded.release(shared)

        assert embedded.status(shared).keys() == BOTH

    wait_stopped(shared)
    assert embedded.status(shared) == {}


def test_the_servers_stop_when_their_last_user_is_killed(shared: Settings) -> None:
    embedded.stop(shared)
    with user_of(shared) as user:
        told_by(user)
        kill(user.pid)

        wait_stopped(shared)


def test_a_forked_child_keeps_the_servers_of_its_parent(shared: Settings) -> None:
    embedded.stop(shared)
    with user_of(shared, "fork") as user:
        child, _ = told_by(user)
        assert user.wait(PATIENCE_S) == 0

        assert embedded.ensure(shared)
        before = embedded.status(shared)
        embedded.release(shared)
        assert embedded.status(shared) == before
        kill(child)

        wait_stopped(shared)


def test_stop_ends_the_servers_whoever_uses_them(shared: Settings) -> None:
    embedded.ensure(shared)
    with user_of(shared) as user:
        told_by(user)

        embedded.stop(shared)

        assert embedded.status(shared) == {}
        wait_stopped(shared)


def test_servers_of_ones_own_start_none_and_make_no_folder(tmp_path: Path) -> None:
    own = Settings(
        data_dir=tmp_path / "data",
        database_url="postgresql+psycopg2://db.example/pipeline",
        redis_url="redis://redis.example/0",
        broker_url="amqp://rabbit.example",
    )

    found = embedded.ensure(own)

    assert found == Servers(
        database_url="postgresql+psycopg2://db.example/pipeline",
        redis_url="redis://redis.example/0",
        broker_url="amqp://rabbit.example",
    )
    assert not own.data_dir.exists()


def test_only_the_missing_server_is_embedded(fresh: Settings) -> None:
    own = fresh.replace(database_url="postgresql+psycopg2://db.example/pipeline")

    found = embedded.ensure(own)

    assert found.database_url == own.database_url
    assert embedded.status(own).keys() == {"valkey"}


def test_status_of_a_folder_never_used_is_empty_and_makes_nothing(fresh: Settings) -> None:
    assert embedded.status(fresh) == {}
    assert not fresh.data_dir.exists()


def test_remove_leaves_the_local_key_and_nothing_else(fresh: Settings) -> None:
    embedded.ensure(fresh)
    found = folders.find(fresh.data_dir)
    assert found
    (fresh.data_dir / "secret.key").touch()

    embedded.remove(fresh)

    assert [path.name for path in fresh.data_dir.iterdir()] == ["secret.key"]
    assert not found.servers.exists()
    assert not found.sockets.exists()


def test_a_folder_deleted_under_us_is_made_anew(fresh: Settings) -> None:
    embedded.ensure(fresh)
    embedded.remove(fresh)
    shutil.rmtree(fresh.data_dir)

    assert query(embedded.ensure(fresh), "SELECT 1") == [(1,)]


def test_keepers_and_servers_see_nothing_of_the_environment(shared: Settings) -> None:
    embedded.stop(shared)
    with user_of(shared, env={"PIPEDRIVE_CLIENT_SECRET": "hunter2"}) as user:
        told_by(user)

        for state in embedded.status(shared).values():
            for pid in (state.keeper_pid, state.server_pid):
                assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_keeper_holds_on_to_nothing_of_its_starter(shared: Settings) -> None:
    embedded.stop(shared)
    with user_of(shared) as user:
        told_by(user)

        for state in embedded.status(shared).values():
            opened = [os.readlink(link) for link in Path(f"/proc/{state.keeper_pid}/fd").iterdir()]
            assert not [name for name in opened if name.startswith("pipe:")]
            assert os.getsid(state.keeper_pid) not in (os.getsid(0), os.getsid(user.pid))
