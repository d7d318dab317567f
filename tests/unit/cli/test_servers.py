"""`pipeline up` and `pipeline demo` end when they are told to, however they were started."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import settings
from pipeline.up import places

from .conftest import Run


@pytest.fixture
def silent_interrupts() -> Iterator[None]:
    """What a shell does to the commands a script starts with `&`."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("command", "room"), [("up", "servers"), ("demo", "demo")])
def test_a_script_can_stop_what_it_started(
    database: str, run: Run, silent_interrupts: None, monkeypatch: pytest.MonkeyPatch, command: str, room: str
) -> None:
    module = import_module(f"pipeline.cli.{room}")
    heard: list[Any] = []

    def refuse(*_given: Any, **_options: Any) -> None:
        heard.append(signal.getsignal(signal.SIGTERM))
        raise module.NotUp("the house stays shut")

    monkeypatch.setattr(module, "begin", lambda: replace(settings(), pipedrive_api_url=None))
    monkeypatch.setattr(module, "open_house", refuse)

    assert run(command).code == 1
    assert heard == [signal.default_int_handler]


def test_a_sandbox_that_is_gone_is_not_spoken_to(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind((places.LOOPBACK, 0))
        listening.listen()
        announced = {"pipedrive_url": f"http://{places.LOOPBACK}:{listening.getsockname()[1]}"}
        places.keep_sandbox_credentials(tmp_path, announced)
        alive = places.running_sandbox(tmp_path)
    gone = places.running_sandbox(tmp_path)

    assert (alive, gone) == (announced, None)
    assert places.running_sandbox(tmp_path / "nowhere") is None
