"""`pipeline up`, `demo`, `migrate` and `sandbox`: the processes, the schema, and both remote systems."""

from __future__ import annotations

from typing import Any

import click

from db.migrate import current_revision
from db.migrate import migrate as upgrade
from db.session import engine
from pipeline.cli.opening import begin, newest_revision
from pipeline.cli.showing import json_option, say, show
from sandbox import command as sandbox_command


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
@json_option
def sandbox(**options: Any) -> None:
    """Serve a Pipedrive and a Hull of our own until interrupted; the first line says where, and with which credentials.

    \b
    Example:
      pipeline sandbox --persons 5000 --organizations 1000 --json
    """
    given = sandbox_command.SandboxOptions(**options)
    click.get_current_context().exit(sandbox_command.run(given))


COMMANDS: tuple[click.Command, ...] = (migrate, sandbox)
