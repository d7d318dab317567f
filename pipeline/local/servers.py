"""Run the embedded servers once, for all processes that use them.

One process at a time runs them, as its children, under an exclusive lock on `DATA_DIR/servers.lock`; the kernel frees
the lock and ends the servers when that process ends in any way. The file identifies it.

    serve      run the servers during a block (`pipeline up`, `pipeline demo`, test runs); other processes use them too
    complete   use another process's servers, or run them here until this process ends
    status, stop, remove   for people and tests
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.local import folders as folders_module
from pipeline.local.children import Children, WriteLine, running_in, until
from pipeline.local.embedded import SERVERS, Postgres, Valkey, find_binaries, require_installed
from pipeline.local.errors import EmbeddedError, failed
from pipeline.local.folders import Folders
from pipeline.settings import Settings

START_S = 300.0  # PostgreSQL after a crash: up to 4 GB of write-ahead log to go through again
TURN_S = 60.0  # how long a process waits for another one that does not share its servers
STOP_S = 120.0
LOOK_S = 0.25
LOCK = "servers.lock"

_mine = ExitStack()
"""The servers that this process runs until it ends."""


@dataclass(frozen=True, slots=True)
class ServersHolder:
    """The process that runs the servers of a DATA_DIR.

    name     its name, for people
    shares   whether others may use its servers
    servers  the servers that it runs; without those that its environment names
    """

    pid: int
    name: str
    shares: bool
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServersStatus:
    """The process that runs the servers, and, by name, their process ids and the servers that answer."""

    holder: ServersHolder
    pids: dict[str, int]
    ready: frozenset[str]


@contextmanager
def serve(settings: Settings, *, name: str, write_line: WriteLine | None = None) -> Iterator[Settings]:
    """Run the servers that the settings do not name, while a block runs; restart one that dies.

    name        the name of this process, for people: `pipeline up`
    write_line  gets a line when a server dies
    Yields the settings with every URL filled in. All processes of this DATA_DIR may use the servers.
    Raises: EmbeddedError, also if another process runs the servers of this DATA_DIR.
    """
    wanted = _wanted(settings)
    with ExitStack() as stack:
        try:
            _require(settings.data_dir, wanted)
        except EmbeddedError:
            if wanted:
                raise  # else nothing is kept in it
        else:
            stack.enter_context(
                _locked(settings.data_dir, ServersHolder(os.getpid(), name, shares=True, servers=wanted))
            )
        yield stack.enter_context(_running(settings, wanted, write_line, restarts=True))


def complete(settings: Settings, *, shares: bool = False) -> Settings:
    """Return the settings with every URL filled in, once all servers answer.

    Use the servers of a process that shares its own; else run them here until this process ends.

    shares  whether others may use the servers of this process: for long-lived processes such as manually started workers
    Raises: EmbeddedError with what failed, the last lines of the log and the next step.
    """
    wanted = _wanted(settings)
    if not wanted:
        return settings
    _require(settings.data_dir, wanted)
    holder = None
    for _ in until(TURN_S):
        descriptor = _take(settings.data_dir)
        if descriptor is not None:
            return _keep(settings, wanted, descriptor, shares=shares)
        holder = _holder(settings.data_dir)
        if holder is not None and holder.shares:
            return _use(settings, wanted, holder)
    raise _in_use(settings.data_dir, holder)


def status(settings: Settings) -> ServersStatus | None:
    """Return the process that runs the servers of this DATA_DIR, or None."""
    holder, folders = find_holder(settings.data_dir), folders_module.find(settings.data_dir)
    if holder is None or folders is None:
        return None
    pids = {
        name: found[0]
        for name in holder.servers
        if (found := running_in(folders.servers / name, SERVERS[name].command))
    }
    ready = frozenset(name for name in pids if SERVERS[name].is_ready(folders))
    return ServersStatus(holder=holder, pids=pids, ready=ready)


def stop(settings: Settings) -> None:
    """End the process that runs the servers, and with it the servers; return when all have ended. The data stays.

    Raises: EmbeddedError when one does not end.
    """
    _mine.close()
    holder = find_holder(settings.data_dir)
    if holder is not None:
        with suppress(ProcessLookupError):
            os.kill(holder.pid, signal.SIGTERM)
        if not any(find_holder(settings.data_dir) != holder for _ in until(STOP_S)):
            raise failed(f"{holder.name} (process {holder.pid}) does not end.")
    if (folders := folders_module.find(settings.data_dir)) is not None:
        for server in SERVERS.values():
            server.clear_leftovers(folders)


def remove(settings: Settings) -> None:
    """Stop the servers and delete their data, sockets and logs; the local key stays."""
    stop(settings)
    folders = folders_module.find(settings.data_dir)
    if folders is None:
        return
    for path in (folders.servers, folders.sockets, settings.data_dir / "log"):
        shutil.rmtree(path, ignore_errors=True)
    (settings.data_dir / LOCK).unlink(missing_ok=True)
    folders_module.forget(settings.data_dir)


def find_holder(data_dir: Path) -> ServersHolder | None:
    """Return the process that runs the servers of a DATA_DIR, or None."""
    if not (data_dir / LOCK).exists():
        return None
    descriptor = _take(data_dir)
    if descriptor is None:
        return _holder(data_dir)
    os.close(descriptor)
    return None


def _wanted(settings: Settings) -> tuple[str, ...]:
    """Return the servers that the settings do not name."""
    needs = {
        Postgres.name: settings.database_url is None,
        Valkey.name: settings.redis_url is None or settings.broker_url is None,
    }
    return tuple(name for name, needed in needs.items() if needed)


def _require(data_dir: Path, wanted: tuple[str, ...]) -> None:
    """Check what the servers need, before anything is made for them. Raises: EmbeddedError."""
    if wanted:
        require_installed()
    folders_module.require_data_dir(data_dir)


@contextmanager
def _locked(data_dir: Path, holder: ServersHolder) -> Iterator[None]:
    descriptor = _take_in_turn(data_dir)
    try:
        _write_holder(descriptor, holder)
        yield
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _take_in_turn(data_dir: Path) -> int:
    """Take the lock, waiting for a process that does not share. Raises: EmbeddedError."""
    holder = None
    for _ in until(TURN_S):
        descriptor = _take(data_dir)
        if descriptor is not None:
            return descriptor
        holder = _holder(data_dir)
        if holder is not None and holder.shares and Path(f"/proc/{holder.pid}").exists():
            break
    raise _in_use(data_dir, holder)


def _take(data_dir: Path) -> int | None:
    """Take the lock without waiting, and clear the file; None if another process has it.

    Another process may read the file before the new holder has written it, and must not stop the process that has the old
    holder's id by then. Programs that are started later do not get the lock.
    """
    descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    return descriptor


def _write_holder(descriptor: int, holder: ServersHolder) -> None:
    os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)


def _holder(data_dir: Path) -> ServersHolder | None:
    """Return what the holder of the lock wrote; None for a moment at its start."""
    try:
        found = json.loads((data_dir / LOCK).read_text())
        return ServersHolder(**{**found, "servers": tuple(found["servers"])})
    except (OSError, ValueError):
        return None


def _in_use(data_dir: Path, holder: ServersHolder | None) -> EmbeddedError:
    who = f"{holder.name} (process {holder.pid})" if holder else "Another process"
    return EmbeddedError(
        f"{who} already runs with DATA_DIR={data_dir}.\n"
        "  Next step: wait until it has ended or stop it; or set DATA_DIR to another folder."
    )


def _keep(settings: Settings, wanted: tuple[str, ...], descriptor: int, *, shares: bool) -> Settings:
    """Run the servers here until this process ends."""
    name = f"{Path(sys.argv[0]).name} {' '.join(sys.argv[1:2])}".strip()
    owner = os.getpid()
    with ExitStack() as stack:  # the lock is free again if the servers do not start
        stack.callback(os.close, descriptor)
        _write_holder(descriptor, ServersHolder(owner, name, shares=shares, servers=wanted))
        completed = stack.enter_context(_running(settings, wanted, None, restarts=False))
        _mine.push(stack.pop_all())
    atexit.register(lambda: _mine.close() if os.getpid() == owner else None)  # a forked child is not the owner
    return completed


def _use(settings: Settings, wanted: tuple[str, ...], holder: ServersHolder) -> Settings:
    """Wait until the holder's servers answer. Raises: EmbeddedError when it does not run all of those that are wanted."""
    if missing := set(wanted) - set(holder.servers):
        raise EmbeddedError(
            f"{holder.name} (process {holder.pid}) runs without the embedded {' and '.join(sorted(missing))}: its environment "
            "names another server.\n  Next step: give this process the same DATABASE_URL, REDIS_URL and BROKER_URL."
        )
    for _ in until(START_S):
        folders = folders_module.find(settings.data_dir)
        if folders is not None and all(SERVERS[name].is_ready(folders) for name in wanted):
            return _completed(settings, folders)
        if find_holder(settings.data_dir) != holder:
            return complete(settings)
    raise failed(f"The servers of {holder.name} (process {holder.pid}) do not answer.")


@contextmanager
def _running(
    settings: Settings, wanted: tuple[str, ...], write_line: WriteLine | None, *, restarts: bool
) -> Iterator[Settings]:
    """Run servers as children of this process; the lock is held."""
    if not wanted:
        yield settings
        return
    folders = folders_module.place(settings.data_dir)
    programs = find_binaries(folders)
    children, stopping = Children(write_line or (lambda *_: None)), threading.Event()
    looking = threading.Thread(target=_look_after, args=(children, stopping), daemon=True)
    try:
        for name in wanted:
            children.start(SERVERS[name].program(folders, programs))
        for name in wanted:
            _wait_until_ready(children, name, folders)
        if restarts:
            looking.start()
        yield _completed(settings, folders)
    finally:
        children.stop()
        stopping.set()
        if looking.ident is not None:  # it may not end before the servers that it started: the kernel would end them
            looking.join()
            children.stop()  # what it was starting at that moment


def _look_after(children: Children, stopping: threading.Event) -> None:
    while not stopping.wait(LOOK_S):
        children.look_after()


def _wait_until_ready(children: Children, name: str, folders: Folders) -> None:
    for _ in until(START_S):
        if SERVERS[name].is_ready(folders):
            return
        if (code := children.exit_code(name)) is not None:
            raise failed(f"{name} ended with status {code} as it started:", log=folders.log(name))
    raise failed(f"{name} did not answer within {START_S:.0f} s:", log=folders.log(name))


def _completed(settings: Settings, folders: Folders) -> Settings:
    return settings.replace(
        database_url=settings.database_url or Postgres.url(folders),
        redis_url=settings.redis_url or Valkey.url(folders),
        broker_url=settings.broker_url or Valkey.broker_url(folders),
    )
