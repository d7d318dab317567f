"""The keeper of one embedded server: `python -m pipeline.embedded.keeper DATA_DIR postgres|valkey`.

It leaves the terminal and the process group of whoever started it, starts its server, starts it again should it end,
and stops it when the last process that used it has gone. The command returns when the server answers (status 0) or
cannot be started (status 1, with the reason on standard error); the keeper itself stays behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.embedded import folders as folders_module
from pipeline.embedded import locks, postgres, process, valkey
from pipeline.embedded.binaries import Binaries, programs
from pipeline.embedded.errors import EmbeddedError, failed
from pipeline.embedded.folders import Folders
from pipeline.embedded.process import Server

EARLIER_S = 90.0  # how long an earlier keeper, told to stop, may take to end
START_S = 300.0  # PostgreSQL after a crash: up to 4 GB of write-ahead log to go through again
LOOK_S = 0.25  # how often the keeper looks whether it is still needed
CRASHES, CRASHES_WITHIN_S = 5, 60.0  # a server that ends this often is given up
_PROGRAM: dict[str, Callable[[Binaries], Path]] = {
    postgres.NAME: lambda found: found.postgres,
    valkey.NAME: lambda found: found.valkey_server,
}
_PREPARE = {postgres.NAME: postgres.prepare, valkey.NAME: valkey.prepare}
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def main(argv: list[str]) -> int:
    """Leave a keeper behind and say how its start went."""
    data_dir, name = Path(argv[0]), argv[1]
    folders = folders_module.find(data_dir)
    if folders is None:
        raise SystemExit(f"{data_dir} holds no embedded servers")
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os._exit(_detached(folders, name, writer))
    os.close(writer)
    with os.fdopen(reader) as result:
        words = result.read() or str(failed(f"The keeper of {name} ended early:", log=folders.log("keeper")))
    if words == "ready":
        return 0
    sys.stderr.write(words)
    return 1


def _detached(folders: Folders, name: str, writer: int) -> int:
    """Run as the keeper, without a thing of the starter's but the pipe for the result."""
    os.setsid()
    os.chdir("/")
    log = process.open_log(folders.log("keeper"))
    for stream in (1, 2):
        os.dup2(log, stream)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # a shell lets its background jobs ignore some, and that is inherited
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        _keep(folders, name, writer)
    except (EmbeddedError, OSError) as error:
        told = error if isinstance(error, EmbeddedError) else failed(f"{name} cannot be started:", str(error))
        _report(writer, str(told))
        _say(str(told))
        return 1
    except BaseException:  # noqa: BLE001  # the last frame of the process: everything goes to the log
        _say(traceback.format_exc())
        return 1
    return 0


def _keep(folders: Folders, name: str, writer: int) -> None:
    """Hold the keeper's lock, and with it the server, for as long as anybody uses it."""
    descriptor = locks.open_lock(folders.lock(f"{name}.keeper"))
    if not locks.take(descriptor, timeout_s=EARLIER_S):
        raise failed(f"An earlier keeper of {name} does not end.", log=folders.log("keeper"))
    _write_pids(descriptor, os.getpid())
    in_use = locks.open_lock(folders.lock(f"{name}.in-use"))
    server, child = _start(folders, name, descriptor)
    _report(writer, "ready")
    crashes: list[float] = []
    while not locks.take(in_use):
        caught = signal.sigtimedwait(_SIGNALS, LOOK_S)
        if caught and caught.si_signo != signal.SIGCHLD:
            break
        if child.poll() is not None:
            _say(f"{name} ended with status {child.returncode} while in use; starting it again")
            crashes = [moment for moment in crashes if moment > time.monotonic() - CRASHES_WITHIN_S]
            crashes.append(time.monotonic())
            if len(crashes) >= CRASHES:
                raise failed(f"{name} ended {CRASHES} times within a minute; given up.", log=folders.log(name))
            server, child = _start(folders, name, descriptor)
    process.stop(child, server)
    _say(f"{name} stopped")


def _start(folders: Folders, name: str, descriptor: int) -> tuple[Server, subprocess.Popen[bytes]]:
    """Start the server and wait until it answers."""
    binaries = programs(folders)
    process.clear_earlier(name, _PROGRAM[name](binaries), folders)
    server = _PREPARE[name](folders, binaries)
    child = process.launch(server, folders)
    _write_pids(descriptor, os.getpid(), child.pid)
    for _ in locks.until(START_S):
        if server.is_ready():
            _say(f"{name} runs as process {child.pid}")
            return server, child
        if child.poll() is not None:
            raise failed(f"{name} ended with status {child.returncode} as it started:", log=folders.log(name))
    process.stop(child, server)
    raise failed(f"{name} did not answer within {START_S:.0f} s:", log=folders.log(name))


def _write_pids(descriptor: int, *pids: int) -> None:
    """Leave the ids where `status` and `stop` find them: in the lock that this keeper holds."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, " ".join(map(str, pids)).encode(), 0)


def _report(writer: int, words: str) -> None:
    """Tell the starter, once; a keeper that fails later has only its log."""
    with suppress(OSError):  # the starter has gone, or was told already
        os.write(writer, words.encode())
        os.close(writer)


def _say(words: str) -> None:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    with suppress(OSError):  # a full disk
        sys.stderr.write(f"{moment} UTC [{os.getpid()}] {words}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
