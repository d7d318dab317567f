"""Everything that runs on one machine for the length of a block: sandbox, intake, web, workers, beat, Flower, example."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from db import operator as operators
from db.migrate import migrate
from db.session import engine, transaction
from pipeline import settings as settings_room
from pipeline.accounts.operators import first_code
from pipeline.local import example, programs
from pipeline.local.children import SUPERVISOR, Children, Tell
from pipeline.settings import Settings, unwritable

LOOK_S = 0.2
SANDBOX_WAIT_S = 120.0
WEB_WAIT_S = 60.0
HOPELESS = 3
"""Restarts after which a process is not waited for any longer."""


class StartFailed(Exception):
    """Something did not start; the text says what."""


@dataclass(slots=True)
class System:
    """The running system. `sandbox` is None with real systems, else the output of `pipeline sandbox --json`."""

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
        """Return the console's address; while there is no operator, the link with which the first one logs in."""
        with transaction() as session:
            is_taken = operators.any_operator(session)
        return self.web_url if is_taken else f"{self.web_url}/setup?code={first_code()}"

    @property
    def flower_url(self) -> str:
        return f"http://localhost:{self.settings.flower_port}/flower/"


@contextmanager
def running_system(
    chosen: Settings, *, tell: Tell, sizes: Mapping[str, int], host: str = programs.LOOPBACK, has_example: bool = True
) -> Iterator[System]:
    """Start everything, yield when it answers, stop everything at the end.

    chosen  settings of a started process, with servers that answer
    sizes  number of persons, organizations, users, accounts in the sandbox
    tell   gets every line that a program writes
    has_example  whether a connector joins the sandbox's two sides immediately
    Raises: StartFailed, PortTaken.
    """
    migrate(engine())
    chosen, notes = _with_ports(chosen)
    announced = _Announcement(tell)
    children = Children(announced)
    flower = programs.flower_login(chosen)
    system = System(chosen, host, flower, children, [*notes, *filter(None, [flower.note])], has_example=has_example)
    stopping = threading.Event()
    looking = threading.Thread(target=_look_after, args=(system, announced, stopping), daemon=True)
    try:
        if chosen.faces_sandbox:
            _start_sandbox(system, announced, sizes)
        settings_room.use(system.settings)
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
    """Return when both answer. Raises: StartFailed, without waiting for long, when one dies again and again."""
    for name, port in (("intake", system.settings.intake_port), ("web", system.settings.port)):
        if not _answers(system, name, port):
            raise StartFailed(f"the {name} process does not answer on port {port}")


def _answers(system: System, name: str, port: int) -> bool:
    host = programs.LOOPBACK if system.host in programs.ANY_ADDRESS else system.host
    url = f"http://{host}:{port}/healthz"
    for _ in range(int(WEB_WAIT_S)):
        if example.answers(url, timeout_s=1.0):
            return True
        if system.children.restarts().get(name, 0) >= HOPELESS:
            break
    return False


def _with_ports(chosen: Settings) -> tuple[Settings, list[str]]:
    """Return free ports instead of default ones that are in use, and the notes about them."""
    port, about_web = programs.choose_port("PORT", chosen.port, programs.USUAL_PORT)
    intake_port, about_intake = programs.choose_port("INTAKE_PORT", chosen.intake_port, programs.USUAL_INTAKE_PORT)
    flower_port, about_flower = programs.choose_port("FLOWER_PORT", chosen.flower_port, programs.USUAL_FLOWER_PORT)
    moved = chosen.replace(port=port, intake_port=intake_port, flower_port=flower_port)
    if chosen.public_url == f"http://localhost:{chosen.port}":  # there is no reverse proxy before it
        intake_url = chosen.intake_url or f"http://localhost:{intake_port}"
        moved = moved.replace(public_url=f"http://localhost:{port}", intake_url=intake_url)
    return moved, [note for note in (about_web, about_intake, about_flower) if note]


def _start_sandbox(system: System, announced: _Announcement, sizes: Mapping[str, int]) -> None:
    place = programs.SandboxPlace(pipedrive_port=programs.free_port(), hull_port=programs.free_port(), sizes=sizes)
    system.children.start(programs.sandbox_program(system.settings, place))
    if not announced.heard.wait(SANDBOX_WAIT_S):
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
    """Catches the sandbox's line with its addresses and secrets; passes on all others."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.heard = threading.Event()
        self.sandbox: dict[str, str] = {}
        self.count, self.added = 0, 1

    def __call__(self, name: str, line: str) -> None:
        if name == "sandbox" and line.startswith("{") and "pipedrive_url" in line:
            self.sandbox = json.loads(line)
            self.count += 1
            self.heard.set()
        else:
            self._tell(name, line)
