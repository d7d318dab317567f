"""Starting and stopping a server as a child of its keeper, under the servers' account."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pipeline.embedded import locks
from pipeline.embedded.errors import LOG_LINES, failed
from pipeline.embedded.folders import Folders

LEFTOVER_S = 75.0  # how long an earlier server, told to stop, may take to end
LOG_LIMIT_BYTES = 10_000_000
# Nothing of the caller's environment: it may hold secrets, and PG* or LC_* variables would change what a server does.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a keeper must know of a server."""

    name: str
    command: tuple[str, ...]
    folder: Path
    #: Signals that end it, the politest first, and how many seconds each is given.
    stop_signals: tuple[tuple[signal.Signals, float], ...]
    #: Whether it answers.
    is_ready: Callable[[], bool]


def launch(server: Server, folders: Folders) -> subprocess.Popen[bytes]:
    """Start the server; `clear_earlier` comes first.

    The server and all its children inherit the `running` lock, so that it tells when the last of them has ended. Should
    the keeper die, the kernel sends the server its politest signal: no server outlives its keeper.
    """
    log = open_log(folders.log(server.name))
    descriptor = locks.open_lock(folders.lock(f"{server.name}.running"))
    try:
        locks.take(descriptor)
        return subprocess.Popen(  # noqa: S603  # a program out of our own wheels
            server.command,
            cwd=server.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(descriptor,),
            preexec_fn=_die_with(os.getpid(), server.stop_signals[0][0]),  # noqa: PLW1509  # a keeper has one thread
            env=ENVIRONMENT,
            umask=0o077,
            **_account(folders),
        )
    finally:
        os.close(descriptor)
        os.close(log)


def clear_earlier(name: str, program: Path, folders: Folders) -> None:
    """Wait until nothing is left of an earlier start; what does not end by itself is killed.

    A PostgreSQL backend that outlives its postmaster sees so only when its query ends.
    Raises: EmbeddedError when that does not help.
    """
    lock = folders.lock(f"{name}.running")
    if locks.wait_free(lock, timeout_s=LEFTOVER_S):
        return
    for pid in locks.openers(lock, program.name):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not locks.wait_free(lock, timeout_s=10):
        raise failed(f"Processes of an earlier {name} in {folders.servers} do not end; stop them.")


def stop(child: subprocess.Popen[bytes], server: Server) -> None:
    """End the server with the politest signal that works."""
    for number, patience_s in (*server.stop_signals, (signal.SIGKILL, 10.0)):
        child.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience_s)
            return


def run(command: tuple[str, ...], folders: Folders, folder: Path, *, text_in: str = "") -> None:
    """Run a program of a server's to its end.

    Raises: EmbeddedError with what it said when it fails.
    """
    done = subprocess.run(  # noqa: S603  # a program out of our own wheels
        command,
        cwd=folder,
        input=text_in,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=_die_with(os.getpid(), signal.SIGTERM),  # a keeper has one thread
        env=ENVIRONMENT,
        umask=0o077,
        **_account(folders),
    )
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-LOG_LINES:])
        raise failed(f"{Path(command[0]).name} failed with status {done.returncode}:", end)


class _Account(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _account(folders: Folders) -> _Account:
    """Say to subprocess under whom it starts a program."""
    if folders.account is None:
        return {}
    return {"user": folders.account.uid, "group": folders.account.gid, "extra_groups": []}


def open_log(path: Path) -> int:
    """Open a log to append to; one that has grown large is put aside first."""
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _die_with(keeper: int, last_signal: signal.Signals) -> Callable[[], None]:
    """Make the function that runs in the child, after it has changed account (which would undo the request)."""

    def request() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(last_signal), 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the keeper blocks signals to wait for them
        if os.getppid() != keeper:  # it died before the request was made
            os._exit(1)

    return request
