"""A house that is open as long as somebody needs it: servers, sandbox, workers, beat, web, Flower, example."""

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
from pipeline.data_dir import unwritable
from pipeline.settings import Settings
from pipeline.up import example, places, remotes
from pipeline.up.children import SUPERVISOR, Children, Tell

LOOK_S = 0.2
SANDBOX_WAIT_S = 120.0
WEB_WAIT_S = 60.0
HOPELESS = 3
"""Restarts after which nobody waits any longer for a process to start well."""


class NotUp(Exception):
    """Something did not start; the text says what."""


@dataclass(slots=True)
class House:
    """What runs. `sandbox` is None where real systems are faced, else what `pipeline sandbox --json` said."""

    settings: Settings
    host: str
    flower: places.FlowerLogin
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
        """As long as there is no operator, the link by which the first one comes in."""
        with transaction() as session:
            is_taken = operators.any_operator(session)
        return self.web_url if is_taken else f"{self.web_url}/setup?code={first_code()}"

    @property
    def flower_url(self) -> str:
        return f"http://localhost:{self.settings.flower_port}/flower/"


@contextmanager
def open_house(
    chosen: Settings, *, tell: Tell, sizes: Mapping[str, int], host: str = places.LOOPBACK, has_example: bool = True
) -> Iterator[House]:
    """Start everything, yield when it answers, stop everything at the end.

    chosen settings of a process that has begun, so that the servers they name answer
    sizes  how many persons, organizations, users, accounts the sandbox holds
    tell   is given every line that a program writes
    has_example  whether a connector joins the sandbox's two sides at once
    Raises: NotUp, PortTaken.
    """
    migrate(engine())
    chosen, notes = _with_ports(chosen)
    announced = _Announcement(tell)
    children = Children(announced)
    flower = places.flower_login(chosen)
    house = House(chosen, host, flower, children, [*notes, *filter(None, [flower.note])], has_example=has_example)
    stopping = threading.Event()
    looking = threading.Thread(target=_look_after, args=(house, announced, stopping), daemon=True)
    try:
        if chosen.faces_sandbox:
            _start_sandbox(house, announced, sizes)
        settings_room.use(house.settings)
        for program in places.programs(house.settings, host=host, flower_login=flower.login):
            children.start(program)
        looking.start()
        _wait_for_web(house)
        if house.sandbox and has_example:
            _add_example(house, house.sandbox)
        yield house
    finally:
        stopping.set()
        if looking.is_alive():
            looking.join()
        children.stop()
        if house.sandbox_file is not None:
            house.sandbox_file.unlink(missing_ok=True)


def _add_example(house: House, sandbox: dict[str, str]) -> None:
    try:
        example.furnish(sandbox, arrival_url=house.settings.arrival_url)
    except example.ExampleNotAdded as kept:
        house.has_example = False
        house.notes.append(str(kept))


def _wait_for_web(house: House) -> None:
    """Return when both answer. Raises: NotUp, without waiting for long, when one dies again and again."""
    for name, port in (("intake", house.settings.intake_port), ("web", house.settings.port)):
        if not _answers(house, name, port):
            raise NotUp(f"the {name} process does not answer on port {port}")


def _answers(house: House, name: str, port: int) -> bool:
    host = places.LOOPBACK if house.host in places.ANY_ADDRESS else house.host
    url = f"http://{host}:{port}/healthz"
    for _ in range(int(WEB_WAIT_S)):
        if remotes.answers(url, timeout_s=1.0):
            return True
        if house.children.restarts().get(name, 0) >= HOPELESS:
            break
    return False


def _with_ports(chosen: Settings) -> tuple[Settings, list[str]]:
    """Free ports where the usual ones are in use, and what to say about it."""
    port, about_web = places.choose_port("PORT", chosen.port, places.USUAL_PORT)
    intake_port, about_intake = places.choose_port("INTAKE_PORT", chosen.intake_port, places.USUAL_INTAKE_PORT)
    flower_port, about_flower = places.choose_port("FLOWER_PORT", chosen.flower_port, places.USUAL_FLOWER_PORT)
    moved = chosen.replace(port=port, intake_port=intake_port, flower_port=flower_port)
    if chosen.public_url == f"http://localhost:{chosen.port}":  # no reverse proxy stands before it
        intake_url = chosen.intake_url or f"http://localhost:{intake_port}"
        moved = moved.replace(public_url=f"http://localhost:{port}", intake_url=intake_url)
    return moved, [note for note in (about_web, about_intake, about_flower) if note]


def _start_sandbox(house: House, announced: _Announcement, sizes: Mapping[str, int]) -> None:
    place = places.SandboxPlace(pipedrive_port=places.free_port(), hull_port=places.free_port(), sizes=sizes)
    house.children.start(places.sandbox_program(house.settings, place))
    if not announced.heard.wait(SANDBOX_WAIT_S):
        raise NotUp(f"the sandbox does not answer after {SANDBOX_WAIT_S:.0f} s")
    house.sandbox = announced.sandbox
    house.settings = places.facing_sandbox(house.settings, announced.sandbox)
    try:
        house.sandbox_file = places.keep_sandbox_credentials(house.settings.data_dir, announced.sandbox)
    except OSError as error:
        house.notes.append(f"other commands do not find this sandbox: {unwritable(house.settings.data_dir, error)}")


def _look_after(house: House, announced: _Announcement, stopping: threading.Event) -> None:
    """Restart what dies. A sandbox that died has forgotten everything, so its connector is made anew as well."""
    while not stopping.wait(LOOK_S):
        before = announced.count
        house.children.look_after()
        if house.sandbox and house.has_example and before > announced.furnished:
            announced.furnished = before
            try:
                example.furnish(house.sandbox, arrival_url=house.settings.arrival_url)
            except Exception as error:  # noqa: BLE001 - whatever it was, everything else goes on
                announced(SUPERVISOR, f"the sandbox came back, but not its connector: {error}")


class _Announcement:
    """Catches the line in which the sandbox says where it listens and with which secrets; passes on all others."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.heard = threading.Event()
        self.sandbox: dict[str, str] = {}
        self.count, self.furnished = 0, 1

    def __call__(self, name: str, line: str) -> None:
        if name == "sandbox" and line.startswith("{") and "pipedrive_url" in line:
            self.sandbox = json.loads(line)
            self.count += 1
            self.heard.set()
        else:
            self._tell(name, line)
