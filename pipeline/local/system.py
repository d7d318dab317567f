"""Run everything on one machine during a block: sandbox, intake, web, workers, beat, Flower, example."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import requests

from db import operator as operators
from db.migrate import migrate
from db.session import engine, transaction
from pipeline import settings as settings_module
from pipeline.accounts.operators import first_code
from pipeline.local import example, programs
from pipeline.local.children import SUPERVISOR, Children, WriteLine
from pipeline.settings import Settings, unwritable

LOOK_S = 0.2
SANDBOX_WAIT_S = 120.0
WEB_WAIT_S = 60.0
POLL_S = 0.1
HOPELESS = 3
"""Number of restarts after which we stop waiting for a process."""


class StartFailed(Exception):
    """A process did not start; the text names the process."""


@dataclass(slots=True)
class System:
    """The running system. `sandbox` is the output of `pipeline sandbox --json`, or None with the real systems."""

    settings: Settings
    host: str
    flower: programs.FlowerLogin
    children: Children
    notes: list[str] = field(default_factory=list)
    sandbox: dict[str, str] | None = None
    sandbox_file: Path | None = None
    has_example: bool = True

    @property
    def web_url(self) -> str:
        return f"http://localhost:{self.settings.port}"

    @property
    def console_url(self) -> str:
        """Return the console's address; before the first operator exists, the link for their first login."""
        with transaction() as session:
            has_operator = operators.any_operator(session)
        return self.web_url if has_operator else f"{self.web_url}/setup?code={first_code()}"

    @property
    def flower_url(self) -> str:
        return f"http://localhost:{self.settings.flower_port}/flower/"


@contextmanager
def running_system(
    chosen: Settings,
    *,
    write_line: WriteLine,
    sizes: Mapping[str, int],
    host: str = programs.LOOPBACK,
    has_example: bool = True,
) -> Iterator[System]:
    """Start everything, yield when it answers, stop everything at the end.

    chosen       settings of a started process, with servers that answer
    sizes        number of persons, organizations, users and accounts in the sandbox
    write_line   gets every line that a program writes
    has_example  whether a connector between the sandbox's two sides is added
    Raises: StartFailed, PortTaken.
    """
    migrate(engine())
    chosen, notes = _with_ports(chosen)
    announced = _Announcement(write_line)
    children = Children(announced)
    flower = programs.flower_login(chosen)
    system = System(chosen, host, flower, children, [*notes, *filter(None, [flower.note])], has_example=has_example)
    stopping = threading.Event()
    looking = threading.Thread(target=_look_after, args=(system, announced, stopping), daemon=True)
    try:
        if chosen.faces_sandbox:
            _start_sandbox(system, announced, sizes)
        settings_module.use(system.settings)
        for program in programs.pipeline_programs(system.settings, host=host, flower_login=flower.login):
            children.start(program)
        looking.start()
        _wait_for_web(system)
        if system.sandbox and has_example:
            _add_example(system, system.sandbox)
        yield system
    finally:
        stopping.set()
        if looking.is_alive():
            looking.join()
        children.stop()
        if system.sandbox_file is not None:
            system.sandbox_file.unlink(missing_ok=True)


def _add_example(system: System, sandbox: dict[str, str]) -> None:
    try:
        example.add(sandbox, arrival_url=system.settings.arrival_url)
    except example.ExampleNotAdded as kept:
        system.has_example = False
        system.notes.append(str(kept))


def _wait_for_web(system: System) -> None:
    """Return when both processes answer. Raises: StartFailed, also if one dies HOPELESS times."""
    for name, port in (("intake", system.settings.intake_port), ("web", system.settings.port)):
        if not _answers(system, name, port):
            raise StartFailed(f"the {name} process does not answer on port {port}")


def _answers(system: System, name: str, port: int) -> bool:
    host = programs.LOOPBACK if system.host in programs.ANY_ADDRESS else system.host
    url = f"http://{host}:{port}/healthz"
    deadline = time.monotonic() + WEB_WAIT_S
    while time.monotonic() < deadline and system.children.restarts().get(name, 0) < HOPELESS:
        with suppress(requests.RequestException):
            requests.get(url, timeout=2)
            return True
        time.sleep(POLL_S)
    return False


def _with_ports(chosen: Settings) -> tuple[Settings, list[str]]:
    """Return free ports instead of default ones that are in use, and the notes about them."""
    port, about_web = programs.choose_port("PORT", chosen.port, programs.USUAL_PORT)
    intake_port, about_intake = programs.choose_port("INTAKE_PORT", chosen.intake_port, programs.USUAL_INTAKE_PORT)
    flower_port, about_flower = programs.choose_port("FLOWER_PORT", chosen.flower_port, programs.USUAL_FLOWER_PORT)
    moved = chosen.replace(port=port, intake_port=intake_port, flower_port=flower_port)
    if chosen.public_url == f"http://localhost:{chosen.port}":  # there is no reverse proxy before it
        moved = moved.replace(public_url=f"http://localhost:{port}")
    return moved, [note for note in (about_web, about_intake, about_flower) if note]


def _start_sandbox(system: System, announced: _Announcement, sizes: Mapping[str, int]) -> None:
    place = programs.SandboxPlace(pipedrive_port=programs.free_port(), hull_port=programs.free_port(), sizes=sizes)
    system.children.start(programs.sandbox_program(system.settings, place))
    if not announced.received.wait(SANDBOX_WAIT_S):
        raise StartFailed(f"the sandbox does not answer after {SANDBOX_WAIT_S:.0f} s")
    system.sandbox = announced.sandbox
    system.settings = programs.facing_sandbox(system.settings, announced.sandbox)
    try:
        system.sandbox_file = programs.keep_sandbox_credentials(system.settings.data_dir, announced.sandbox)
    except OSError as error:
        system.notes.append(f"other commands do not find this sandbox: {unwritable(system.settings.data_dir, error)}")


def _look_after(system: System, announced: _Announcement, stopping: threading.Event) -> None:
    """Restart dead processes. A restarted sandbox has lost everything, so its connector is created again too."""
    while not stopping.wait(LOOK_S):
        before = announced.count
        system.children.look_after()
        if system.sandbox and system.has_example and before > announced.added:
            announced.added = before
            try:
                example.add(system.sandbox, arrival_url=system.settings.arrival_url)
            except Exception as error:  # noqa: BLE001 - whatever it was, everything else goes on
                announced(SUPERVISOR, f"the sandbox came back, but not its connector: {error}")


class _Announcement:
    """Reads the sandbox's line with its addresses and secrets; forwards all other lines."""

    def __init__(self, write_line: WriteLine) -> None:
        self._write_line = write_line
        self.received = threading.Event()
        self.sandbox: dict[str, str] = {}
        self.count, self.added = 0, 1

    def __call__(self, name: str, line: str) -> None:
        if name == "sandbox" and line.startswith("{") and "pipedrive_url" in line:
            self.sandbox = json.loads(line)
            self.count += 1
            self.received.set()
        else:
            self._write_line(name, line)
