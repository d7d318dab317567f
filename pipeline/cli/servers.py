"""`pipeline up`, `demo`, `migrate` and `sandbox`: the processes, the schema, and both remote systems."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

import click

from db.migrate import current_revision, is_newer
from db.migrate import migrate as upgrade
from db.session import engine
from pipeline import embedded
from pipeline.cli.opening import begin, newest_revision
from pipeline.cli.showing import Failed, json_option, own_name, say, show, table, wants_json
from pipeline.up import example
from pipeline.up.children import SUPERVISOR
from pipeline.up.house import House, NotUp, open_house
from pipeline.up.places import LOOPBACK, PortTaken

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow")
"""One for each process, red left out."""


@click.command()
@click.option("--persons", default=1000, show_default=True, help="Records of the sandbox.")
@click.option("--organizations", default=200, show_default=True)
@click.option("--users", default=200, show_default=True, help="Users in the sandbox's Hull before anything is fetched.")
@click.option("--accounts", default=50, show_default=True)
@click.option("--example/--no-example", "has_example", default=True, help="Whether the connector demo is added.")
@click.option("--host", default=LOOPBACK, show_default=True, help="Address the web process listens on.")
@click.option("--quiet", is_flag=True, help="Do not show what the processes write.")
@json_option
def up(*, host: str, quiet: bool, has_example: bool, **sizes: int) -> None:
    """Run everything on this machine until interrupted: workers, beat, web, Flower, and a sandbox to talk to.

    PostgreSQL and the broker are started too unless DATABASE_URL, REDIS_URL or BROKER_URL name your own. With
    PIPEDRIVE_API_URL or PIPEDRIVE_CLIENT_ID set the real systems are faced, and there is no sandbox.

    \b
    Example:
      pipeline up
      PORT=9000 DATABASE_URL=postgresql://pipeline@db/pipeline SECRET_KEYS_FILE=keys pipeline up --host 0.0.0.0
    """
    printer = LinePrinter(quiet=quiet or wants_json())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGINT itself is silent behind a script's &
    chosen = begin()
    try:
        with open_house(chosen, tell=printer, sizes=sizes, host=host, has_example=has_example) as house:
            show(described(house), lambda: print_house(house))
            threading.Event().wait()
    except (NotUp, PortTaken) as error:
        raise Failed(str(error), "what the processes wrote says why; --quiet hides it") from None
    except KeyboardInterrupt:
        follow = " The embedded servers follow when no process uses them." if embedded.status(chosen) else ""
        click.echo(f"Everything has stopped.{follow}", err=True)


@click.command()
@json_option
def migrate() -> None:
    """Bring the database to the schema of this version. Safe to run again, and by several at once.

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
        words = f"The schema is at revision {after}, of a later version than this one, and stays as it is."
    show({"before": before, "after": after, "newest": newest_revision()}, lambda: say(words))


@click.command()
@click.option("--persons", default=1000, show_default=True)
@click.option("--organizations", default=200, show_default=True)
@click.option("--users", default=200, show_default=True, help="Users in Hull before anything is fetched.")
@click.option("--accounts", default=50, show_default=True)
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same records.")
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
@click.option("--daily-budget", type=int, help="Tokens all callers of Pipedrive may spend until midnight, UTC.")
@click.option("--clock-factor", default=1.0, show_default=True, help="How fast time passes in Pipedrive.")
@click.option("--clock-behind-s", default=0.0, show_default=True, help="How far before now time starts in Pipedrive.")
@json_option
def sandbox(**options: Any) -> None:
    """Serve a Pipedrive and a Hull of our own until interrupted; the first line says where, and with which credentials.

    \b
    Example:
      pipeline sandbox --persons 5000 --organizations 1000 --json
    """
    from sandbox.command import SandboxOptions, run  # noqa: PLC0415 - only this command pays for loading it

    click.get_current_context().exit(run(SandboxOptions(**options)))


COMMANDS: tuple[click.Command, ...] = (up, migrate, sandbox)


class LinePrinter:
    """Prints what the processes write, each line with its time and origin; to standard error if JSON goes to standard output."""

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


def described(house: House) -> dict[str, Any]:
    """What runs where; no secrets."""
    return {
        "web_url": house.web_url,
        "console_url": house.console_url,
        "public_url": house.settings.public_url,
        "intake_url": house.settings.arrival_url,
        "flower_url": house.flower_url,
        "flower_login_file": str(house.flower.file) if house.flower.file else None,
        "pipedrive_url": house.settings.pipedrive_api_url,
        "hull_url": house.sandbox["hull_url"] if house.sandbox else None,
        "connector": example.NAME if house.sandbox and house.has_example else None,
        "sandbox_file": str(house.sandbox_file) if house.sandbox_file else None,
        "data_dir": str(house.settings.data_dir),
        "pids": house.children.pids(),
        "notes": house.notes,
    }


def print_house(house: House) -> None:
    """The short table of what runs where, and what to do next."""
    pids = house.children.pids()
    rows = [
        ("console", house.console_url, pids["web"]),
        ("intake", house.settings.arrival_url, pids["intake"]),
        ("Flower", f"{house.flower_url} (user and password: {house.flower.where})", pids["flower"]),
        *(("worker", f"queue {queue}", pids[queue]) for queue in ("live", "control", "bulk")),
        ("beat", "ticks", pids["beat"]),
    ]
    if house.sandbox:
        where = f"Pipedrive {house.sandbox['pipedrive_url']}, Hull {house.sandbox['hull_url']}"
        rows.append(("sandbox", where, pids["sandbox"]))
    table("", ("what", "where", "process"), [(name, where, str(pid)) for name, where, pid in rows])
    for note in house.notes:
        say(f"Note: {note}.")
    if house.flower.file or house.sandbox_file:
        say(f"Data, local key: {house.settings.data_dir}")
    if house.sandbox_file and not house.has_example:
        say(f"Next: open the console and add a connector; its credentials are in {house.sandbox_file}")
    elif house.sandbox and house.sandbox_file:
        say(f"Next, in another terminal: {own_name()} fetch all {example.NAME} --wait")
    else:
        say(f"Next, in another terminal: {own_name()} connectors add --help")
    say("Stop: Ctrl-C.")
