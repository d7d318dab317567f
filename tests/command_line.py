"""Commands of `pipeline`, run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner, Result


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The output and exit code of a command."""

    result: Result

    @property
    def code(self) -> int:
        return self.result.exit_code

    @property
    def out(self) -> str:
        return self.result.stdout

    @property
    def err(self) -> str:
        return self.result.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.result.stdout)


Run = Callable[..., CommandResult]


@pytest.fixture
def run() -> Run:
    """Run one command, as `run("runs", "list")`; an unexplained error is raised here."""
    from pipeline.cli.program import program  # noqa: PLC0415 - Celery reads its settings when it is imported

    def invoke(*arguments: str, text: str | None = None) -> CommandResult:
        result = CliRunner().invoke(program, list(arguments), input=text, prog_name="pipeline")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return CommandResult(result)

    return invoke
