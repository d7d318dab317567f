"""An environment with nothing but the wheel and a lock in it, and an empty folder to run it in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.package.build import PROJECT

STOP_S = 40.0
COMMAND_S = 180.0
NOWHERE = Path("/proc")
"""A working directory that no account can write, root included."""


class Broken(Exception):
    """A check failed; the text names it, with the end of the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A process that runs until it is stopped; `log` contains its output."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def end(self) -> None:
        """Wait for the end of a stopping process. Raises Broken if it takes too long or its exit code is not 0."""
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise Broken(f"{self.name} does not end within {STOP_S:.0f} s of SIGTERM\n{tail(self.log)}") from None
        if code:
            raise Broken(f"{self.name} ended with {code} after SIGTERM\n{tail(self.log)}")


@dataclass(frozen=True, slots=True)
class Installed:
    """The environment `venv` below `folder`; `empty` is the working directory, `home` a home that does not exist."""

    folder: Path
    programs: list[Program] = field(default_factory=list)

    @property
    def empty(self) -> Path:
        return self.folder / "empty"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def bin(self) -> Path:
        return self.folder / "venv" / "bin"

    def make(self) -> None:
        """Make the environment, without pip in it, and the working directory."""
        venv.create(self.folder / "venv", with_pip=False, symlinks=True)
        self.empty.mkdir(mode=0o555)

    def pip(self, *words: str) -> None:
        """Install something, with the pip of the environment that runs this."""
        command = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(self.bin / "python"),
            "install",
            "--quiet",
            "--no-input",
        ]
        done = subprocess.run([*command, *words], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Broken(f"pip install {' '.join(words)} failed\n{done.stdout}{done.stderr}")

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the given names and PATH only: no HOME, no temporary folder."""
        return {"PATH": f"{self.bin}{os.pathsep}{os.defpath}", **given}

    def run(self, words: str, given: Mapping[str, str], *, code: int = 0) -> str:
        """Run a command to its end and return what it wrote. Raises Broken for another exit code or a traceback."""
        done = subprocess.run(
            self._command(words),
            cwd=self.empty,
            env=self.environment(given),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        output = done.stdout + done.stderr
        if done.returncode != code or "Traceback" in output:
            raise Broken(f"{words}: exit code {done.returncode} instead of {code}\n{output[-4000:]}")
        return output

    def start(self, name: str, words: str, given: Mapping[str, str], *, cwd: Path | None = None) -> Program:
        """Start a process that keeps running."""
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            process = self._popen(words, given, cwd or self.empty, file)
        self.programs.append(Program(name=name, process=process, log=log))
        return self.programs[-1]

    def start_until(self, name: str, words: str, given: Mapping[str, str], last: str) -> tuple[Program, str]:
        """Start a process that keeps running, and return its output when it has written the line `last`.

        Raises Broken if it ends before, or writes no such line in COMMAND_S.
        """
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            process = self._popen(words, given, self.empty, subprocess.PIPE, stderr=file)
        program = Program(name=name, process=process, log=log)
        self.programs.append(program)
        patience = threading.Timer(COMMAND_S, process.kill)
        patience.start()
        output = ""
        try:
            for line in process.stdout or ():
                output += line
                if line.startswith(last):
                    return program, output
        finally:
            patience.cancel()
        raise Broken(f"{words} ended with {process.wait()}\n{output[-4000:]}{tail(log)}")

    def stop(self) -> None:
        """Stop all processes. Raises Broken as `Program.end` does."""
        for program in self.programs:
            program.process.send_signal(signal.SIGTERM)
        for program in self.programs:
            program.end()
        self.programs.clear()

    def kill(self) -> None:
        """End what a failure left running."""
        for program in self.programs:
            if program.process.poll() is None:
                os.killpg(program.process.pid, signal.SIGKILL)
            program.process.wait()

    def processes(self) -> list[str]:
        """Return the command lines of this machine's processes that name the folder, in them or in their environment."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                about = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
            except OSError:
                continue
            if str(self.folder).encode() in about and int(process.name) != os.getpid():
                found.append(about.decode(errors="replace").replace("\0", " ")[:200])
        return found

    def _command(self, words: str) -> list[str]:
        program, *arguments = words.split()
        return [str(self.bin / program), *arguments]

    def _popen(
        self,
        words: str,
        given: Mapping[str, str],
        cwd: Path,
        out: IO[str] | int,
        *,
        stderr: IO[str] | int | None = None,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command(words),
            cwd=cwd,
            env=self.environment(given),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT if stderr is None else stderr,
            text=True,
            start_new_session=True,
        )


@contextmanager
def installed(folder: Path) -> Iterator[Installed]:
    """Make an empty environment; whatever happens, no process is left behind."""
    made = Installed(folder)
    made.make()
    try:
        yield made
        made.stop()
    finally:
        made.kill()


def readme_commands() -> dict[str, str]:
    """Return the commands of the README's table of processes: intake, web, live, control, bulk, beat, flower."""
    text = (PROJECT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\|[^|]*\| `((?:celery|granian) [^`]+)` \|$", text, re.MULTILINE)
    named = {_name(row): row for row in rows}
    if set(named) != {"intake", "web", "live", "control", "bulk", "beat", "flower"}:
        raise Broken(f"the README's table of processes has other rows than expected: {rows}")
    return named


def _name(command: str) -> str:
    served = re.search(r"pipeline\.web\.(\w+):", command)
    queue = re.search(r"-Q (\w+)", command)
    if served:
        return "web" if served[1] == "app" else served[1]
    return queue[1] if queue else command.split()[3]


def tail(log: Path) -> str:
    """Return the end of a log."""
    return "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-25:])
