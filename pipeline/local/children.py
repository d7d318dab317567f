"""Supervise programs: restart them with growing pauses when they die, and stop them in order. Run single commands. End
processes that a crash left running.

Each program has its own process session, so that Ctrl-C reaches only the supervising process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.local.errors import LOG_LINES, EmbeddedError, failed
from pipeline.local.folders import Account, Folders

WriteLine = Callable[[str, str], None]
"""(name of the program, one line of what it wrote)"""

STEADY_S = 30.0
"""A program that ran this long has started successfully: the next pause is the shortest again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
POLL_S = 0.05
SUPERVISOR = "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """A folder to run in, without this process's environment, with files closed to other accounts.

    account  the account to run as; None for this process's own
    log      the file that it writes to; all others write to `WriteLine`
    prepare  removes what a crash left; called before each start
    """

    folder: Path
    account: Account | None
    log: Path
    prepare: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProgram:
    """What to run, and how to stop it.

    command       runs in this process's working directory, from which no module is imported (Python's option -P)
    environment   what differs from this process's: name → value, or None for a name that must not be there
    niceness      how much it yields to the others when all want the processor: 0 not at all, 19 always
    stop_signals  signals that end it, the politest first, and how many seconds each is given before the next; SIGKILL is
                  last. SIGTERM is a worker's warm shutdown: 2 s when idle. (With REMAP_SIGTERM=SIGQUIT, right where deploys
                  must not wait for a stage, an idle worker takes 12 s.) A stage that is cut off is resumed when its lease
                  has expired
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str | None] = field(repr=False)
    niceness: int = 0
    stop_signals: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 5.0), (signal.SIGTERM, 5.0))
    confinement: Confinement | None = None


@dataclass(slots=True)
class Child:
    """A program while it is supervised."""

    program: ChildProgram
    process: subprocess.Popen[bytes]
    started_at: float
    restarts: int = 0
    pause_s: float = FIRST_PAUSE_S
    restart_at: float | None = None


class Children:
    """Start, look after and stop programs; `look_after` must be called again and again."""

    def __init__(self, write_line: WriteLine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write_line, self._clock = write_line, clock
        self._children: dict[str, Child] = {}
        self._is_stopping = False

    def start(self, program: ChildProgram) -> None:
        self._children[program.name] = Child(program, self._spawn(program), self._clock())

    def look_after(self) -> None:
        """Restart programs that have died, after their pause."""
        for child in () if self._is_stopping else self._children.values():
            if child.restart_at is None:
                self._notice_death(child)
            elif self._clock() >= child.restart_at:
                self._restart(child)

    def restarts(self) -> dict[str, int]:
        """Return how often each program was restarted."""
        return {name: child.restarts for name, child in self._children.items() if child.restarts}

    def pids(self) -> dict[str, int]:
        """Return name → process id."""
        return {name: child.process.pid for name, child in self._children.items()}

    def exit_code(self, name: str) -> int | None:
        """Return how a program ended, None while it runs."""
        return self._children[name].process.poll()

    def stop(self) -> None:
        """Signal all, the last started first, and return when all have ended. Nothing is restarted any more."""
        self._is_stopping = True
        begun = self._clock()
        due = {name: list(_signals(child.program)) for name, child in reversed(self._children.items())}
        while running := [name for name in due if self.exit_code(name) is None]:
            for name in running:
                while due[name] and self._clock() - begun >= due[name][0][1]:
                    _signal(self._children[name], due[name].pop(0)[0])
            time.sleep(POLL_S)

    def _notice_death(self, child: Child) -> None:
        code = child.process.poll()
        if code is None:
            return
        if self._clock() - child.started_at >= STEADY_S:
            child.pause_s = FIRST_PAUSE_S
        child.restart_at = self._clock() + child.pause_s
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._write_line(SUPERVISOR, f"{child.program.name} died ({how}); starting it again in {child.pause_s:.1f} s")
        child.pause_s = min(child.pause_s * 2, LONGEST_PAUSE_S)

    def _restart(self, child: Child) -> None:
        child.restarts += 1
        try:
            child.process = self._spawn(child.program)
        except (EmbeddedError, OSError) as error:  # its folder or its program may be missing for a while
            self._write_line(SUPERVISOR, f"{child.program.name} cannot be started: {error}")
            child.restart_at = self._clock() + LONGEST_PAUSE_S
        else:
            child.started_at, child.restart_at = self._clock(), None

    def _spawn(self, program: ChildProgram) -> subprocess.Popen[bytes]:
        confined = program.confinement
        if confined:
            confined.prepare()
        output = open_log(confined.log) if confined else subprocess.PIPE
        process = subprocess.Popen(  # noqa: S603 - our own commands, put together in this package
            [sys.executable, "-P", "-m", "pipeline.local.child", str(os.getpid()), *program.command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        given = {
            "niceness": program.niceness,
            "signal": program.stop_signals[0][0],
            "environment": dict(program.environment),
            "keeps_environment": confined is None,
            "umask": 0o077 if confined else None,
            "folder": str(confined.folder) if confined else None,
            "account": [confined.account.uid, confined.account.gid] if confined and confined.account else None,
        }
        if process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(json.dumps(given).encode())
        if confined:
            os.close(output)
        else:
            threading.Thread(target=self._listen, args=(program.name, process), daemon=True).start()
        return process

    def _listen(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._write_line(name, line.decode("utf-8", "replace").rstrip("\n"))


LEFTOVER_S = 75.0  # seconds that leftover processes have to stop
LOG_LIMIT_BYTES = 10_000_000
_PROCESS_POLL_S = 0.02
# Nothing of the caller's environment: it may hold secrets, and PG* or LC_* variables would change what a server does.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def until(timeout_s: float) -> Iterator[None]:
    """Yield immediately and then at short intervals, until the timeout has passed."""
    deadline = time.monotonic() + timeout_s
    yield
    while time.monotonic() < deadline:
        time.sleep(_PROCESS_POLL_S)
        yield


def run(command: tuple[str, ...], folders: Folders, folder: Path, *, text_in: str = "") -> None:
    """Run one command of a server under the servers' account.

    Raises: EmbeddedError with its output if it fails.
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
    """Open a log for appending; a large log is renamed first."""
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _signals(program: ChildProgram) -> list[tuple[signal.Signals, float]]:
    """Return the signals that stop it, each with the seconds after which it is due."""
    after_s, found = 0.0, []
    for number, patience_s in (*program.stop_signals, (signal.SIGKILL, 0.0)):
        found.append((number, after_s))
        after_s += patience_s
    return found


def _signal(child: Child, number: signal.Signals) -> None:
    """Send a signal: SIGKILL to the program and its children, others to the program, which ends its own children."""
    with suppress(ProcessLookupError):
        if number is signal.SIGKILL:
            os.killpg(child.process.pid, number)
        else:
            child.process.send_signal(number)
