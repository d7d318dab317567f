"""Processes that use the embedded servers, and what tests do to them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis
import sqlalchemy as sa

from pipeline.data_dir import PROJECT_DIR
from pipeline.embedded import Servers, locks
from pipeline.settings import Settings

PATIENCE_S = 60.0
BOTH = {"postgres", "valkey"}
# A process that uses the servers until its standard input ends, and says where they are.
USER = """
import os, sys
from pathlib import Path
from pipeline import embedded
from pipeline.settings import Settings
servers = embedded.ensure(Settings(data_dir=Path(sys.argv[1])))
if "fork" in sys.argv and os.fork():
    os._exit(0)
print(os.getpid(), servers.database_url, servers.redis_url, servers.broker_url, flush=True)
sys.stdin.read()
"""


@contextmanager
def user_of(settings: Settings, *words: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a process that uses the servers; the block starts as soon as it does, and may kill it."""
    user = subprocess.Popen(  # this very Python
        [sys.executable, "-c", USER, str(settings.data_dir), *words],
        cwd=PROJECT_DIR,
        env=os.environ | (env or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield user
    finally:
        with suppress(BrokenPipeError):
            user.communicate(timeout=PATIENCE_S)


def told_by(user: subprocess.Popen[str]) -> tuple[int, Servers]:
    """Return the process id and the URLs that a user prints once its servers answer."""
    assert user.stdout is not None
    pid, database_url, redis_url, broker_url = user.stdout.readline().split()
    return int(pid), Servers(database_url=database_url, redis_url=redis_url, broker_url=broker_url)


def kill(*pids: int) -> None:
    """Kill processes outright, all at once, and wait until they are gone."""
    descriptors = [os.pidfd_open(pid) for pid in pids]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], PATIENCE_S)[0]
        os.close(descriptor)


def wait_stopped(settings: Settings, *names: str) -> None:
    for name in names or BOTH:
        for kind in ("keeper", "running"):
            assert locks.wait_free(settings.data_dir / "locks" / f"{name}.{kind}", timeout_s=PATIENCE_S)


def query(servers: Servers, *statements: str, **values: str) -> list[tuple[object, ...]]:
    """Run statements in one transaction, with these values bound; return the rows of the last."""
    engine = sa.create_engine(servers.database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        results = [connection.execute(sa.text(statement), values) for statement in statements]
        return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []


@contextmanager
def redis_of(servers: Servers) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(servers.redis_url, decode_responses=True)
    try:
        yield client
    finally:
        client.close()


def write_both(servers: Servers, value: str) -> None:
    """Leave a value in both servers, past any crash."""
    query(servers, "CREATE TABLE IF NOT EXISTS kept (value text)")
    query(servers, "INSERT INTO kept VALUES (:value)", value=value)
    with redis_of(servers) as client:
        client.set(value, "kept")
        # A crash may take the last second; this waits until the value is on disk.
        client.execute_command("WAITAOF", 1, 0, 10_000)  # type: ignore[no-untyped-call]


def assert_both_hold(servers: Servers, value: str) -> None:
    """Check that both servers still have it."""
    assert query(servers, "SELECT count(*) FROM kept WHERE value = :value", value=value) == [(1,)]
    with redis_of(servers) as client:
        assert client.get(value) == "kept"
