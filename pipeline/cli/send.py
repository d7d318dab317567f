"""`pipeline send users|accounts`: send chosen Users or Accounts to Pipedrive, as "Send to" in Hull does."""

from __future__ import annotations

import click

from pipeline.cli.generated import command_of
from pipeline.domain.kinds import Entity
from pipeline.operations.sends import order_send


@click.group(name="send")
def group() -> None:
    """Send Users or Accounts from Hull to Pipedrive, whatever their segments.

    \b
    Example:
      pipeline send users acme --id 5bd329ebe0a1d8b9c8b0e3f1
      pipeline send accounts acme --segment 59ad2e8d30e9a0b5c1000123
    """


for entity in Entity:
    words = f"{entity.hull}s"
    example = f"pipeline send {words} acme --id 5bd329ebe0a1d8b9c8b0e3f1"
    group.add_command(command_of(order_send, words, fixed={"entity": entity.value}, example=example))

COMMANDS: tuple[click.Command, ...] = (group,)
