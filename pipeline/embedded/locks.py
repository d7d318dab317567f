"""File locks that say who is alive: the kernel lets go of them when a process ends, however it ends.

start         exclusive, while a process looks whether the servers run and starts them
NAME.in-use   shared, by every process that uses the server; its keeper, getting it alone, knows that all have gone
NAME.keeper   exclusive, by the keeper of the server for its life; holds the pids of keeper and server
NAME.running  exclusive, inherited by the server and all its children: free only when the last of them has ended
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

POLL_S = 0.02


def open_lock(path: Path) -> int:
    """Open a lock file, making it if need be. A program started later does not inherit it, a forked child does."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def take(descriptor: int, *, shared: bool = False, timeout_s: float = 0.0) -> bool:
    """Take the lock, waiting at most that long; say whether it was got."""
    for _ in until(timeout_s):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
    return False


@contextmanager
def taken(path: Path, *, timeout_s: float) -> Iterator[bool]:
    """Hold a lock alone for the length of a block, which is told whether it was got."""
    descriptor = open_lock(path)
    try:
        yield take(descriptor, timeout_s=timeout_s)
    finally:
        os.close(descriptor)


def until(timeout_s: float) -> Iterator[None]:
    """Give the caller a try at once and then at intervals, until that long has passed."""
    deadline = time.monotonic() + timeout_s
    yield
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        yield


def is_held(path: Path) -> bool:
    """Say whether some process holds this lock at this moment."""
    if not path.exists():
        return False
    with taken(path, timeout_s=0.0) as free:
        return not free


def wait_free(path: Path, *, timeout_s: float) -> bool:
    """Wait until nobody holds this lock; say whether that came about."""
    with taken(path, timeout_s=timeout_s) as free:
        return free


def openers(path: Path, program: str) -> list[int]:
    """Return the ids of the processes that run this program and have this file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # processes end while we look, and some are not ours to look at
            if link.readlink() == path and (link.parent.parent / "exe").readlink().name == program:
                found.add(int(link.parts[2]))
    return sorted(found)
