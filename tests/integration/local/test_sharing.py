"""Who runs the embedded servers, who uses them, and when they stop."""

from __future__ import annotations

import json
import os
import select
import shutil
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from pipeline.local import folders, servers
from pipeline.local.errors import EmbeddedError
from pipeline.settings import Settings
from tests.integration.local.processes import BOTH, PATIENCE_S, kill, process, query, server_pids, wait_stopped


def test_another_process_uses_the_servers_of_the_one_that_serves(shared: Settings, running: Settings) -> None:
    before = servers.status(shared)

    with process("alone", shared) as user:
        seen = user.urls()

    assert seen == [running.database_url, running.redis_url, running.broker_url]
    assert servers.status(shared) == before
    assert before is not None
    assert before.ready == before.pids.keys() == BOTH


def test_a_second_one_that_serves_is_refused_and_named(shared: Settings) -> None:
    with process("serve", shared) as first:
        first.urls()
        with pytest.raises(EmbeddedError) as refused, servers.serve(shared, name="a test"):
            pass

    assert f"pipeline up (process {first.pid}) already runs with DATA_DIR={shared.data_dir}" in str(refused.value)
    assert "Next step: " in str(refused.value)


def test_one_that_serves_is_refused_a_second_time_without_embedded_servers_too(tmp_path: Path) -> None:
    own = own_servers(tmp_path / "data")
    with (
        servers.serve(own, name="pipeline up"),
        pytest.raises(EmbeddedError, match="pipeline up"),
        servers.serve(own, name="pipeline demo"),
    ):
        pass


def test_commands_that_start_together_have_the_servers_one_after_the_other(fresh: Settings) -> None:
    with process("alone", fresh) as ada, process("alone", fresh) as bo:
        answered, _, _ = select.select([ada.popen.stdout, bo.popen.stdout], [], [], PATIENCE_S)
        first, second = (ada, bo) if answered == [ada.popen.stdout] else (bo, ada)
        before = first.urls()
        (postgres, *_) = server_pids(fresh, "postgres")
        first.end()

        assert second.urls() == before
        assert server_pids(fresh, "postgres")[0] != postgres


def test_a_command_that_waits_too_long_names_the_other_process(
    shared: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "TURN_S", 0.0)
    with process("alone", shared) as other:
        other.urls()

        with pytest.raises(EmbeddedError, match=rf"-c alone \(process {other.pid}\) already runs"):
            servers.complete(shared)


def test_processes_started_by_hand_use_the_servers_of_the_first(shared: Settings) -> None:
    with process("shares", shared) as worker, process("shares", shared) as beat:
        assert worker.urls() == beat.urls() != []
        holder = servers.find_holder(shared.data_dir)
        assert holder is not None
        (other,) = [each for each in (worker, beat) if each.pid != holder.pid]
        other.end()
        assert query(servers.complete(shared), "SELECT 1") == [(1,)]

    wait_stopped(shared)


@pytest.mark.parametrize("how", ["serve", "shares", "alone"])
def test_the_servers_stop_when_the_process_that_runs_them_ends(shared: Settings, how: str) -> None:
    with process(how, shared) as holder:
        assert holder.urls()

    wait_stopped(shared)


@pytest.mark.parametrize("how", ["serve", "shares", "alone"])
def test_the_servers_stop_when_the_process_that_runs_them_is_killed(shared: Settings, how: str) -> None:
    with process(how, shared) as holder:
        assert holder.urls()
        kill(holder.pid)

        wait_stopped(shared)


def test_the_holder_of_before_is_never_read_once_the_lock_is_taken(tmp_path: Path) -> None:
    """Its process has ended, so another one may have its id, and `stop` would signal that."""
    dead = {"pid": os.getpid(), "name": "pipeline up", "shares": True, "servers": []}
    (tmp_path / servers.LOCK).write_text(json.dumps(dead))

    descriptor = servers._take(tmp_path)
    assert descriptor is not None
    found = servers.find_holder(tmp_path)
    os.close(descriptor)

    assert found is None


def test_servers_that_do_not_start_leave_the_lock_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_data_dir: Path) -> None:
        raise EmbeddedError("no space")

    monkeypatch.setattr(servers.folders_module, "place", fail)
    chosen = Settings(data_dir=tmp_path)

    with pytest.raises(EmbeddedError, match="no space"):
        servers.complete(chosen)

    descriptor = servers._take(tmp_path)
    assert descriptor is not None
    os.close(descriptor)


def test_a_server_that_is_restarted_as_all_stop_is_stopped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late()
    monkeypatch.setattr(servers, "Children", lambda _write_line: late)
    monkeypatch.setattr(servers, "LOOK_S", 0.0)
    monkeypatch.setattr(servers.folders_module, "place", lambda _data_dir: None)
    monkeypatch.setattr(servers, "find_binaries", lambda _folders: None)
    module = SimpleNamespace(program=lambda _folders, _programs: "first", is_ready=lambda _folders: True)
    monkeypatch.setitem(servers.SERVERS, "postgres", module)

    with servers._running(own_servers(tmp_path), ("postgres",), None, restarts=True):
        assert late.is_restarting.wait(PATIENCE_S)

    assert late.running == set()


class Late:
    """Children with one that is being restarted while all are stopped."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.is_restarting, self.was_stopped = Event(), Event()

    def start(self, program: str) -> None:
        self.running.add(program)

    def exit_code(self, _name: str) -> None:
        return None

    def look_after(self) -> None:
        if not self.was_stopped.is_set():
            self.is_restarting.set()
            self.was_stopped.wait(PATIENCE_S)
            self.running.add("restarted")

    def stop(self) -> None:
        self.running.clear()
        self.was_stopped.set()


def test_stop_ends_the_process_that_runs_the_servers(shared: Settings) -> None:
    with process("serve", shared) as holder:
        holder.urls()

        servers.stop(shared)

        assert servers.status(shared) is None
        wait_stopped(shared)


def test_servers_of_ones_own_start_none_and_make_no_folder(tmp_path: Path) -> None:
    own = own_servers(tmp_path / "data")

    assert servers.complete(own) == own
    assert not own.data_dir.exists()


def test_serving_nothing_needs_no_folder() -> None:
    own = own_servers(Path("/proc/no/folder"))

    with servers.serve(own, name="pipeline up") as found:
        assert found == own


def test_only_the_missing_server_is_embedded(fresh: Settings) -> None:
    own = fresh.replace(database_url="postgresql://db.example/pipeline")

    with servers.serve(own, name="a test") as found:
        status = servers.status(own)
        with pytest.raises(EmbeddedError, match="runs without the embedded postgres: its environment names another"):
            servers.complete(fresh)

    assert found.database_url == own.database_url
    assert status is not None
    assert status.pids.keys() == {"valkey"}


def test_status_of_a_folder_never_used_is_none_and_makes_nothing(fresh: Settings) -> None:
    assert servers.status(fresh) is None
    assert not fresh.data_dir.exists()


def test_remove_leaves_the_local_key_and_nothing_else(fresh: Settings) -> None:
    with servers.serve(fresh, name="a test"):
        found = folders.find(fresh.data_dir)
    assert found
    (fresh.data_dir / "secret.key").touch()

    servers.remove(fresh)

    assert [path.name for path in fresh.data_dir.iterdir()] == ["secret.key"]
    assert not found.servers.exists()
    assert not found.sockets.exists()


def test_a_deleted_folder_is_made_again(fresh: Settings) -> None:
    with servers.serve(fresh, name="a test"):
        pass
    servers.remove(fresh)
    shutil.rmtree(fresh.data_dir)

    with servers.serve(fresh, name="a test") as found:
        assert query(found, "SELECT 1") == [(1,)]


def test_servers_see_nothing_of_the_environment(shared: Settings) -> None:
    with process("serve", shared, env={"PIPEDRIVE_CLIENT_SECRET": "hunter2"}) as holder:
        holder.urls()

        for name in BOTH:
            assert b"hunter2" not in Path(f"/proc/{server_pids(shared, name)[0]}/environ").read_bytes()


def own_servers(data_dir: Path) -> Settings:
    return Settings(
        data_dir=data_dir,
        database_url="postgresql://db.example/pipeline",
        redis_url="redis://redis.example/0",
        broker_url="amqp://rabbit.example",
    )
