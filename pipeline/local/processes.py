"""Processes of the embedded servers: those that run for a moment, and those that a crash left running."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.local.errors import LOG_LINES, failed
from pipeline.local.folders import Folders

LEFTOVER_S = 75.0  # seconds that leftover processes have to stop
LOG_LIMIT_BYTES = 10_000_000
POLL_S = 0.02
# Nothing of the caller's environment: it may hold secrets, and PG* or LC_* variables would change what a server does.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def until(timeout_s: float) -> Iterator[None]:
    """Yield immediately and then at short intervals, until that long has passed."""
    deadline = time.monotonic() + timeout_s
    yield
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        yield


def run(command: tuple[str, ...], folders: Folders, folder: Path, *, text_in: str = "") -> None:
    """Run a program of a server's to its end, under the servers' account.

    Raises: EmbeddedError with what it wrote when it fails.
    """
    account = folders.account
    done = subprocess.run(  # noqa: S603  # a program out of our own wheels
        command,
        cwd=folder,
        input=text_in,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=ENVIRONMENT,
        umask=0o077,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-LOG_LINES:])
        raise failed(f"{Path(command[0]).name} failed with status {done.returncode}:", end)


def running_in(folder: Path, program: str) -> list[int]:
    """Return the ids of the processes that run this program with this folder as their working directory, the oldest first."""
    found, folder = {}, folder.resolve()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # processes end while we look, and some are not readable
            if (entry / "cwd").readlink() == folder:
                name, _, fields = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                if name == program:
                    found[int(entry.name)] = int(fields.split()[19])  # starttime: proc_pid_stat(5)
    return sorted(found, key=lambda pid: found[pid])


def end_leftovers(folder: Path, program: str, number: signal.Signals) -> None:
    """End what a crash left running: servers without a parent, and backends without a server.

    A backend of PostgreSQL notices only at the end of its query that its server has died.
    Raises: EmbeddedError if not even SIGKILL helps.
    """
    for each, patience_s in ((number, LEFTOVER_S), (signal.SIGKILL, 10.0)):
        for pid in running_in(folder, program):
            with suppress(ProcessLookupError):
                os.kill(pid, each)
        for _ in until(patience_s):
            if not running_in(folder, program):
                return
    raise failed(f"Processes of an earlier {program} in {folder} do not end; stop them.")


def open_log(path: Path) -> int:
    """Open a log to append to; one that has grown large is put aside first."""
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
