"""`pipeline up`, `migrate` and `sandbox`: all processes, the schema, and simulated remote systems."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

import click

from db import connector as connectors
from db.migrate import current_revision, is_newer, newest_revision
from db.migrate import migrate as upgrade
from db.session import engine, transaction
from pipeline.cli.output import Failed, echo, json_option, own_name, show, table, wants_json
from pipeline.cli.startup import begin, begin_serving
from pipeline.local import example
from pipeline.local.children import SUPERVISOR
from pipeline.local.interrupts import Interrupts
from pipeline.local.programs import LOOPBACK, PortTaken
from pipeline.local.system import StartFailed, System, running_system

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow")
"""One for each process, red left out."""


@click.command()
@click.option("--persons", default=1000, show_default=True, help="Persons of the sandbox.")
@click.option("--organizations", default=200, show_default=True, help="Organizations of the sandbox.")
@click.option("--users", default=200, show_default=True, help="Users in the sandbox's Hull before the first fetch.")
@click.option(
    "--accounts", default=50, show_default=True, help="Accounts in the sandbox's Hull before the first fetch."
)
@click.option("--example/--no-example", "has_example", default=True, help="Whether the connector demo is added.")
@click.option("--host", default=LOOPBACK, show_default=True, help="Address the web process listens on.")
@click.option("--quiet", is_flag=True, help="Do not show what the processes write.")
@json_option
def up(*, host: str, quiet: bool, has_example: bool, **sizes: int) -> None:
    """Run everything on this machine until interrupted: workers, beat, web, Flower, and a sandbox.

    Also starts PostgreSQL and the broker, unless DATABASE_URL, REDIS_URL or BROKER_URL name your own. With
    PIPEDRIVE_API_URL or PIPEDRIVE_CLIENT_ID set, it uses the real systems and starts no sandbox.

    \b
    Example:
      pipeline up
      PORT=9000 DATABASE_URL=postgresql://pipeline@db/pipeline SECRET_KEYS_FILE=keys pipeline up --host 0.0.0.0
    """
    printer = LinePrinter(quiet=quiet or wants_json())
    interrupts = Interrupts()
    try:
        with (
            begin_serving("pipeline up", printer) as chosen,
            running_system(chosen, write_line=printer, sizes=sizes, host=host, has_example=has_example) as system,
        ):
            show(described(system), lambda: print_system(system))
            interrupts.wait()
    except (StartFailed, PortTaken) as error:
        raise Failed(str(error), "see the output of the processes (--quiet hides it)") from None
    except KeyboardInterrupt:
        click.echo("Everything has stopped.", err=True)


@click.command()
@json_option
def migrate() -> None:
    """Migrate the database to the schema of this version. Safe to run again, and by several processes at the same time.

    \b
    Example:
      DATABASE_URL=postgresql://pipeline@db/pipeline pipeline migrate
    """
    begin()
    before = current_revision(engine())
    upgrade(engine())
    after = current_revision(engine())
    words = f"The schema is at revision {after}, as before." if before == after else f"Schema: {before} → {after}."
    if is_newer(after):
        words = f"The schema is at revision {after}, of a later version than this one, and was not changed."
    show({"before": before, "after": after, "newest": newest_revision()}, lambda: echo(words))


@click.command()
@click.option("--persons", default=1000, show_default=True, help="Number of Persons in Pipedrive.")
@click.option("--organizations", default=200, show_default=True, help="Number of Organizations in Pipedrive.")
@click.option("--users", default=200, show_default=True, help="Users in Hull before the first fetch.")
@click.option("--accounts", default=50, show_default=True, help="Accounts in Hull before the first fetch.")
@click.option("--seed", default=1, show_default=True, help="The same seed creates the same records.")
@click.option(
    "--load", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="JSON lines of records to add."
)
@click.option("--pipedrive-port", default=0, help="By default a free one.")
@click.option("--hull-port", default=0, help="By default a free one.")
@click.option(
    "--faults", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="A JSON list of fault rules."
)
@click.option("--website/--no-website", default=True, help="Whether Organizations have the field `website`.")
@click.option("--burst-limit", type=int, help="Requests per token within two seconds.")
@click.option("--daily-budget", type=int, help="Tokens that all callers together may spend until midnight UTC.")
@click.option(
    "--clock-factor",
    default=1.0,
    show_default=True,
    help="How fast time passes in Pipedrive; 1 is real time.",
)
@click.option(
    "--clock-behind-s", default=0.0, show_default=True, help="How many seconds behind the clock of Pipedrive starts."
)
@json_option
def sandbox(**options: Any) -> None:
    """Serve a simulated Pipedrive and Hull until interrupted; the first line shows their addresses and credentials.

    \b
    Example:
      pipeline sandbox --persons 5000 --organizations 1000 --json
    """
    from sandbox.command import SandboxOptions, run  # noqa: PLC0415 - only this command pays for loading it

    click.get_current_context().exit(run(SandboxOptions(**options)))


COMMANDS: tuple[click.Command, ...] = (up, migrate, sandbox)


class LinePrinter:
    """Prints the output of the processes, each line with its time and process; to stderr if stdout has JSON."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._to_stderr = quiet, wants_json()
        self._colours = cycle(COLOURS)
        self._colour_of: dict[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        if self._quiet and name != SUPERVISOR:
            return
        with self._lock:
            if name not in self._colour_of:
                self._colour_of[name] = next(self._colours)
            origin = click.style(f"{datetime.now(UTC):%H:%M:%S} {name:<7} |", fg=self._colour_of[name])
            click.echo(f"{origin} {line}", err=self._to_stderr)


def described(system: System) -> dict[str, Any]:
    """Return the addresses and processes, without secrets."""
    return {
        "web_url": system.web_url,
        "console_url": system.console_url,
        "public_url": system.settings.public_url,
        "intake_url": system.settings.arrival_url,
        "flower_url": system.flower_url,
        "flower_login_file": str(system.flower.file) if system.flower.file else None,
        "pipedrive_url": system.settings.pipedrive_api_url,
        "hull_url": system.sandbox["hull_url"] if system.sandbox else None,
        "connector": example.NAME if system.sandbox and system.has_example else None,
        "sandbox_file": str(system.sandbox_file) if system.sandbox_file else None,
        "data_dir": str(system.settings.data_dir),
        "pids": system.children.pids(),
        "notes": system.notes,
    }


def print_system(system: System) -> None:
    """Print the addresses and processes, and the next step."""
    pids = system.children.pids()
    rows = [
        ("console", system.console_url, pids["web"]),
        ("intake", system.settings.arrival_url, pids["intake"]),
        ("Flower", f"{system.flower_url} (user and password: {system.flower.where})", pids["flower"]),
        *(("worker", f"queue {queue}", pids[queue]) for queue in ("live", "control", "bulk")),
        ("beat", "ticks", pids["beat"]),
    ]
    if system.sandbox:
        where = f"Pipedrive {system.sandbox['pipedrive_url']}, Hull {system.sandbox['hull_url']}"
        rows.append(("sandbox", where, pids["sandbox"]))
    table("", ("what", "where", "process"), [(name, where, str(pid)) for name, where, pid in rows])
    for note in system.notes:
        echo(f"Note: {note}.")
    if system.flower.file or system.sandbox_file:
        echo(f"Data, local key: {system.settings.data_dir}")
    with transaction() as session:
        names = [each.name for each in connectors.all_connectors(session)]
    echo(next_step(system, names))
    echo("Stop: Ctrl-C.")


def next_step(system: System, names: Sequence[str]) -> str:
    """Return what to do next; `names` are those of the connectors that exist."""
    if system.sandbox and system.sandbox_file and system.has_example:
        return f"Next, in another terminal with the same environment: {own_name()} fetch all {example.NAME} --wait"
    if names:
        status = f"status {names[0]}" if len(names) == 1 else "list"
        return f"Next, in another terminal with the same environment: {own_name()} connectors {status}"
    if system.sandbox_file:
        return f"Next: open the console and add a connector; its credentials are in {system.sandbox_file}"
    return f"Next, in another terminal with the same environment: {own_name()} connectors add --help"
