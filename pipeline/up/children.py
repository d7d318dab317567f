"""Programs that are kept running: restarted with growing pauses when they die, stopped in order at the end.

Each runs in a session of its own, so that Ctrl-C reaches only whoever supervises.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

Tell = Callable[[str, str], None]
"""(name of the program, one line of what it wrote)"""

STEADY_S = 30.0
"""A program that ran this long has started well: the next pause is the shortest again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
POLL_S = 0.05
SUPERVISOR = "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProgram:
    """What to run, and how long it may take to stop: a second SIGTERM after `grace_s`, SIGKILL after twice that.

    command      runs in this process's working directory, from which no module is imported (Python's option -P)
    environment  what differs from this process's: name → value, or None for a name that must not be there
    niceness     how much it yields to the others when all want the processor: 0 not at all, 19 always
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str | None] = field(repr=False)
    grace_s: float = 5.0
    niceness: int = 0


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

    def __init__(self, tell: Tell, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._children: dict[str, Child] = {}

    def start(self, program: ChildProgram) -> None:
        self._children[program.name] = Child(program, self._spawn(program), self._clock())

    def look_after(self) -> None:
        """Restart what has died, when its time has come."""
        for child in self._children.values():
            if child.restart_at is None:
                self._notice_death(child)
            elif self._clock() >= child.restart_at:
                child.process, child.started_at, child.restart_at = self._spawn(child.program), self._clock(), None
                child.restarts += 1

    def restarts(self) -> dict[str, int]:
        """How often each program had to be started again."""
        return {name: child.restarts for name, child in self._children.items() if child.restarts}

    def pids(self) -> dict[str, int]:
        """Name → process id."""
        return {name: child.process.pid for name, child in self._children.items()}

    def stop(self) -> None:
        """Stop all, the last started first told, and return when all have ended."""
        begun = self._clock()
        waiting = [child for child in reversed(self._children.values()) if child.process.poll() is None]
        told = dict.fromkeys((child.program.name for child in waiting), 0)
        while waiting := [child for child in waiting if child.process.poll() is None]:
            for child in waiting:
                overdue = int((self._clock() - begun) / child.program.grace_s)
                while told[child.program.name] <= min(overdue, 2):
                    _signal(child, signal.SIGTERM if told[child.program.name] < 2 else signal.SIGKILL)
                    told[child.program.name] += 1
            time.sleep(POLL_S)

    def _notice_death(self, child: Child) -> None:
        code = child.process.poll()
        if code is None:
            return
        if self._clock() - child.started_at >= STEADY_S:
            child.pause_s = FIRST_PAUSE_S
        child.restart_at = self._clock() + child.pause_s
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._tell(SUPERVISOR, f"{child.program.name} died ({how}); starting it again in {child.pause_s:.1f} s")
        child.pause_s = min(child.pause_s * 2, LONGEST_PAUSE_S)

    def _spawn(self, program: ChildProgram) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - our own commands, put together in `pipeline.up.places`
            [sys.executable, "-P", "-m", "pipeline.up.child", str(program.niceness), *program.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin as told:
                told.write(json.dumps(dict(program.environment)).encode())
        threading.Thread(target=self._listen, args=(program.name, process), daemon=True).start()
        return process

    def _listen(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._tell(name, line.decode("utf-8", "replace").rstrip("\n"))


def _signal(child: Child, number: signal.Signals) -> None:
    """The first signals are for the program itself, which knows how to end its own children; the last is for all."""
    with suppress(ProcessLookupError):
        if number is signal.SIGKILL:
            os.killpg(child.process.pid, number)
        else:
            child.process.send_signal(number)
