"""Show the progress of runs until they end: bars on a terminal, plain lines elsewhere.

Pipedrive does not return the number of records. The estimate uses the ids between the two walks: it is exact if ids have
no gaps, and too long if many records were deleted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn

from pipeline.cli.runs import read_run
from pipeline.cli.showing import Failed, console, duration, say
from pipeline.operations import workers

POLL_S = 0.25
LINE_EVERY_S = 5.0
IDLE_S = 15.0
"""No page, record or end for this long: probably no worker runs."""

WORKER = "celery -A pipeline worker -Q live,bulk,control"


@dataclass(slots=True)
class Progressing:
    """The last progress of the runs, to detect that no worker runs."""

    seen: tuple[Any, ...] = ()
    since: float = 0.0

    def idle_s(self, facts: Sequence[dict[str, Any]], now: float) -> float:
        seen = tuple((run["state"], run["pages"], run["read"], run["messages"], run["requests"]) for run in facts)
        if seen != self.seen:
            self.seen, self.since = seen, now
        return now - self.since


def watch(run_ids: Sequence[int], *, shown: bool = True) -> None:
    """Return when every run has ended, with success or not. Ctrl-C stops the display only.

    Raises: Failed if there is no progress for `IDLE_S` and no worker answers.
    """
    screen = console(err=True)
    view = _Bars(screen) if shown and screen.is_terminal else _Lines(shown=shown)
    progressing = Progressing(since=time.monotonic())
    try:
        with view:
            while True:
                facts = [read_run(run_id) for run_id in run_ids]
                view.show(facts)
                if all(run["state"] != "running" for run in facts):
                    return
                if progressing.idle_s(facts, time.monotonic()) > IDLE_S and not workers.any_worker_answers():
                    raise Failed(
                        f"no progress for {IDLE_S:.0f} s and no worker answers; the fetch waits and is not lost",
                        f"start a worker: {WORKER} (or everything: pipeline up)",
                    )
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        name = read_run(run_ids[0])["connector"]
        stop = "; ".join(f"pipeline runs cancel {name} {run_id}" for run_id in run_ids)
        say(f"\nThe fetch continues in the background. See: pipeline runs list {name}; stop it: {stop}")
        click.get_current_context().exit(1)


def fraction(run: dict[str, Any]) -> float | None:
    """Return the completed share of a run, 0 to 1; None if it is not known."""
    if run["state"] != "running" or run["phase"] == "catch_up":
        return 1.0 if run["kind"] == "full" or run["state"] != "running" else None
    frontiers = {part["walk"]: part["frontier"] for part in run["slices"]}
    low, high = frontiers.get("ascending"), frontiers.get("descending")
    if not (low and high and run["read"]):
        return None
    left = max(0, high - low)
    return float(run["read"] / (run["read"] + left))


def line(run: dict[str, Any]) -> str:
    """Return one line with the progress of a run."""
    rate = run["read"] / run["took_s"] if run["took_s"] > 0 else 0.0
    text = f"{run['entity']}s: {run['read']:,} read, {rate:,.0f}/s, {run['pages']} pages, {run['tokens']:,} tokens"
    if run.get("rejected_fields"):
        text += f", {run['rejected_fields']:,} fields left out"
    if run["failed"]:
        text += f", {run['failed']:,} failed"
    return f"{text}, {_rest(run)}"


def _rest(run: dict[str, Any]) -> str:
    if run["state"] != "running":
        return f"{run['state']} after {duration(run['took_s'])}"
    if run["phase"] == "catch_up":
        return "catching up with changes made since it started"
    done = fraction(run)
    if not done:
        return "the number left is not known yet"
    return f"about {duration(run['took_s'] * (1 - done) / done)} left"


class _Bars:
    """Shows a bar for each run, on a terminal."""

    def __init__(self, screen: Any) -> None:
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), console=screen)
        self._bars: dict[int, Any] = {}

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, facts: Sequence[dict[str, Any]]) -> None:
        for run in facts:
            if run["id"] not in self._bars:
                self._bars[run["id"]] = self._progress.add_task("", total=None)
            done = fraction(run)
            self._progress.update(
                self._bars[run["id"]],
                description=line(run),
                total=None if done is None else 1.0,
                completed=done or 0.0,
            )


class _Lines:
    """Prints a line for each run every few seconds, for logs and pipes."""

    def __init__(self, *, shown: bool) -> None:
        self._shown, self._next = shown, 0.0

    def __enter__(self) -> None:
        self._next = time.monotonic() + LINE_EVERY_S

    def __exit__(self, *_error: object) -> None:
        self._shown = False

    def show(self, facts: Sequence[dict[str, Any]]) -> None:
        ended = all(run["state"] != "running" for run in facts)
        if not self._shown or (time.monotonic() < self._next and not ended):
            return
        self._next = time.monotonic() + LINE_EVERY_S
        for run in facts:
            say(line(run))
