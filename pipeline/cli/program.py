"""The group of commands, and the one place that turns an error into a sentence, a next step and an exit code."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import click
from alembic.util.exc import CommandError
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from db import token_ledger
from db.migrate import SchemaTooOld
from pipeline.cli import demo, doctor, fetch, generated, send, servers, verify
from pipeline.cli.output import Failed
from pipeline.local.errors import EmbeddedError
from pipeline.operations.errors import as_operation_error
from pipeline.settings import SettingsError

FIRST: Final = ("up", "migrate", "sandbox", "demo", "connectors")
"""Commands that are listed before all others."""
BAD_USAGE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Statuses of errors that end with exit code 2: a named object does not exist, or a value is not valid."""


class Program(click.Group):
    """Lists commands in the order of their use, and explains errors."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(self.commands, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                token_ledger.flush_rest()
        except (SettingsError, EmbeddedError) as error:
            raise Failed(str(error)) from None
        except OperationalError as error:
            raise Failed(
                f"PostgreSQL does not answer: {_first_line(error)}", "check DATABASE_URL, then try again"
            ) from None
        except ProgrammingError as error:
            raise Failed(
                f"the schema does not fit this version: {_first_line(error)}", "run: pipeline migrate"
            ) from None
        except SchemaTooOld as error:
            raise Failed(str(error), error.next_step) from None
        except CommandError as error:
            raise Failed(f"the schema cannot be brought up to date: {error}") from None
        except Exception as error:
            explained = as_operation_error(error)
            if explained is None:
                raise
            message = "\n".join([explained.message, *(f"  {each}" for each in explained.mistakes)])
            exit_code = 2 if explained.status in BAD_USAGE else 1
            raise Failed(message, explained.next_step, exit_code=exit_code) from None


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start here: `pipeline up` runs everything on this machine. Each command has an example: pipeline COMMAND --help",
)
@click.version_option(package_name="hull-pipedrive", message="%(version)s")
def program() -> None:
    """Two-way sync between Hull (Users, Accounts) and Pipedrive (Persons, Organizations).

    Exit codes: 0 done, 1 the work failed, 2 bad usage.
    """


for module in (servers, demo, fetch, send, doctor, verify):
    for command in module.COMMANDS:
        program.add_command(command)
generated.add_to(program)
