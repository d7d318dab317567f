"""Programs that are kept running: restarted with growing pauses, started with a private environment, stopped in order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import Queue

import pytest

from pipeline.local.children import ChildProgram, Children

LIVES = "import signal, sys; print('ready', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"


@dataclass(slots=True)
class Stage:
    """Children with a manual clock, and their output."""

    now: float = 100.0
    lines: Queue[tuple[str, str]] = field(default_factory=Queue)

    def children(self) -> Children:
        return Children(lambda name, line: self.lines.put((name, line)), clock=lambda: self.now)

    def next_line(self) -> tuple[str, str]:
        """Return the next line with the name of its program."""
        return self.lines.get(timeout=20)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def children(stage: Stage) -> Iterator[Children]:
    made = stage.children()
    yield made
    stage.now += 1_000  # children that still run are overdue
    made.stop()


def program(code: str, name: str = "child", **environment: str | None) -> ChildProgram:
    return ChildProgram(name=name, command=[sys.executable, "-c", code], environment=environment)


def until(children: Children, holds: Callable[[], bool]) -> None:
    for _ in range(2_000_000):
        children.look_after()
        if holds():
            return
    raise AssertionError("the condition was never met")


def test_the_output_of_a_program_is_forwarded(stage: Stage, children: Children) -> None:
    children.start(program(LIVES))

    assert stage.next_line() == ("child", "ready")


def test_the_environment_is_passed_in_private(
    stage: Stage, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPT", "as it was")
    monkeypatch.setenv("SECRET_KEYS_FILE", "/not/any/more")
    shows = "import os, sys; print(sys.argv, *[os.environ.get(n) for n in ('KEPT', 'SECRET_KEYS', 'SECRET_KEYS_FILE')])"
    children.start(program(shows, SECRET_KEYS="s3cret", SECRET_KEYS_FILE=None))

    assert stage.next_line() == ("child", "['-c'] as it was s3cret None")


def test_a_program_that_dies_is_started_again_after_a_pause(stage: Stage, children: Children) -> None:
    children.start(program("raise SystemExit(3)"))
    until(children, lambda: not stage.lines.empty())

    assert stage.next_line() == ("up", "child died (exit code 3); starting it again in 0.5 s")
    children.look_after()
    assert children.restarts() == {}
    stage.now += 0.6
    children.look_after()
    assert children.restarts() == {"child": 1}
    until(children, lambda: not stage.lines.empty())
    assert stage.next_line() == ("up", "child died (exit code 3); starting it again in 1.0 s")


def test_a_program_that_ran_long_is_started_again_soon(stage: Stage, children: Children) -> None:
    children.start(program("raise SystemExit(3)"))
    for _ in range(3):
        until(children, lambda: not stage.lines.empty())
        stage.next_line()
        stage.now += 60
        children.look_after()
    stage.now += 60
    until(children, lambda: not stage.lines.empty())

    assert stage.next_line()[1].endswith("in 0.5 s")


def test_stopping_lets_programs_end_by_themselves(stage: Stage) -> None:
    made = stage.children()
    made.start(
        program("import signal, sys; signal.signal(15, lambda *_: sys.exit()); print(1, flush=True); signal.pause()")
    )
    stage.next_line()
    made.stop()
    stage.now += 1_000
    made.look_after()

    assert made.exit_code("child") == 0
    assert made.restarts() == {}
    assert stage.lines.empty()


def test_a_program_that_will_not_end_is_killed(stage: Stage) -> None:
    made = stage.children()
    made.start(program(STUBBORN))
    stage.next_line()
    begun = stage.now
    made._clock = lambda: setattr(stage, "now", stage.now + 1) or stage.now  # type: ignore[func-returns-value]
    made.stop()

    assert 10 <= stage.now - begun < 60
