"""The command line, run in this process."""

from __future__ import annotations

from tests.command_line import run

__all__ = ["run"]
