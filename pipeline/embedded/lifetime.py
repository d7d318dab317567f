"""What a process of the pipeline calls: have the servers run for as long as this process lives.

Every caller holds the servers' `in-use` locks, shared, until it ends; children it forks hold them too (a worker child
keeps its servers), programs it starts do not (they call `ensure` themselves). When nobody holds its lock any more, the
keeper stops the server.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.data_dir import make_data_dir
from pipeline.embedded import binaries, locks, postgres, valkey
from pipeline.embedded import folders as folders_module
from pipeline.embedded.errors import EmbeddedError, failed
from pipeline.embedded.folders import Folders
from pipeline.settings import Settings

WAIT_S = 400.0  # longer than a keeper may take to start a server, or one to stop and the next to start
_IS_READY: dict[str, Callable[[Folders], bool]] = {postgres.NAME: postgres.is_ready, valkey.NAME: valkey.is_ready}

_held: dict[Path, int] = {}  # the in-use locks of this process: path → open file


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where the three servers are, as SQLAlchemy, redis-py and kombu write it. May hold passwords: not to be shown."""

    database_url: str
    redis_url: str
    broker_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One embedded server: the process ids of keeper and server (None until it is started), and whether it answers."""

    keeper_pid: int
    server_pid: int | None
    ready: bool


def ensure(settings: Settings) -> Servers:
    """Return servers that answer: the ones the settings name, and embedded ones, started if need be, for the rest.

    Call it at the start of every process; it is quick when everything runs, and any number may call it at once.
    Raises: EmbeddedError saying what failed, the last lines of the log and the next step.
    """
    wanted = _wanted(settings)
    if not wanted:
        return _servers(settings, None)
    binaries.require_installed()
    _make_folders(settings.data_dir)
    for name in wanted:
        _hold(_in_use(settings, name))
    with locks.taken(settings.data_dir / "locks" / "start", timeout_s=WAIT_S) as alone:
        if not alone:
            raise failed(f"Another process has been starting the servers of {settings.data_dir} for {WAIT_S:.0f} s.")
        folders = _place(settings.data_dir)
        for name in wanted:
            _have_running(folders, name)
    return _servers(settings, folders)


def complete(settings: Settings) -> Settings:
    """Return the settings with every server URL filled in, once all of them answer (see `ensure`)."""
    servers = ensure(settings)
    return settings.replace(
        database_url=servers.database_url,
        redis_url=servers.redis_url,
        broker_url=servers.broker_url,
    )


def release(settings: Settings) -> None:
    """Use the embedded servers no longer: they stop unless somebody else, or a forked child, still does."""
    for name in _IS_READY:
        descriptor = _held.pop(_in_use(settings, name), None)
        if descriptor is not None:
            os.close(descriptor)


def status(settings: Settings) -> dict[str, State]:
    """Return the embedded servers that have a keeper, by name."""
    folders = folders_module.find(settings.data_dir)
    if folders is None:
        return {}
    found = {name: _state(folders, name) for name in _IS_READY}
    return {name: state for name, state in found.items() if state is not None}


def stop(settings: Settings) -> None:
    """Stop the embedded servers now, whoever uses them, and return when they have ended. The data stays.

    Raises: EmbeddedError when one does not end.
    """
    release(settings)
    folders = folders_module.find(settings.data_dir)
    if folders is None:
        return
    for state in status(settings).values():
        with suppress(ProcessLookupError):
            os.kill(state.keeper_pid, signal.SIGTERM)
    for name in _IS_READY:
        for lock in (folders.lock(f"{name}.keeper"), folders.lock(f"{name}.running")):
            if lock.exists() and not locks.wait_free(lock, timeout_s=WAIT_S):
                raise failed(f"{name} does not end.", log=folders.log("keeper"))


def remove(settings: Settings) -> None:
    """Stop the embedded servers and delete their data, sockets, locks and logs; the local key stays."""
    stop(settings)
    folders = folders_module.find(settings.data_dir)
    if folders is None:
        return
    for path in (folders.servers, folders.sockets, settings.data_dir / "locks", settings.data_dir / "log"):
        shutil.rmtree(path, ignore_errors=True)
    folders_module.forget(settings.data_dir)


def _wanted(settings: Settings) -> list[str]:
    """Name the embedded servers that the settings leave to us."""
    wanted = [postgres.NAME] if settings.database_url is None else []
    return wanted + ([valkey.NAME] if settings.redis_url is None or settings.broker_url is None else [])


def _servers(settings: Settings, folders: Folders | None) -> Servers:
    return Servers(
        database_url=settings.database_url or _embedded(postgres.url, folders),
        redis_url=settings.redis_url or _embedded(valkey.url, folders),
        broker_url=settings.broker_url or _embedded(valkey.broker_url, folders),
    )


def _embedded(url: Callable[[Folders], str], folders: Folders | None) -> str:
    assert folders is not None  # noqa: S101  # for the type checker: whoever lacks a URL has had folders made
    return url(folders)


def _make_folders(data_dir: Path) -> None:
    try:
        make_data_dir(data_dir)
    except OSError as error:
        raise failed(f"The embedded servers' folder cannot be made: DATA_DIR={data_dir}", str(error)) from error
    folders_module.make_own_folders(data_dir)


def _place(data_dir: Path) -> Folders:
    try:
        return folders_module.place(data_dir)
    except OSError as error:
        raise failed(f"The embedded servers' folders cannot be made for DATA_DIR={data_dir}:", str(error)) from error


def _in_use(settings: Settings, name: str) -> Path:
    return settings.data_dir / "locks" / f"{name}.in-use"


def _hold(path: Path) -> None:
    """Take an in-use lock for the life of this process; a keeper that stops its server has it alone meanwhile."""
    if path in _held:
        if path.exists() and os.path.samestat(os.fstat(_held[path]), path.stat()):
            return
        os.close(_held.pop(path))  # DATA_DIR was deleted and made again
    descriptor = locks.open_lock(path)
    if not locks.take(descriptor, shared=True, timeout_s=WAIT_S):
        os.close(descriptor)
        raise failed(f"A server has been stopping for {WAIT_S:.0f} s; its keeper holds {path}.")
    _held[path] = descriptor


def _have_running(folders: Folders, name: str) -> None:
    """Wait for the server whose keeper is at work; start a keeper where there is none."""
    keeper = folders.lock(f"{name}.keeper")
    for _ in locks.until(WAIT_S):
        if not locks.is_held(keeper):
            _start_keeper(folders, name)
        if _IS_READY[name](folders):
            return
    raise failed(f"{name} does not answer.", log=folders.log(name))


def _start_keeper(folders: Folders, name: str) -> None:
    """Start a keeper and wait until its server answers.

    It searches modules where this process does, in an environment without this one's variables: they may hold secrets.
    """
    places = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(  # noqa: S603  # this very Python, with a module of ours
        [sys.executable, "-P", "-m", "pipeline.embedded.keeper", str(folders.data_dir), name],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": places},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        raise EmbeddedError(done.stderr.strip())


def _state(folders: Folders, name: str) -> State | None:
    lock = folders.lock(f"{name}.keeper")
    pids = lock.read_text().split() if locks.is_held(lock) else []
    if not pids:
        return None
    server_pid = int(pids[1]) if len(pids) > 1 else None
    return State(keeper_pid=int(pids[0]), server_pid=server_pid, ready=_IS_READY[name](folders))
