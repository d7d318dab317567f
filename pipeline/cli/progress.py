"""The progress of work that a command waits for: bars on a terminal, lines from time to time elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from rich.progress import BarColumn, Progress, TextColumn

from pipeline.cli.output import console, echo, wants_json

LINE_EVERY_S: Final = 5.0


class ProgressView:
    """Shows one bar or line for each piece of work; nothing with --json. Use it as a context manager."""

    def __init__(self) -> None:
        screen = console(err=True)
        self._has_lines = not (screen.is_terminal or wants_json())
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24))
        self._bars = Progress(*columns, console=screen, disable=not screen.is_terminal or wants_json())
        self._next = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> ProgressView:
        self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()

    def show(self, work: Sequence[tuple[str, float | None]], *, has_ended: bool) -> None:
        """Show the text of each piece of work and its completed share, from 0 to 1; None if it is not known."""
        for at, (text, share) in enumerate(work):
            if at == len(self._bars.task_ids):
                self._bars.add_task("")
            total = None if share is None else 1.0
            self._bars.update(self._bars.task_ids[at], description=text, total=total, completed=share or 0.0)
        if self._has_lines and (has_ended or time.monotonic() >= self._next):
            self._next = time.monotonic() + LINE_EVERY_S
            for text, _ in work:
                echo(text)
