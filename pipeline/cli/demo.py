"""`pipeline demo`: runs the processes of `pipeline up` and shows the main features step by step."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from db import connector as connectors
from db.connector import Connector
from db.session import transaction
from pipeline.cli import demo_steps
from pipeline.cli.output import Failed, duration, echo, json_option, own_name, show
from pipeline.cli.startup import begin_serving
from pipeline.local import example
from pipeline.local.children import SUPERVISOR
from pipeline.local.example import Remotes
from pipeline.local.interrupts import Interrupts
from pipeline.local.programs import PortTaken
from pipeline.local.system import StartFailed, System, running_system
from pipeline.settings import Settings, make_data_dir, settings

LOG = "demo.log"
LOOK_AT = ("events list demo --limit 20", "mappings count demo", "records show demo 1 --entity person")
"""Commands that show what the demo did."""


@click.command()
@click.option("--persons", default=2000, show_default=True, envvar="DEMO_PERSONS", help="Persons; or set DEMO_PERSONS.")
@click.option(
    "--organizations",
    default=400,
    show_default=True,
    envvar="DEMO_ORGANIZATIONS",
    help="Organizations; or set DEMO_ORGANIZATIONS.",
)
@json_option
def demo(persons: int, organizations: int) -> None:
    """Show the main features with a sandbox: fetches, shells, a webhook, a replayed failure, a change sent back.

    Starts what `pipeline up` starts, and stops it again. Compares Hull with Pipedrive and exits with 1 if a check failed.

    \b
    Example:
      pipeline demo --persons 10000 --organizations 2000
    """
    interrupts = Interrupts()
    if not settings().faces_sandbox:
        raise Failed(
            "the demo uses its sandbox only", "unset PIPEDRIVE_API_URL and PIPEDRIVE_CLIENT_ID, or: pipeline up"
        )
    begun = time.monotonic()
    log = _log_path(settings())
    sizes = {"persons": persons, "organizations": organizations}
    try:
        with _log_to(log) as write, begin_serving("pipeline demo", write) as chosen:
            echo(
                f"Starting PostgreSQL, the broker, a sandbox with {persons:,} Persons and {organizations:,} Organizations,"
            )
            echo("three workers, beat, the web processes and Flower …")
            with running_system(chosen, write_line=write, sizes=sizes) as system:
                echo(f"   ✓ all answer after {duration(time.monotonic() - begun)}\n")
                run = _run_demo(system, chosen, interrupts)
    except (StartFailed, PortTaken) as error:
        raise Failed(str(error), f"what the processes wrote: {log}") from None
    if run.broken:
        raise Failed(f"{len(run.broken)} checks failed", f"what the processes wrote: {log}")


COMMANDS: tuple[click.Command, ...] = (demo,)


def _run_demo(system: System, chosen: Settings, interrupts: Interrupts) -> demo_steps.DemoRun:
    begun = time.monotonic()
    run = demo_steps.DemoRun(_connector(), Remotes(system.sandbox or {}))
    demo_steps.run_steps(run, interrupts.check)
    died = system.children.restarts()
    run.check(
        not died, f"{sum(died.values())} processes died during the demo" if died else "all processes kept running"
    )
    took_s = time.monotonic() - begun
    totals = run.totals

    def human() -> None:
        echo(
            f"\nIn {duration(took_s)}: {totals['read']:,} records read, {totals['new']:,} new to Hull, {totals['links']:,}"
            f" links, {totals['shells']:,} shells created, {totals['tokens']:,} API tokens of Pipedrive's daily budget."
        )
        echo("A record that was fetched twice counts twice. Look at the results:")
        for command in LOOK_AT:
            echo(f"  {own_name()} {command}")
        echo(f"`{own_name()} up` starts the same processes with a new sandbox and keeps them running.")

    show({"took_s": round(took_s, 1), **totals, "broken": run.broken, "data_dir": str(chosen.data_dir)}, human)
    return run


def _connector() -> Connector:
    with transaction() as session:
        found = connectors.find_connector(session, example.NAME)
    if found is None:
        raise StartFailed("the connector of the demo was not created")
    return found


def _log_path(chosen: Settings) -> Path:
    """Return where the log is written: DATA_DIR, or a temporary file where that cannot be written."""
    path = chosen.data_dir / LOG
    try:
        make_data_dir(chosen.data_dir)
        path.touch()
    except OSError:
        descriptor, name = tempfile.mkstemp(prefix="hull-pipedrive-demo-", suffix=".log")
        os.close(descriptor)
        return Path(name)
    return path


class _Log:
    """Writes the output of the processes to a file, and prints the supervisor's messages."""

    def __init__(self, path: Path) -> None:
        self._file, self._lock = path.open("w", encoding="utf-8"), threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        with self._lock:
            if not self._file.closed:
                self._file.write(f"{name:<8}| {line}\n")
        if name == SUPERVISOR:
            echo(f"   ! {line}")

    def close(self) -> None:
        with self._lock:
            self._file.close()


@contextmanager
def _log_to(path: Path) -> Iterator[_Log]:
    log = _Log(path)
    try:
        yield log
    finally:
        log.close()
