"""Processes that run or use the embedded servers, and what tests do to them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import redis
import sqlalchemy as sa

from pipeline.local import folders, servers
from pipeline.local.children import running_in, until
from pipeline.settings import PROJECT_DIR, Settings

PATIENCE_S = 60.0
COMMANDS = {"postgres": "postgres", "valkey": "valkey-server"}
BOTH = set(COMMANDS)
# A process that has the servers until its standard input ends, and writes where they are.
PROGRAM = """
import os, sys
from contextlib import ExitStack
from pathlib import Path
from pipeline.local import servers
from pipeline.local.errors import EmbeddedError
from pipeline.settings import Settings

how, settings = sys.argv[1], Settings(data_dir=Path(sys.argv[2]))
with ExitStack() as stack:
    try:
        if how == "serve":
            found = stack.enter_context(servers.serve(settings, name="pipeline up"))
        else:
            found = servers.complete(settings, shares=how == "shares")
    except EmbeddedError as error:
        sys.exit(str(error))
    print(found.database_url, found.redis_url, found.broker_url, flush=True)
    sys.stdin.read()
"""


@dataclass(slots=True)
class Process:
    """A process of ours; `urls` waits until it has its servers."""

    popen: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.popen.pid

    def urls(self) -> list[str]:
        """Return its three URLs; none if it failed."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().split()

    def error(self) -> str:
        """Return what it wrote when it failed, after it has ended with status 1."""
        _, words = self.popen.communicate(timeout=PATIENCE_S)
        assert self.popen.returncode == 1
        return words

    def end(self) -> None:
        """Let it end by itself."""
        with suppress(BrokenPipeError):
            self.popen.communicate(timeout=PATIENCE_S)


@contextmanager
def process(how: str, settings: Settings, *, env: dict[str, str] | None = None) -> Iterator[Process]:
    """Start a process that serves (`serve`), or that completes its settings (`shares`, `alone`)."""
    popen = subprocess.Popen(  # this very Python
        [sys.executable, "-c", PROGRAM, how, str(settings.data_dir)],
        cwd=PROJECT_DIR,
        env=os.environ | (env or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    made = Process(popen)
    try:
        yield made
    finally:
        made.end()


def server_pids(settings: Settings, name: str) -> list[int]:
    """Return the ids of a server's processes, the server first."""
    found = folders.find(settings.data_dir)
    return running_in(found.servers / name, COMMANDS[name]) if found else []


def kill(*pids: int) -> None:
    """Kill processes outright, all together, and wait until they are gone."""
    descriptors = [os.pidfd_open(pid) for pid in pids]
    for descriptor in descriptors:
        with suppress(ProcessLookupError):  # it may have died with its parent already
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], PATIENCE_S)[0]
        os.close(descriptor)


def wait_stopped(settings: Settings) -> None:
    """Wait until no process of any server is left."""
    assert any(not any(server_pids(settings, name) for name in BOTH) for _ in until(PATIENCE_S))
    assert servers.status(settings) is None


def query(found: Settings, *statements: str, **values: str) -> list[tuple[object, ...]]:
    """Run statements in one transaction, with these values bound; return the rows of the last."""
    engine = sa.create_engine(found.database_url or "", poolclass=sa.NullPool)
    with engine.begin() as connection:
        results = [connection.execute(sa.text(statement), values) for statement in statements]
        return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []


@contextmanager
def redis_of(found: Settings) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(found.redis_url or "", decode_responses=True)
    try:
        yield client
    finally:
        client.close()


def write_both(found: Settings, value: str) -> None:
    """Leave a value in both servers, past any crash."""
    query(found, "CREATE TABLE IF NOT EXISTS kept (value text)")
    query(found, "INSERT INTO kept VALUES (:value)", value=value)
    with redis_of(found) as client:
        client.set(value, "kept")
        # A crash may take the last second; this waits until the value is on disk.
        client.execute_command("WAITAOF", 1, 0, 10_000)  # type: ignore[no-untyped-call]


def assert_both_hold(found: Settings, value: str) -> None:
    """Check that both servers still have it."""
    assert query(found, "SELECT count(*) FROM kept WHERE value = :value", value=value) == [(1,)]
    with redis_of(found) as client:
        assert client.get(value) == "kept"
