"""`pipeline up` and `pipeline demo` end on a signal; the files that they keep."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pipeline.local import programs
from pipeline.settings import Settings, settings, use
from tests.command_line import Run


@pytest.fixture
def silent_interrupts() -> Iterator[None]:
    """Ignored signals, as a shell sets them for commands that a script starts with `&`."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("command", "module_name"), [("up", "servers"), ("demo", "demo")])
def test_a_script_can_stop_what_it_started(
    database: str, run: Run, silent_interrupts: None, monkeypatch: pytest.MonkeyPatch, command: str, module_name: str
) -> None:
    module = import_module(f"pipeline.cli.{module_name}")
    handlers: list[Any] = []

    def refuse(*_given: Any, **_options: Any) -> None:
        handlers.append(signal.getsignal(signal.SIGTERM))
        raise module.StartFailed("nothing starts")

    sandboxed = settings().replace(pipedrive_api_url=None)
    use(sandboxed)
    monkeypatch.setattr(module, "begin_serving", lambda *_: nullcontext(sandboxed))
    monkeypatch.setattr(module, "running_system", refuse)

    assert run(command).code == 1
    (handler,) = handlers
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGTERM, None)


def test_a_sandbox_that_has_ended_is_not_used(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind((programs.LOOPBACK, 0))
        listening.listen()
        announced = {"pipedrive_url": f"http://{programs.LOOPBACK}:{listening.getsockname()[1]}"}
        programs.keep_sandbox_credentials(tmp_path, announced)
        alive = programs.running_sandbox(tmp_path)
    gone = programs.running_sandbox(tmp_path)

    assert (alive, gone) == (announced, None)
    assert programs.running_sandbox(tmp_path / "nowhere") is None


NOWHERE = Path("/proc/no/folder")
"""A folder that not even root can create."""


def test_the_flower_login_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    chosen = Settings(data_dir=tmp_path / "new" / "data")

    first, second = programs.flower_login(chosen), programs.flower_login(chosen)

    assert (first, first.note) == (second, "")
    assert first.file is not None
    assert first.file.stat().st_mode & 0o077 == 0
    assert first.login not in f"{first.where} {first!r}"


def test_a_flower_login_that_cannot_be_stored_is_new_each_time() -> None:
    chosen = Settings(data_dir=NOWHERE)

    first, second = programs.flower_login(chosen), programs.flower_login(chosen)

    assert first.login != second.login
    assert first.file is None
    assert "set DATA_DIR to a folder" in first.note
    assert "FLOWER_BASIC_AUTH" in first.note


def test_a_configured_flower_login_is_used_and_not_stored(tmp_path: Path) -> None:
    given = programs.flower_login(Settings(data_dir=tmp_path / "data", flower_basic_auth="ada:secret"))

    assert (given.login, given.where, given.file) == ("ada:secret", "FLOWER_BASIC_AUTH", None)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_flower_login_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "flower.login").touch(mode=0o644)

    made = programs.flower_login(Settings(data_dir=tmp_path))

    assert (tmp_path / "flower.login").read_text() == f"{made.login}\n"
    assert (tmp_path / "flower.login").stat().st_mode & 0o077 == 0


def test_the_demo_logs_to_a_temporary_file_if_data_dir_is_not_writable(tmp_path: Path) -> None:
    from pipeline.cli.demo import LOG, _log_path  # noqa: PLC0415 - named beside what it proves

    kept = _log_path(Settings(data_dir=tmp_path / "new" / "data"))
    moved = _log_path(Settings(data_dir=NOWHERE))
    is_there = moved.is_file()
    moved.unlink()

    assert kept == tmp_path / "new" / "data" / LOG
    assert is_there
